"""Who gets in: operators added and removed, rules of the second factor, lock-outs lifted, providers shown."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import redis
from allauth.mfa.models import Authenticator
from django.core.management import CommandError, call_command
from django.test import Client
from pytest_django import DjangoAssertNumQueries, Settings

from accounts import operators, security
from accounts.models import AuditEvent, SecurityRule, User
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]


@pytest.fixture
def admin(signed_in: SignedIn, operator: User) -> Client:
    return signed_in(operator)


def enter(client: Client, email: str, password: str = PASSWORD) -> Any:
    return client.post("/sign-in/", {"login": email, "password": password})


def verbs() -> list[str]:
    """Those of signing in and out: test_sign_in_trail.py."""
    told = AuditEvent.objects.exclude(verb__startswith="person.sign").exclude(verb="person.locked_out")
    return list(told.order_by("sequence").values_list("verb", flat=True))


@pytest.mark.parametrize("path", ["", "operators/", "rules/", "help/", "unlock/"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_page_is_not_there_for_whoever_runs_no_platform(signed_in: SignedIn, acme_owner: User, path: str, method: str) -> None:
    answer = getattr(signed_in(acme_owner), method)(f"/admin/access/{path}")
    assert answer.status_code in (404, 405)
    assert verbs() == []


def test_operator_that_is_no_account_yet_gets_a_link_that_works_once(admin: Client) -> None:
    page = admin.post("/admin/access/operators/", {"email": "New@Sekisho.example"}).content.decode()
    link = re.search(r'id="link">http://testserver(/[^<]+)<', page)[1]
    assert verbs() == ["operator.added"]
    assert link not in admin.get("/admin/access/").content.decode()
    them = Client()
    form = them.get(link, follow=True)
    assert "set-password" in form.request["PATH_INFO"]
    new = {"password1": "a permit for the new one", "password2": "a permit for the new one"}
    assert them.post(form.request["PATH_INFO"], new)["location"] == "/sign-in/new-password/done/"
    assert them.get("/sign-in/new-password/done/").status_code == 200
    assert enter(them, "new@sekisho.example", "a permit for the new one")["location"] == "/"
    assert them.get("/admin/access/").status_code == 200
    assert "opens nothing any more" in Client().get(link, follow=True).content.decode()
    assert verbs() == ["operator.added", "person.password_changed"]


def test_account_that_is_there_becomes_an_operator(admin: Client, acme_viewer: User) -> None:
    page = admin.post("/admin/access/operators/", {"email": acme_viewer.email}, follow=True).content.decode()
    assert f"{acme_viewer.email} is an operator now" in page
    acme_viewer.refresh_from_db()
    assert acme_viewer.is_operator


@pytest.mark.parametrize("email", ["", "nonsense", "operator@sekisho.example"])
def test_operator_that_cannot_be_added_is_said_at_the_field(admin: Client, email: str) -> None:
    answer = admin.post("/admin/access/operators/", {"email": email})
    assert answer.context["operator_form"].errors.keys() == {"email"}
    assert verbs() == []


def test_last_operator_stays(admin: Client, operator: User) -> None:
    page = admin.post(f"/admin/access/operators/{operator.pk}/remove/").content.decode()
    assert "This is the last operator" in page
    operator.refresh_from_db()
    assert operator.is_operator
    assert verbs() == []


def test_closed_operator_does_not_count_as_another_one(operator: User) -> None:
    closed = User.objects.create_user("closed@sekisho.example", is_operator=True)
    User.objects.filter(pk=closed.pk).update(is_active=False)
    with pytest.raises(operators.OperatorError):
        operators.remove(operator, actor=None, actor_label="test")


def test_removed_operator_is_out_at_once(admin: Client) -> None:
    other = User.objects.create_user("other@sekisho.example", PASSWORD, is_operator=True)
    theirs = Client()
    theirs.force_login(other)
    assert "The account stays" in admin.get(f"/admin/access/operators/{other.pk}/remove/").content.decode()
    admin.post(f"/admin/access/operators/{other.pk}/remove/")
    assert theirs.get("/admin/access/").status_code == 404
    assert verbs() == ["operator.removed"]


def test_rule_leads_whoever_it_reaches_to_a_second_factor(admin: Client, acme_admin: User, acme_viewer: User) -> None:
    admin.post("/admin/access/rules/", {"subjects": ["admin"]})
    assert verbs() == ["security.rules_changed"]
    assert (security.requires_second_factor(acme_admin), security.requires_second_factor(acme_viewer)) == (True, False)
    client = Client()
    client.force_login(acme_admin)
    assert client.get("/t/acme/")["location"] == "/account/second-factor/"
    assert "Your role requires a second factor" in client.get("/account/second-factor/").content.decode()
    client.force_login(acme_viewer)
    assert client.get("/t/acme/").status_code == 200


def test_rules_that_are_in_force_already_leave_no_event(admin: Client) -> None:
    admin.post("/admin/access/rules/", {"subjects": ["operator", "owner"]})
    Authenticator.objects.create(user=User.objects.get(is_operator=True), type="totp", data={"secret": ""})
    AuditEvent.objects.all()
    before = verbs()
    admin.post("/admin/access/rules/", {"subjects": ["owner", "operator"]})
    assert verbs() == before
    assert set(SecurityRule.objects.values_list("subject", flat=True)) == {"operator", "owner"}


def test_rule_for_nobody_that_is_is_refused(admin: Client) -> None:
    assert admin.post("/admin/access/rules/", {"subjects": ["everybody"]}).status_code == 200
    assert verbs() == []


def test_lockout_is_listed_and_lifted(admin: Client, acme_viewer: User, valkey: redis.Redis) -> None:
    them = Client()
    for _attempt in range(5):
        enter(them, acme_viewer.email, "wrong")
    assert enter(them, acme_viewer.email).status_code == 429
    assert acme_viewer.email in admin.get("/admin/access/").content.decode()
    admin.post("/admin/access/unlock/", {"email": acme_viewer.email, "address": "127.0.0.1"})
    assert verbs() == ["lockout.lifted"]
    assert acme_viewer.email not in admin.get("/admin/access/").content.decode()
    assert enter(them, acme_viewer.email).status_code == 302


def test_lifting_what_is_over_leaves_no_event(admin: Client, valkey: redis.Redis) -> None:
    page = admin.post("/admin/access/unlock/", {"email": "a@b.example", "address": "192.0.2.1"}, follow=True)
    assert "over already" in page.content.decode()
    assert verbs() == []


def test_account_that_was_tried_stays_text(admin: Client, valkey: redis.Redis) -> None:
    for _attempt in range(5):
        enter(Client(), '"<i>x</i>"@b.example', "wrong")
    page = admin.get("/admin/access/").content.decode()
    assert "<i>x</i>" not in page


def test_providers_are_shown_without_their_secret(admin: Client, settings: Settings) -> None:
    app = {
        "provider_id": "corp",
        "name": "<b>Corp</b>",
        "client_id": "sekisho",
        "secret": "kept-from-view",
        "settings": {"server_url": "https://id.corp.example", "vouches_for_addresses": False},
    }
    settings.SOCIALACCOUNT_PROVIDERS = {"openid_connect": {"APPS": [app]}}
    page = admin.get("/admin/access/").content.decode()
    assert "&lt;b&gt;Corp&lt;/b&gt;" in page
    assert "kept-from-view" not in page


def test_page_asks_few_queries_however_many_operators(
    admin: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    User.objects.bulk_create(User(email=f"o{n}@sekisho.example", is_operator=True) for n in range(60))
    with django_assert_max_num_queries(20):
        assert admin.get("/admin/access/").status_code == 200


def test_somebody_who_forgot_the_password_gets_a_link_from_an_operator(admin: Client, acme_viewer: User) -> None:
    page = admin.post("/admin/access/help/", {"who": acme_viewer.email, "what": "link"}).content.decode()
    link = re.search(r'id="link">http://testserver(/[^<]+)<', page)[1]
    assert verbs() == ["person.link_made"]
    assert enter(Client(), acme_viewer.email).status_code == 302
    assert "Choose a password" in Client().get(link, follow=True).content.decode()


def test_somebody_whose_phone_is_lost_signs_in_with_the_password_again(admin: Client, acme_viewer: User) -> None:
    Authenticator.objects.bulk_create(
        Authenticator(user=acme_viewer, type=kind, data={}) for kind in ("totp", "recovery_codes")
    )
    assert enter(Client(), acme_viewer.email)["location"] == "/sign-in/code/"
    admin.post("/admin/access/help/", {"who": acme_viewer.email, "what": "factor"})
    assert enter(Client(), acme_viewer.email)["location"] == "/"
    assert verbs() == ["person.second_factor_removed"]
    admin.post("/admin/access/help/", {"who": acme_viewer.email, "what": "factor"})
    assert verbs() == ["person.second_factor_removed"]


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [({"who": "", "what": "link"}, "who"), ({"who": "a@b.example", "what": "link"}, "who"), ({"what": ""}, "what")],
)
def test_help_that_cannot_be_is_said_at_the_field(admin: Client, fields: dict[str, str], at_fault: str) -> None:
    assert at_fault in admin.post("/admin/access/help/", fields).context["rescue_form"].errors
    assert verbs() == []


def test_command_takes_the_second_factor_off(acme_viewer: User) -> None:
    with pytest.raises(CommandError, match="has no second factor"):
        call_command("second_factor", "remove", acme_viewer.email)
    Authenticator.objects.bulk_create([Authenticator(user=acme_viewer, type="totp", data={})])
    call_command("second_factor", "remove", acme_viewer.email.upper())
    assert not Authenticator.objects.exists()
    assert AuditEvent.objects.get().actor_label == "command: second_factor remove"
