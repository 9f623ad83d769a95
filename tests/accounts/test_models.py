"""What the database itself refuses, whoever writes; and what it never holds."""

from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from accounts import issuing
from accounts.issuing import Terms
from accounts.keys import LOOKUP_LENGTH, PREFIX
from accounts.models import ApiKey, AuditEvent, Membership, Tenant, User
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db


def refuses(constraint: str) -> "pytest.RaisesExc[IntegrityError]":
    return pytest.raises(IntegrityError, match=constraint)


def test_email_is_kept_in_lower_case() -> None:
    assert User.objects.create_user("Mixed@Case.Example").email == "mixed@case.example"
    with refuses("user_email_lower"):
        User.objects.create(email="Upper@case.example")


def test_email_is_unique_whatever_its_case() -> None:
    User.objects.create_user("a@case.example")
    with refuses("email"):
        User.objects.create_user("A@CASE.example")


def test_user_is_found_whatever_the_case_typed() -> None:
    user = User.objects.create_user("a@case.example")
    assert User.objects.get_by_natural_key("A@Case.Example") == user


def test_user_without_password_cannot_sign_in() -> None:
    assert not User.objects.create_user("a@case.example").has_usable_password()


def test_member_has_one_role(acme: Tenant, acme_admin: User) -> None:
    with refuses("membership_one_role"):
        Membership.objects.create(tenant=acme, user=acme_admin, role="viewer")


def test_unknown_role_is_refused(acme: Tenant, operator: User) -> None:
    with refuses("membership_role_known"):
        Membership.objects.create(tenant=acme, user=operator, role="root")


def test_tenant_slug_is_unique(acme: Tenant) -> None:
    with refuses("slug"):
        Tenant.objects.create(slug=acme.slug, name="Other")


@pytest.mark.parametrize(
    ("field", "constraint"),
    [
        ("error_dialect", "dialect_known"),
        ("unknown_fields", "unknown_known"),
        ("store_out", "store_out_known"),
        ("language", "language_known"),
    ],
)
def test_unknown_tenant_settings_are_refused(field: str, constraint: str) -> None:
    with refuses(constraint):
        Tenant.objects.create(slug="t", name="T", **{field: "other"})


