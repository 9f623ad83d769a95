"""What an attacker would try at the sign-in, one test a threat. Fixation, enumeration, open redirect: test_sign_in.py too."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import redis
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from axes.handlers.proxy import AxesProxyHandler
from axes.models import AccessAttempt, AccessFailureLog, AccessLog
from django.contrib.sessions.models import Session
from django.core import mail
from django.core.cache import caches
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import get_resolver
from pytest_django import Settings

from accounts.models import AuditEvent, SecurityRule, User
from portal import tasks
from portal.cache import EnduringCache
from portal.identity import lockouts, trail
from tests.conftest import PASSWORD
from tests.portal.furnished import patterns
from tests.portal.letterbox import broker_out, deliver, queued

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]


def enter(client: Client, email: str, password: str = PASSWORD, **more: Any) -> Any:
    return client.post("/sign-in/", {"login": email, "password": password}, **more)


def protect(user: User) -> list[str]:
    """Give `user` an app and recovery codes; returns the codes."""
    TOTP.activate(user, generate_totp_secret())
    return RecoveryCodes.activate(user).generate_codes()


def test_session_fixation_planted_session_is_not_the_one_signed_in(client: Client, acme_viewer: User) -> None:
    protect(acme_viewer)
    client.get("/sign-in/")
    planted = client.session
    planted["planted"] = "by an attacker"
    planted.save()
    client.cookies["sessionid"] = planted.session_key
    enter(client, acme_viewer.email)
    codes = Authenticator.objects.get(user=acme_viewer, type="recovery_codes").wrap().get_unused_codes()
    client.post("/sign-in/code/", {"code": codes[0]})
    assert client.get("/t/acme/").status_code == 200
    assert client.session.session_key != planted.session_key
    assert not Session.objects.filter(session_key=planted.session_key).exists()


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)"])
def test_open_redirect_second_factor_and_sign_out_lead_to_no_other_host(
    client: Client, acme_viewer: User, elsewhere: str
) -> None:
    codes = protect(acme_viewer)
    client.post("/sign-in/", {"login": acme_viewer.email, "password": PASSWORD, "next": elsewhere})
    assert client.post("/sign-in/code/", {"code": codes[0]})["location"] == "/"
    assert client.post("/sign-out/", {"next": elsewhere})["location"] == "/sign-in/"


def test_open_redirect_other_names_of_the_installation_are_other_hosts(
    client: Client, acme_viewer: User, settings: Settings
) -> None:
    settings.CSRF_TRUSTED_ORIGINS = ["https://other.example"]
    answer = client.post("/sign-in/", {"login": acme_viewer.email, "password": PASSWORD, "next": "https://other.example/"})
    assert answer["location"] == "/"


def test_brute_force_is_locked_out_at_the_fifth_failure(client: Client, acme_viewer: User) -> None:
    assert [enter(client, acme_viewer.email, "wrong").status_code for _attempt in range(5)] == [200] * 4 + [429]
    answer = enter(client, acme_viewer.email)
    assert answer.status_code == 429
    page = answer.content.decode()
    assert "15 more minutes" in page
    assert "Try again at" in page
    assert "no-store" in answer["cache-control"]
    assert client.get("/t/acme/").status_code == 302


def test_lockout_is_of_one_account_at_one_address(client: Client, acme_viewer: User, acme_admin: User) -> None:
    for _attempt in range(5):
        enter(client, acme_viewer.email.upper(), "wrong")
    assert enter(client, acme_viewer.email).status_code == 429
    assert enter(client, acme_admin.email).status_code == 302
    assert enter(Client(), acme_viewer.email, REMOTE_ADDR="192.0.2.7").status_code == 302


def test_sign_in_that_succeeds_forgets_the_failures_before(client: Client, acme_viewer: User) -> None:
    for _round in range(3):
        for _attempt in range(4):
            enter(client, acme_viewer.email, "wrong")
        assert enter(client, acme_viewer.email).status_code == 302
        client.post("/sign-out/")


def test_lockout_is_not_prolonged_by_more_attempts(client: Client, acme_viewer: User) -> None:
    for _attempt in range(5):
        enter(client, acme_viewer.email, "wrong")
    end = lockouts.end_of(acme_viewer.email, "127.0.0.1")
    for _attempt in range(3):
        enter(client, acme_viewer.email, "wrong")
    assert lockouts.end_of(acme_viewer.email, "127.0.0.1") == end


def test_lockout_ends_with_its_time(client: Client, acme_viewer: User, settings: Settings, valkey: redis.Redis) -> None:
    for _attempt in range(5):
        enter(client, acme_viewer.email, "wrong")
    counts = list(valkey.scan_iter("sekisho:portal:*axes*"))
    assert [0 < valkey.ttl(key) <= 15 * 60 for key in counts] == [True]
    valkey.delete(*counts)  # as its end does
    assert enter(client, acme_viewer.email).status_code == 302


def test_guessing_one_account_from_everywhere_is_slowed(client: Client, acme_viewer: User, settings: Settings) -> None:
    settings.ACCOUNT_RATE_LIMITS = {"password": "3/h/key"}
    for n in range(3):
        enter(Client(), acme_viewer.email, "wrong", REMOTE_ADDR=f"192.0.2.{n}")
    answer = enter(client, acme_viewer.email, REMOTE_ADDR="192.0.2.99")
    assert "Too many attempts" in answer.content.decode()


def test_guessing_second_factors_is_locked_out(client: Client, acme_viewer: User) -> None:
    codes = protect(acme_viewer)
    enter(client, acme_viewer.email)
    for _attempt in range(5):
        assert "is not right" in client.post("/sign-in/code/", {"code": "12345678"}).content.decode()
    assert "Too many attempts" in client.post("/sign-in/code/", {"code": codes[0]}).content.decode()


def test_guessing_fills_no_table(client: Client, acme_viewer: User) -> None:
    for attempt in range(40):
        enter(client, f"{attempt % 9}@acme.example", "wrong")
    assert [model.objects.count() for model in (AccessAttempt, AccessFailureLog, AccessLog)] == [0] * 3
    assert AuditEvent.objects.count() == trail.FAILURES_TOLD


def test_address_behind_a_trusted_proxy_is_the_clients(client: Client, acme_viewer: User, settings: Settings) -> None:
    settings.TRUSTED_PROXIES = ["127.0.0.1/32"]
    for _attempt in range(5):
        enter(client, acme_viewer.email, "wrong", headers={"x-forwarded-for": "203.0.113.9, 192.0.2.1"})
    assert lockouts.in_force()[0].address == "192.0.2.1"
    assert enter(client, acme_viewer.email, headers={"x-forwarded-for": "203.0.113.9"}).status_code == 302


def test_address_a_client_claims_without_a_proxy_is_not_believed(client: Client, acme_viewer: User) -> None:
    for n in range(5):
        enter(client, acme_viewer.email, "wrong", headers={"x-forwarded-for": f"192.0.2.{n}"})
    assert enter(client, acme_viewer.email, headers={"x-forwarded-for": "192.0.2.200"}).status_code == 429


def test_redis_out_people_sign_in_and_guessing_is_counted_all_the_same(
    client: Client, acme_viewer: User, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = "redis://127.0.0.1:9/0"
    settings.REDIS_URL = nowhere
    out = EnduringCache(nowhere, {})
    monkeypatch.setattr(caches._connections, "default", out, raising=False)
    monkeypatch.setattr(AxesProxyHandler.get_implementation(), "cache", out)
    assert enter(client, acme_viewer.email).status_code == 302
    client.post("/sign-out/")
    other = "nobody@acme.example"
    assert [enter(client, other, "wrong").status_code for _attempt in range(5)] == [200] * 4 + [429]
    assert lockouts.in_force() is None
    operator = User.objects.create_user("op@sekisho.example", PASSWORD, is_operator=True)
    client.force_login(operator)
    assert "while Redis is out" in client.get("/admin/access/").content.decode()


def test_enumeration_reset_of_an_unknown_address_looks_the_same(client: Client, acme_viewer: User, settings: Settings) -> None:
    settings.IS_MAIL_CONFIGURED = True
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    known = client.post("/sign-in/forgotten/", {"email": acme_viewer.email})
    unknown = client.post("/sign-in/forgotten/", {"email": "nobody@acme.example"})
    assert (known.status_code, known["location"]) == (unknown.status_code, unknown["location"])
    assert mail.outbox == []  # while the page is made no letter is written, and nobody is looked up
    asked = queued()
    origin = "http://testserver"
    assert asked == [
        ("portal.tasks.send_new_password", [acme_viewer.email, origin, "en"]),
        ("portal.tasks.send_new_password", ["nobody@acme.example", origin, "en"]),
    ]
    for _task, arguments in asked:
        tasks.send_new_password(*arguments)
    assert [message.to for message in mail.outbox] == [[acme_viewer.email]]
    assert f"{origin}/sign-in/new-password/" in mail.outbox[0].body
    assert client.get(known["location"]).status_code == 200


def test_enumeration_reset_asks_the_database_the_same_for_every_address(
    client: Client, acme_viewer: User, settings: Settings
) -> None:
    settings.IS_MAIL_CONFIGURED = True
    asked = []
    for email in (acme_viewer.email, "nobody@acme.example"):
        with CaptureQueriesContext(connection) as queries:
            client.post("/sign-in/forgotten/", {"email": email})
        asked.append([query["sql"].replace(email, "") for query in queries])
    assert asked[0] == asked[1]


def test_reset_with_the_queue_out_says_so_for_every_address(client: Client, acme_viewer: User, settings: Settings) -> None:
    settings.IS_MAIL_CONFIGURED = True
    with broker_out():
        pages = [client.post("/sign-in/forgotten/", {"email": email}) for email in (acme_viewer.email, "nobody@acme.example")]
    assert [page.status_code for page in pages] == [503, 503]
    assert all("Nothing could be sent just now" in page.content.decode() for page in pages)


def test_letters_that_no_mail_server_takes_are_tried_again(
    acme_viewer: User, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    with pytest.raises(tasks.Undelivered):
        tasks.send_new_password(acme_viewer.email, "http://testserver", "en")
    assert "ConnectionRefusedError" in caplog.text
    assert acme_viewer.email not in caplog.text


def test_enumeration_closed_and_second_factor_accounts_answer_a_wrong_password_alike(
    client: Client, acme_viewer: User, acme_admin: User
) -> None:
    protect(acme_admin)
    errors = [enter(client, email, "wrong").context["form"].errors for email in (acme_admin.email, "nobody@acme.example")]
    assert errors[0] == errors[1]


def test_reset_without_mail_says_whom_to_ask(client: Client) -> None:
    assert "sends no mail" in client.get("/sign-in/forgotten/").content.decode()
    assert "sends no mail" in client.post("/sign-in/forgotten/", {"email": "a@b.example"}).content.decode()


def test_sign_out_ends_the_session_on_the_server(client: Client, acme_viewer: User) -> None:
    enter(client, acme_viewer.email)
    stolen = client.cookies["sessionid"].value
    client.post("/sign-out/")
    thief = Client()
    thief.cookies["sessionid"] = stolen
    assert thief.get("/t/acme/").status_code == 302
    assert not Session.objects.filter(session_key=stolen).exists()


@pytest.mark.parametrize(
    "path",
    [
        *("/sign-in/", "/sign-out/", "/sign-in/code/", "/sign-in/passkey/", "/sign-in/forgotten/", "/sign-in/with/corp/"),
        *("/account/", "/account/password/", "/account/sessions/", "/account/second-factor/app/remove/"),
        *("/admin/access/operators/", "/admin/access/rules/", "/admin/access/unlock/"),
    ],
)
def test_csrf_form_of_another_site_is_refused(operator: User, path: str) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(operator)
    answer = client.post(path, {"email": "evil@evil.example"})
    assert answer.status_code == 403
    assert "out of date" in answer.content.decode()


def test_second_factor_is_not_skipped_by_going_to_another_url(client: Client, acme_viewer: User) -> None:
    protect(acme_viewer)
    assert enter(client, acme_viewer.email)["location"] == "/sign-in/code/"
    for path in ("/", "/t/acme/", "/account/", "/account/second-factor/", "/account/second-factor/codes/", "/account/confirm/"):
        assert client.get(path)["location"].startswith("/sign-in/"), path
    assert client.get("/sign-in/")["location"] == "/sign-in/code/"
    client.post("/sign-out/")
    assert client.get("/sign-in/code/")["location"] == "/sign-in/"


OPEN_WHILE_OWING = {
    *("account/confirm/", "account/confirm/code/", "account/confirm/passkey/", "account/second-factor/"),
    *("account/second-factor/app/", "account/second-factor/codes/", "account/second-factor/codes/file/"),
    "account/passkeys/add/",
    "notifications/bell/",  # how many there are; the part stands on each of these pages
}


def test_who_owes_a_second_factor_opens_nothing_but_its_setting_up(signed_in: SignedIn, operator: User) -> None:
    """Every page behind sign-in, as the URLconf has them."""
    SecurityRule.objects.create(subject="operator")
    client = signed_in(operator)
    opened = set()
    for route, pattern in patterns(get_resolver()):
        if pattern.callback.access in ("public", "internal"):
            continue
        path = re.sub(
            r"<(uuid|int|slug|str):\w+>", lambda kind: {"uuid": str(operator.pk), "int": "1"}.get(kind[1], "x"), route
        )
        for method in ("get", "post"):
            answer = getattr(client, method)(f"/{path}")
            if answer.status_code != 405 and answer.get("location") != "/account/second-factor/":
                opened.add(route)
    assert opened == OPEN_WHILE_OWING


def test_recovery_code_is_used_once(acme_viewer: User) -> None:
    codes = protect(acme_viewer)
    for expected in ("/", None):
        client = Client()
        enter(client, acme_viewer.email)
        assert client.post("/sign-in/code/", {"code": codes[0]}).get("location") == expected


def test_link_for_a_new_password_ends_open_sessions(client: Client, acme_viewer: User, settings: Settings) -> None:
    settings.IS_MAIL_CONFIGURED = True
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    enter(client, acme_viewer.email)
    other = Client()
    other.post("/sign-in/forgotten/", {"email": acme_viewer.email})
    deliver()
    link = next(line for line in mail.outbox[0].body.splitlines() if "/new-password/" in line)
    form = other.get(link.removeprefix("http://testserver"), follow=True)
    new = {"password1": "another permit, please", "password2": "another permit, please"}
    other.post(form.request["PATH_INFO"], new)
    assert client.get("/t/acme/").status_code == 302
    assert AuditEvent.objects.first().verb == "person.password_changed"
