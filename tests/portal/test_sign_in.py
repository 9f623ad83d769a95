"""Signing in and out."""

import pytest
from django.test import Client

from accounts.models import User
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db


def enter(client: Client, email: str, password: str = PASSWORD, **more: str):
    return client.post("/sign-in/", {"login": email, "password": password} | more)


def test_person_signs_in_and_lands_at_home(client: Client, acme_viewer: User) -> None:
    answer = enter(client, acme_viewer.email)
    assert (answer.status_code, answer["location"]) == (302, "/")
    assert client.get("/").status_code == 302


def test_capital_letters_in_the_address_do_not_matter(client: Client, acme_viewer: User) -> None:
    assert enter(client, acme_viewer.email.upper()).status_code == 302


def test_session_key_changes_at_sign_in(client: Client, acme_viewer: User) -> None:
    session = client.session
    session["planted"] = "by somebody who knew the key"
    session.save()
    client.cookies["sessionid"] = session.session_key
    enter(client, acme_viewer.email)
    assert client.session.session_key != session.session_key
    assert not type(session)().exists(session.session_key)


def test_wrong_password_unknown_address_and_closed_account_get_the_same_answer(
    client: Client, acme_viewer: User, acme_admin: User
) -> None:
    acme_admin.is_active = False
    acme_admin.save()
    never_given_one = User.objects.create_user("invited@acme.example")

    def errors(email: str, password: str) -> tuple[int, list[str]]:
        answer = enter(client, email, password)
        assert "_auth_user_id" not in client.session
        return answer.status_code, answer.context["form"].non_field_errors()

    wrong = errors(acme_viewer.email, "wrong")
    assert "do not open an account" in wrong[1][0]
    assert errors("nobody@acme.example", PASSWORD) == wrong
    assert errors(acme_admin.email, PASSWORD) == wrong
    assert errors(never_given_one.email, PASSWORD) == wrong


def test_failed_sign_in_keeps_the_address_but_not_the_password(client: Client, acme_viewer: User) -> None:
    page = enter(client, acme_viewer.email, "mistyped-password").content.decode()
    assert f'value="{acme_viewer.email}"' in page
    assert "mistyped-password" not in page


def test_account_closed_while_signed_in_is_out_at_once(client: Client, acme_viewer: User) -> None:
    enter(client, acme_viewer.email)
    acme_viewer.is_active = False
    acme_viewer.save()
    assert client.get("/t/acme/")["location"].startswith("/sign-in/")


def test_page_asked_for_before_sign_in_comes_after_it(client: Client, acme_viewer: User) -> None:
    to_sign_in = client.get("/t/acme/?page=1")["location"]
    assert to_sign_in == "/sign-in/?next=/t/acme/%3Fpage%3D1"
    assert 'name="next" value="/t/acme/?page=1"' in client.get(to_sign_in).content.decode()
    assert enter(client, acme_viewer.email, next="/t/acme/?page=1")["location"] == "/t/acme/?page=1"


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", "/\\evil.example"])
def test_next_leads_to_no_other_host(client: Client, acme_viewer: User, elsewhere: str) -> None:
    assert enter(client, acme_viewer.email, next=elsewhere)["location"] == "/"


def test_signed_in_person_is_sent_on_from_the_sign_in_page(client: Client, acme_viewer: User) -> None:
    enter(client, acme_viewer.email)
    assert client.get("/sign-in/")["location"] == "/"


def test_sign_in_takes_over_the_language_of_the_user(client: Client, acme_viewer: User) -> None:
    acme_viewer.language = "ja"
    acme_viewer.save()
    enter(client, acme_viewer.email)
    assert client.cookies["django_language"].value == "ja"
    assert client.get("/t/acme/")["content-language"] == "ja"


def test_sign_out_ends_the_session(client: Client, acme_viewer: User) -> None:
    enter(client, acme_viewer.email)
    assert client.post("/sign-out/")["location"] == "/sign-in/"
    assert client.get("/t/acme/").status_code == 302


def test_sign_out_by_a_link_does_nothing(client: Client, acme_viewer: User) -> None:
    enter(client, acme_viewer.email)
    answer = client.get("/sign-out/")
    assert (answer.status_code, answer["allow"]) == (405, "POST")
    assert client.get("/t/acme/").status_code == 200


def test_form_without_its_token_is_refused_with_a_page_that_says_what_to_do(acme_viewer: User) -> None:
    answer = enter(Client(enforce_csrf_checks=True), acme_viewer.email)
    assert answer.status_code == 403
    assert "reload the page" in answer.content.decode()
