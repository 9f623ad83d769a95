"""One's own account: profile, password, second factor, passkeys, sessions; in both languages, for whoever signed in."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import (
    TOTP,
    format_hotp_value,
    generate_totp_secret,
    hotp_value,
    yield_hotp_counters_from_time,
)
from allauth.usersessions.models import UserSession
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from accounts.models import AuditEvent, User
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
PAGES = ["", "password/", "second-factor/", "second-factor/app/", "passkeys/", "passkeys/add/", "sessions/", "activity/"]


def enter(client: Client, email: str, password: str = PASSWORD, **more: str) -> Any:
    return client.post("/sign-in/", {"login": email, "password": password} | more)


def code_of(secret: str) -> str:
    return str(format_hotp_value(hotp_value(secret, next(yield_hotp_counters_from_time()))))


@pytest.fixture
def viewer(client: Client, acme_viewer: User) -> Client:
    """Signed in by the form, as people are: what comes next needs the moment of sign-in."""
    enter(client, acme_viewer.email)
    return client


def verbs() -> list[str]:
    """Those of signing in and out: test_sign_in_trail.py."""
    told = AuditEvent.objects.exclude(verb__startswith="person.sign").exclude(verb="person.locked_out")
    return list(told.order_by("sequence").values_list("verb", flat=True))


@pytest.mark.parametrize("language", ["ja", "en"])
@pytest.mark.parametrize("path", PAGES)
def test_every_page_of_the_account_opens(viewer: Client, path: str, language: str) -> None:
    viewer.cookies["django_language"] = language
    answer = viewer.get(f"/account/{path}")
    page = answer.content.decode()
    assert answer.status_code == 200
    assert f'<html lang="{language}"' in page
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert re.findall(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", page) == []


@pytest.mark.parametrize("path", PAGES)
def test_nobody_opens_a_page_of_the_account(client: Client, path: str) -> None:
    assert client.get(f"/account/{path}")["location"].startswith("/sign-in/")


@pytest.mark.parametrize("path", PAGES)
def test_page_of_the_account_asks_few_queries(
    viewer: Client, path: str, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_max_num_queries(20):
        viewer.get(f"/account/{path}")


def test_profile_keeps_name_language_and_theme(viewer: Client, acme_viewer: User) -> None:
    viewer.post("/account/", {"name": "<b>Aki</b>", "language": "ja", "theme": "dark"})
    acme_viewer.refresh_from_db()
    assert (acme_viewer.name, acme_viewer.language) == ("<b>Aki</b>", "ja")
    assert verbs() == ["person.changed"]
    page = viewer.get("/account/").content.decode()
    assert '<html lang="ja" data-theme="dark">' in page
    assert "<b>Aki</b>" not in page


def test_profile_that_is_as_it_was_leaves_no_event(viewer: Client) -> None:
    viewer.post("/account/", {"name": "", "language": "", "theme": "system"})
    assert verbs() == []


def test_theme_that_is_none_is_said_at_the_field_and_the_name_stays(viewer: Client) -> None:
    answer = viewer.post("/account/", {"name": "Aki", "language": "", "theme": "sepia"})
    assert answer.context["form"].errors.keys() == {"theme"}
    assert 'value="Aki"' in answer.content.decode()


def test_password_changes_here_and_ends_sessions_elsewhere(viewer: Client, acme_viewer: User) -> None:
    elsewhere = Client()
    enter(elsewhere, acme_viewer.email)
    new = {"oldpassword": PASSWORD, "password1": "another permit, please", "password2": "another permit, please"}
    viewer.post("/account/password/", new)
    assert verbs() == ["person.password_changed"]
    assert viewer.get("/account/").status_code == 200
    assert elsewhere.get("/account/").status_code == 302
    assert enter(Client(), acme_viewer.email, "another permit, please").status_code == 302


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        ({"oldpassword": "wrong", "password1": "another permit, please", "password2": "another permit, please"}, "oldpassword"),
        ({"oldpassword": PASSWORD, "password1": "short", "password2": "short"}, "password1"),
        ({"oldpassword": PASSWORD, "password1": "another permit, please", "password2": "something else, please"}, "password2"),
    ],
)
def test_password_that_cannot_be_is_said_at_the_field(viewer: Client, fields: dict[str, str], at_fault: str) -> None:
    assert viewer.post("/account/password/", fields).context["form"].errors.keys() == {at_fault}
    assert verbs() == []


def test_app_is_set_up_used_at_sign_in_and_taken_off(viewer: Client, acme_viewer: User) -> None:
    page = viewer.get("/account/second-factor/app/")
    secret = page.context["form"].secret
    assert "data:image/svg+xml;base64," in page.content.decode()
    answer = viewer.post("/account/second-factor/app/", {"code": code_of(secret)})
    assert answer["location"] == "/account/second-factor/codes/"
    assert secret not in str(Authenticator.objects.get(type="totp").data)
    codes = viewer.get(answer["location"]).context["unused_codes"]
    assert len(codes) == 10
    assert codes[0] in viewer.get("/account/second-factor/codes/file/").content.decode()

    again = Client()
    assert enter(again, acme_viewer.email)["location"] == "/sign-in/code/"
    assert again.get("/sign-in/code/").status_code == 200
    assert again.get("/t/acme/")["location"].startswith("/sign-in/")
    assert "is not right" in again.post("/sign-in/code/", {"code": "000000"}).content.decode()
    assert again.post("/sign-in/code/", {"code": codes[1]})["location"] == "/"
    assert again.get("/t/acme/").status_code == 200

    assert viewer.get("/account/second-factor/app/remove/").status_code == 200
    viewer.post("/account/second-factor/app/remove/")
    assert not Authenticator.objects.exists()
    assert verbs() == ["person.second_factor_added", "person.second_factor_removed"]


def test_recovery_codes_stand_on_their_page_one_a_line(viewer: Client) -> None:
    secret = viewer.get("/account/second-factor/app/").context["form"].secret
    answer = viewer.post("/account/second-factor/app/", {"code": code_of(secret)}, follow=True)
    shown = "\n".join(answer.context["unused_codes"])
    assert f'<code id="recovery-codes">{shown}\n</code>' in answer.content.decode()


def test_renewed_recovery_codes_replace_the_old_ones(viewer: Client, acme_viewer: User) -> None:
    secret = viewer.get("/account/second-factor/app/").context["form"].secret
    viewer.post("/account/second-factor/app/", {"code": code_of(secret)})
    old = viewer.get("/account/second-factor/codes/").context["unused_codes"]
    assert "10 old codes" in viewer.get("/account/second-factor/codes/new/").content.decode()
    viewer.post("/account/second-factor/codes/new/")
    assert not set(old) & set(viewer.get("/account/second-factor/codes/").context["unused_codes"])
    assert verbs() == ["person.second_factor_added", "person.recovery_codes_renewed"]


def test_what_protects_the_account_asks_again_who_it_is(signed_in: SignedIn, acme_viewer: User) -> None:
    client = signed_in(acme_viewer)  # without a sign-in of these minutes
    to_confirm = client.get("/account/second-factor/app/")["location"]
    assert to_confirm == "/account/confirm/?next=%2Faccount%2Fsecond-factor%2Fapp%2F"
    assert "not your password" in client.post(to_confirm, {"password": "wrong"}).content.decode()
    answer = client.post(to_confirm, {"password": PASSWORD, "next": "/account/second-factor/app/"})
    assert answer["location"] == "/account/second-factor/app/"
    assert client.get(answer["location"]).status_code == 200


def test_sessions_are_listed_and_one_that_is_ended_is_out_at_once(viewer: Client, acme_viewer: User) -> None:
    elsewhere = Client(headers={"user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"})
    enter(elsewhere, acme_viewer.email)
    page = viewer.get("/account/sessions/").content.decode()
    assert "Firefox on Linux" in page
    other = UserSession.objects.get(session_key=elsewhere.session.session_key)
    viewer.post("/account/sessions/", {"session": other.pk})
    assert elsewhere.get("/t/acme/")["location"].startswith("/sign-in/")
    assert viewer.get("/t/acme/").status_code == 200
    assert verbs() == ["person.sessions_ended"]


def test_all_other_sessions_end_together(viewer: Client, acme_viewer: User) -> None:
    others = [Client(), Client()]
    for other in others:
        enter(other, acme_viewer.email)
    viewer.post("/account/sessions/")
    assert [other.get("/t/acme/").status_code for other in others] == [302, 302]
    assert viewer.get("/t/acme/").status_code == 200


def test_session_of_somebody_else_is_not_ended(viewer: Client, acme_admin: User) -> None:
    other = Client()
    enter(other, acme_admin.email)
    row = UserSession.objects.get(session_key=other.session.session_key)
    viewer.post("/account/sessions/", {"session": row.pk})
    assert other.get("/t/acme/").status_code == 200
    assert verbs() == []


def test_passkey_of_somebody_else_is_not_there(viewer: Client, acme_admin: User) -> None:
    data = {"name": "theirs", "credential": {}}
    theirs = Authenticator.objects.create(user=acme_admin, type=Authenticator.Type.WEBAUTHN, data=data)
    assert viewer.get(f"/account/passkeys/{theirs.pk}/remove/").status_code == 404
    assert "theirs" not in viewer.get("/account/passkeys/").content.decode()


@pytest.mark.parametrize("kind", ["totp", "webauthn"])
def test_factor_is_renamed_by_whose_it_is(viewer: Client, acme_viewer: User, kind: str) -> None:
    data = {"name": "old", "credential": {}} if kind == "webauthn" else {"secret": "x"}
    factor = Authenticator.objects.create(user=acme_viewer, type=kind, data=data)
    before = AuditEvent.objects.count()
    path = f"/account/second-factor/{factor.pk}/name/"
    listed = "/account/passkeys/" if kind == "webauthn" else "/account/second-factor/"
    assert path in viewer.get(listed).content.decode()
    assert viewer.post(path, {"name": ""}).context["form"].errors.keys() == {"name"}
    assert viewer.post(path, {"name": "<b>phone</b>"})["location"] == listed
    page = viewer.get(listed).content.decode()
    assert "&lt;b&gt;phone" in page
    assert "<b>phone" not in page
    factor.refresh_from_db()
    assert factor.data == data | {"name": "<b>phone</b>"}
    viewer.post(path, {"name": "<b>phone</b>"})  # as it is called already
    event = AuditEvent.objects.order_by("sequence").last()
    assert event is not None
    assert AuditEvent.objects.count() == before + 1
    assert (event.verb, event.after) == ("person.second_factor_renamed", {"kind": kind, "name": "<b>phone</b>"})


def test_factor_of_somebody_else_is_not_renamed(viewer: Client, acme_admin: User) -> None:
    theirs = Authenticator.objects.create(user=acme_admin, type="webauthn", data={"name": "theirs", "credential": {}})
    assert viewer.post(f"/account/second-factor/{theirs.pk}/name/", {"name": "mine"}).status_code == 404
    codes = Authenticator.objects.create(user=acme_admin, type="recovery_codes", data={})
    assert viewer.get(f"/account/second-factor/{codes.pk}/name/").status_code == 404


def test_name_of_a_passkey_stays_text(viewer: Client, acme_viewer: User) -> None:
    data = {"name": "<script>alert(1)</script>", "credential": {}}
    Authenticator.objects.create(user=acme_viewer, type=Authenticator.Type.WEBAUTHN, data=data)
    page = viewer.get("/account/passkeys/").content.decode()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page


def test_secret_of_the_app_is_kept_encrypted(acme_viewer: User) -> None:
    secret = generate_totp_secret()
    row = TOTP.activate(acme_viewer, secret).instance
    assert secret not in str(row.data)
    assert row.wrap().validate_code(code_of(secret))
