"""Keys are issued, imported, rotated and revoked: what is kept, what is returned, what is refused, what is recorded."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone, translation
from pytest_django import Settings

from accounts import audit, issuing, keys
from accounts.issuing import IssuingError, Terms
from accounts.models import ApiKey, AuditEvent, Tenant, User

pytestmark = pytest.mark.django_db
IMPORTED = "sk-lemon-0123456789abcdef"
HOUR = timedelta(hours=1)


def verifies(key: ApiKey, text: str) -> bool:
    ring = keys.peppers(settings.KEY_PEPPERS)
    return keys.matches(text, stored_digest=key.digest, pepper_id=key.pepper_id, ring=ring)


def last_event() -> AuditEvent:
    event = AuditEvent.objects.first()
    assert event is not None
    return event


def test_issued_key_is_found_and_verified_by_its_text(acme: Tenant, acme_admin: User) -> None:
    key, text = issuing.issue(acme, Terms(name="ci"), actor=acme_admin)
    stored = ApiKey.objects.get(lookup_id=keys.lookup_id(text, keys.peppers(settings.KEY_PEPPERS)[0]))
    assert stored == key
    assert verifies(stored, text)
    assert not verifies(stored, keys.mint())
    assert stored.pepper_id == settings.KEY_PEPPERS[0][0]
    assert stored.created_by == acme_admin
    assert (stored.scopes, stored.aliases, stored.networks, stored.error_dialect, stored.expires_at) == (
        ["chat", "models"],
        None,
        [],
        None,
        None,
    )
    assert not stored.is_imported


def test_issuing_records_who_and_what(acme: Tenant, acme_admin: User) -> None:
    end = timezone.now() + HOUR
    terms = Terms("ci", ["usage", "chat", "chat"], ["b", "a"], ["192.0.2.0/24"], "detail", end, ["secrets", "calm", "calm"])
    key, text = issuing.issue(acme, terms, actor=acme_admin, address="192.0.2.7", request_id="r1")
    event = last_event()
    assert (event.verb, event.target, event.tenant, event.before) == ("key.issued", f"key {key}", acme, None)
    assert (event.actor, event.actor_label, event.address, event.request_id) == (
        acme_admin,
        acme_admin.email,
        "192.0.2.7",
        "r1",
    )
    assert event.after is not None
    assert event.after["scopes"] == ["chat", "usage"]
    assert event.after["aliases"] == ["a", "b"]
    assert event.after["policies"] == ["calm", "secrets"]
    assert event.after["hint"] == keys.hint(text)
    assert AuditEvent.objects.count() == 1


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        (Terms(name=" "), "name"),
        (Terms(name="a\nb"), "name"),
        (Terms(name="a\x00b"), "name"),
        (Terms(name="x" * 65), "name"),
        (Terms(name=keys.mint()), "name"),
        (Terms("ci", scopes=[]), "scopes"),
        (Terms("ci", scopes=["chat", "root"]), "scopes"),
        (Terms("ci", networks=["192.0.2.1/24"]), "networks"),
        (Terms("ci", networks=["localhost"]), "networks"),
        (Terms("ci", aliases=["x" * 129]), "aliases"),
        (Terms("ci", error_dialect="other"), "error_dialect"),
        (Terms("ci", expires_at=timezone.now() - HOUR), "expires_at"),
    ],
)
def test_terms_that_cannot_be_are_refused_by_name(acme: Tenant, terms: Terms, field: str) -> None:
    with pytest.raises(IssuingError) as caught:
        issuing.issue(acme, terms, actor=None, actor_label="test")
    assert caught.value.field == field
    assert caught.value.message
    assert not ApiKey.objects.exists()
    assert not AuditEvent.objects.exists()


def test_surrounding_spaces_do_not_make_another_name(acme: Tenant, acme_key: tuple[ApiKey, str]) -> None:
    with pytest.raises(IssuingError, match="has a key of this name already") as caught:
        issuing.issue(acme, Terms(name=" ci "), actor=None, actor_label="test")
    assert caught.value.field == "name"


def test_suspended_tenant_gets_no_keys(acme: Tenant, acme_key: tuple[ApiKey, str]) -> None:
    acme.is_active = False
    acme.save()
    attempts: list[Callable[[], object]] = [
        lambda: issuing.issue(acme, Terms(name="new"), actor=None, actor_label="test"),
        lambda: issuing.import_key(acme, Terms(name="new"), IMPORTED, actor=None, actor_label="test"),
        lambda: issuing.rotate(acme_key[0], overlap=HOUR, actor=None, actor_label="test"),
    ]
    for attempt in attempts:
        with pytest.raises(IssuingError, match="suspended"):
            attempt()
    assert ApiKey.objects.get().state == "active"
    assert issuing.revoke(acme_key[0], actor=None, actor_label="test")


def test_errors_can_be_told_in_the_language_of_the_caller(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuing, "_", lambda text: f"{translation.get_language()}: {text}")
    with translation.override("ja"), pytest.raises(IssuingError, match=r"^ja: "):
        issuing.issue(acme, Terms("ci", scopes=["root"]), actor=None, actor_label="test")


def test_imported_key_is_found_and_verified_by_its_text(acme: Tenant) -> None:
    key = issuing.import_key(acme, Terms(name="old"), IMPORTED, actor=None, actor_label="test")
    stored = ApiKey.objects.get(lookup_id=keys.lookup_id(IMPORTED, keys.peppers(settings.KEY_PEPPERS)[0]))
    assert stored == key
    assert verifies(stored, IMPORTED)
    assert stored.is_imported
    assert last_event().verb == "key.imported"


def test_minted_key_of_another_installation_can_be_imported(acme: Tenant) -> None:
    text = keys.mint()
    key = issuing.import_key(acme, Terms(name="moved"), text, actor=None, actor_label="test")
    assert verifies(key, text)
    assert not key.is_imported


def test_same_text_is_imported_once(acme: Tenant, globex: Tenant, settings: Settings) -> None:
    key = issuing.import_key(acme, Terms(name="old"), IMPORTED, actor=None, actor_label="test")
    issuing.revoke(key, actor=None, actor_label="test")
    settings.KEY_PEPPERS = (("t2", "a new pepper"), *settings.KEY_PEPPERS)
    with pytest.raises(IssuingError, match="here already") as caught:
        issuing.import_key(globex, Terms(name="old"), IMPORTED, actor=None, actor_label="test")
    assert caught.value.field == "text"


def test_issued_text_cannot_be_imported_again(acme: Tenant, acme_key: tuple[ApiKey, str]) -> None:
    with pytest.raises(IssuingError, match="here already"):
        issuing.import_key(acme, Terms(name="again"), acme_key[1], actor=None, actor_label="test")


@pytest.mark.parametrize("text", ["k" * 19, "with a space in its midst", keys.PREFIX + "0" * 50])
def test_text_that_is_no_key_is_not_imported_nor_said_back(acme: Tenant, text: str) -> None:
    with pytest.raises(IssuingError) as caught:
        issuing.import_key(acme, Terms(name="bad"), text, actor=None, actor_label="test")
    assert caught.value.field == "text"
    assert text not in str(caught.value)


def test_rotation_inherits_the_terms_and_retires_the_old_key(acme: Tenant, acme_admin: User) -> None:
    end = timezone.now() + timedelta(days=90)
    terms = Terms("ci", ["chat"], ["general"], ["192.0.2.0/24", "2001:db8::/32"], "both", end, ["calm"])
    old, old_text = issuing.issue(acme, terms, actor=None, actor_label="test")
    before = timezone.now()
    new, text = issuing.rotate(old, overlap=HOUR, actor=acme_admin)
    after = timezone.now()
    inherited = ("tenant", "name", "scopes", "aliases", "networks", "error_dialect", "policies")
    assert [getattr(new, name) for name in inherited] == [getattr(old, name) for name in inherited]
    assert new.expires_at == end
    assert new.created_by == acme_admin
    assert text != old_text
    stored = ApiKey.objects.get(pk=old.pk)
    assert (stored.state, stored.successor) == ("retiring", new)
    assert stored.expires_at is not None
    assert before + HOUR <= stored.expires_at <= after + HOUR
    assert set(ApiKey.objects.usable()) == {old, new}
    event = last_event()
    assert event.after is not None
    assert (event.verb, event.after["successor"]["id"]) == ("key.rotated", str(new.pk))
    assert AuditEvent.objects.count() == 2


def test_rotation_never_prolongs_the_old_key(acme: Tenant) -> None:
    end = timezone.now() + HOUR
    old, _ = issuing.issue(acme, Terms("ci", expires_at=end), actor=None, actor_label="test")
    issuing.rotate(old, overlap=2 * HOUR, actor=None, actor_label="test")
    assert ApiKey.objects.get(pk=old.pk).expires_at == end


def test_rotation_without_overlap_ends_the_old_key_at_once(acme_key: tuple[ApiKey, str]) -> None:
    new, _ = issuing.rotate(acme_key[0], overlap=timedelta(), actor=None, actor_label="test")
    assert list(ApiKey.objects.usable()) == [new]


def test_revised_key_has_other_terms_and_the_same_text(acme_key: tuple[ApiKey, str], acme_admin: User) -> None:
    key, text = acme_key
    end = timezone.now() + HOUR
    assert issuing.revise(key, Terms("ci 2", ["chat"], ["b", "a"], ["192.0.2.0/24"], "both", end, ["calm"]), actor=acme_admin)
    assert (key.name, key.scopes, key.aliases, key.networks, key.error_dialect, key.expires_at, key.policies) == (
        "ci 2", ["chat"], ["a", "b"], ["192.0.2.0/24"], "both", end, ["calm"],
    )  # fmt: skip
    assert verifies(ApiKey.objects.get(), text)
    event = last_event()
    assert event.before is not None
    assert event.after is not None
    assert (event.verb, event.actor) == ("key.changed", acme_admin)
    assert (event.before["name"], event.after["name"]) == ("ci", "ci 2")
    assert AuditEvent.objects.count() == 2


def test_revising_into_what_it_is_writes_nothing(acme_key: tuple[ApiKey, str]) -> None:
    assert not issuing.revise(acme_key[0], Terms(" ci "), actor=None, actor_label="test")
    assert AuditEvent.objects.count() == 1


def test_only_what_changes_is_recorded(acme_key: tuple[ApiKey, str]) -> None:
    assert issuing.revise(acme_key[0], Terms("ci", scopes=["chat"]), actor=None, actor_label="test")
    assert (last_event().before, last_event().after) == ({"scopes": ["chat", "models"]}, {"scopes": ["chat"]})


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        (Terms(name="taken"), "name"),
        (Terms(name=keys.mint()), "name"),
        (Terms("ci", scopes=[]), "scopes"),
        (Terms("ci", networks=["localhost"]), "networks"),
        (Terms("ci", expires_at=timezone.now() - HOUR), "expires_at"),
    ],
)
def test_key_is_not_revised_into_what_cannot_be(acme: Tenant, acme_key: tuple[ApiKey, str], terms: Terms, field: str) -> None:
    issuing.issue(acme, Terms("taken"), actor=None, actor_label="test")
    with pytest.raises(IssuingError) as caught:
        issuing.revise(acme_key[0], terms, actor=None, actor_label="test")
    assert caught.value.field == field
    assert (acme_key[0].name, acme_key[0].expires_at) == ("ci", None)
    assert AuditEvent.objects.count() == 2


def test_expired_key_is_given_a_later_end_and_a_rotated_or_revoked_one_never(acme: Tenant) -> None:
    expired, rotated, revoked = (issuing.issue(acme, Terms(name), actor=None, actor_label="test")[0] for name in "abc")
    ApiKey.objects.filter(pk=expired.pk).update(expires_at=timezone.now() - HOUR)
    assert issuing.revise(expired, Terms("a", expires_at=timezone.now() + HOUR), actor=None, actor_label="test")
    assert expired.state == "active"
    issuing.rotate(rotated, overlap=HOUR, actor=None, actor_label="test")
    issuing.revoke(revoked, actor=None, actor_label="test")
    for key in (rotated, revoked):
        with pytest.raises(IssuingError, match="stay as they are"):
            issuing.revise(key, Terms("new name"), actor=None, actor_label="test")


def test_imported_key_rotates_into_a_minted_one(acme: Tenant) -> None:
    old = issuing.import_key(acme, Terms(name="old"), IMPORTED, actor=None, actor_label="test")
    new, text = issuing.rotate(old, overlap=HOUR, actor=None, actor_label="test")
    assert keys.is_minted(text)
    assert not new.is_imported


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), timedelta(days=366)])
def test_overlap_out_of_range_is_refused(acme_key: tuple[ApiKey, str], overlap: timedelta) -> None:
    with pytest.raises(IssuingError) as caught:
        issuing.rotate(acme_key[0], overlap=overlap, actor=None, actor_label="test")
    assert caught.value.field == "overlap"


def test_only_an_active_key_is_rotated(acme: Tenant, acme_key: tuple[ApiKey, str]) -> None:
    rotated, _ = acme_key
    revoked, _ = issuing.rotate(rotated, overlap=HOUR, actor=None, actor_label="test")
    issuing.revoke(revoked, actor=None, actor_label="test")
    expired, _ = issuing.issue(acme, Terms(name="expired"), actor=None, actor_label="test")
    ApiKey.objects.filter(pk=expired.pk).update(expires_at=timezone.now())
    for key in (rotated, revoked, expired):
        with pytest.raises(IssuingError, match="Only an active key"):
            issuing.rotate(key, overlap=HOUR, actor=None, actor_label="test")


def test_revocation_is_for_ever_and_recorded_once(acme_key: tuple[ApiKey, str]) -> None:
    key, _ = acme_key
    assert issuing.revoke(key, actor=None, actor_label="test")
    moment: datetime | None = ApiKey.objects.get().revoked_at
    assert moment is not None
    assert (last_event().verb, last_event().before, last_event().after) == (
        "key.revoked",
        {"state": "active"},
        {"state": "revoked"},
    )
    assert not issuing.revoke(key, actor=None, actor_label="test")
    assert ApiKey.objects.get().revoked_at == moment
    assert AuditEvent.objects.count() == 2


def test_key_and_event_stand_or_fall_together(acme: Tenant) -> None:
    with pytest.raises(ValueError, match="actor"):
        issuing.issue(acme, Terms(name="nobody's"), actor=None)
    assert not ApiKey.objects.exists()
    with transaction.atomic():
        issuing.issue(acme, Terms(name="ci"), actor=None, actor_label="test")
        transaction.set_rollback(True)
    assert not ApiKey.objects.exists()
    assert not AuditEvent.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_rotations_at_once_one_wins(acme_key: tuple[ApiKey, str]) -> None:
    def rotate() -> None:
        issuing.rotate(ApiKey.objects.get(pk=acme_key[0].pk), overlap=HOUR, actor=None, actor_label="test")

    assert refusals_at_once(rotate) == ["key"] * 7
    assert ApiKey.objects.usable().count() == 2
    assert audit.verify() is None


@pytest.mark.django_db(transaction=True)
def test_of_keys_of_one_name_at_once_one_is_made(acme: Tenant) -> None:
    def issue() -> None:
        issuing.issue(acme, Terms(name="same"), actor=None, actor_label="test")

    assert refusals_at_once(issue) == ["name"] * 7
    assert ApiKey.objects.count() == AuditEvent.objects.count() == 1


def refusals_at_once(act: Callable[[], None]) -> list[str]:
    """Run `act` in eight threads; the fields of the IssuingErrors."""

    def attempt(_: int) -> str | None:
        try:
            act()
        except IssuingError as error:
            return error.field
        finally:
            connection.close()
        return None

    with ThreadPoolExecutor(8) as pool:
        return [field for field in pool.map(attempt, range(8)) if field is not None]