@pytest.mark.parametrize("slug", ["", "Acme", "-a", "a-", "a_b", "a" * 64, "a\n", "関"])
def test_slug_that_would_not_fit_a_host_name_is_refused(slug: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Tenant(slug=slug, name="T").full_clean()
    assert set(caught.value.message_dict) == {"slug"}


@pytest.mark.parametrize(
    ("field", "value"),
    [("time_zone", "Tokyo"), ("cors_origins", ["https://a.example/path"]), ("cors_origins", ["*"]), ("error_dialect", "x")],
)
def test_malformed_tenant_setting_is_named(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        Tenant(slug="t", name="T", **{field: value}).full_clean()
    assert set(caught.value.message_dict) == {field}


def test_key_name_is_unique_while_current_and_free_after_revocation(acme_key: tuple[ApiKey, str]) -> None:
    key, _ = acme_key
    copy = ApiKey(tenant=key.tenant, name=key.name, lookup_id="other", scopes=["chat"], digest=key.digest)
    with refuses("key_name_unique_while_current"), transaction.atomic():
        copy.save(force_insert=True)
    issuing.revoke(key, actor=None, actor_label="test")
    copy.save(force_insert=True)


def test_two_tenants_may_use_the_same_key_name(acme_key: tuple[ApiKey, str], globex: Tenant) -> None:
    issuing.issue(globex, Terms(name=acme_key[0].name), actor=None, actor_label="test")


@pytest.mark.parametrize(
    ("changes", "constraint"),
    [
        ({"scopes": ["chat", "root"]}, "key_scopes_known"),
        ({"error_dialect": "other"}, "key_dialect_known"),
        ({"error_dialect": ""}, "key_dialect_known"),
    ],
)
def test_key_outside_the_closed_lists_is_refused(
    acme_key: tuple[ApiKey, str], changes: dict[str, object], constraint: str
) -> None:
    with refuses(constraint):
        ApiKey.objects.filter(pk=acme_key[0].pk).update(**changes)


def test_lookup_id_is_unique_across_tenants(acme_key: tuple[ApiKey, str], globex: Tenant) -> None:
    with refuses("lookup_id"):
        ApiKey.objects.create(tenant=globex, name="other", lookup_id=acme_key[0].lookup_id, scopes=["chat"])


def test_rotated_key_must_expire(acme_key: tuple[ApiKey, str]) -> None:
    key, _ = acme_key
    other, _ = issuing.issue(key.tenant, Terms(name="other"), actor=None, actor_label="test")
    with refuses("key_rotated_expires"):
        ApiKey.objects.filter(pk=key.pk).update(successor=other)


def test_tenant_with_rotated_keys_can_be_deleted(acme: Tenant, acme_key: tuple[ApiKey, str]) -> None:
    new, _ = issuing.rotate(acme_key[0], overlap=timedelta(hours=1), actor=None, actor_label="test")
    issuing.rotate(new, overlap=timedelta(hours=1), actor=None, actor_label="test")
    acme.delete()
    assert not ApiKey.objects.exists()
    connection.check_constraints()


def test_state_says_why_a_key_is_or_is_not_valid() -> None:
    past, future = timezone.now() - timedelta(hours=1), timezone.now() + timedelta(hours=1)
    new = ApiKey()
    assert ApiKey().state == "active"
    assert ApiKey(expires_at=future).state == "active"
    assert ApiKey(expires_at=past).state == "expired"
    assert ApiKey(expires_at=future, successor=new).state == "retiring"
    assert ApiKey(expires_at=past, successor=new).state == "expired"
    assert ApiKey(expires_at=past, revoked_at=past).state == "revoked"


def test_usable_leaves_out_revoked_expired_and_suspended(acme: Tenant, globex: Tenant) -> None:
    def made(tenant: Tenant, name: str) -> ApiKey:
        return issuing.issue(tenant, Terms(name=name), actor=None, actor_label="test")[0]

    good, revoked, expired, suspended = made(acme, "a"), made(acme, "b"), made(acme, "c"), made(globex, "d")
    issuing.revoke(revoked, actor=None, actor_label="test")
    ApiKey.objects.filter(pk=expired.pk).update(expires_at=timezone.now())
    Tenant.objects.filter(pk=suspended.tenant_id).update(is_active=False)
    assert list(ApiKey.objects.usable()) == [good]


def test_people_see_their_tenants_and_operators_all(
    acme: Tenant, acme_viewer: User, globex_admin: User, operator: User
) -> None:
    assert list(Tenant.objects.visible_to(acme_viewer)) == [acme]
    assert [t.slug for t in Tenant.objects.visible_to(globex_admin)] == ["globex"]
    assert Tenant.objects.visible_to(operator).count() == 2
    operator.is_active = False
    assert not Tenant.objects.visible_to(operator)


def test_rows_of_a_stranger_are_not_reached(
    acme: Tenant, globex: Tenant, acme_key: tuple[ApiKey, str], acme_admin: User
) -> None:
    for rows in (ApiKey.objects, Membership.objects, AuditEvent.objects):
        assert rows.for_tenant(acme).count() == 1
        assert not rows.for_tenant(globex).exists()


def test_neither_key_text_nor_secret_is_anywhere_in_the_database(acme: Tenant, acme_admin: User) -> None:
    imported = "from-elsewhere-0123456789"
    key, text = issuing.issue(acme, Terms(name="ci"), actor=acme_admin)
    _, successor = issuing.rotate(key, overlap=timedelta(hours=1), actor=acme_admin)
    issuing.import_key(acme, Terms(name="old"), imported, actor=acme_admin)
    dump = whole_database()
    assert key.lookup_id in dump  # the dump does see the keys
    assert acme_admin.email in dump
    for secret in (text, successor):
        assert secret not in dump
        assert secret[len(PREFIX) + LOOKUP_LENGTH :][:8] not in dump
    assert imported[:16] not in dump
    assert PASSWORD not in dump


def whole_database() -> str:
    """Every column of every row of every table, as text."""
    with connection.cursor() as cursor:
        rows: list[str] = []
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT t::text FROM "{table}" t')  # noqa: S608 - names from the catalogue
            rows += [row for (row,) in cursor.fetchall()]
    return "\n".join(rows)
