"""Who signed in and out, from where and by what, and who could not: each once in the audit trail, without what was typed."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from accounts import audit
from accounts.models import AuditEvent, User
from tests.conftest import PASSWORD
from tests.portal.test_sign_in_security import enter, protect

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]


def told() -> list[tuple[str, str, str, Any]]:
    events = AuditEvent.objects.filter(verb__startswith="person.").order_by("sequence")
    return [(event.verb, event.target, event.actor_label, event.after) for event in events]


def test_sign_in_and_sign_out_are_told_once_with_address_and_request(client: Client, acme_viewer: User) -> None:
    enter(client, acme_viewer.email.upper(), REMOTE_ADDR="192.0.2.7")
    client.post("/sign-out/")
    client.post("/sign-out/")
    who = f"person {acme_viewer}"
    assert told() == [
        ("person.signed_in", who, acme_viewer.email, {"by": ["password"]}),
        ("person.signed_out", who, acme_viewer.email, None),
    ]
    event = AuditEvent.objects.earliest("sequence")
    assert (event.actor, event.address, event.tenant, bool(event.request_id)) == (acme_viewer, "192.0.2.7", None, True)
    assert audit.verify() is None


def test_sign_in_by_two_factors_is_told_when_it_is_done(client: Client, acme_viewer: User) -> None:
    codes = protect(acme_viewer)
    enter(client, acme_viewer.email)
    assert told()[1:] == []
    client.post("/sign-in/code/", {"code": "12345678"})
    client.post("/sign-in/code/", {"code": codes[0]})
    assert [(verb, after) for verb, _, _, after in told()[1:]] == [
        ("person.sign_in_failed", {"at": "second factor"}),
        ("person.signed_in", {"by": ["password", "recovery_codes"]}),
    ]


def test_failed_sign_in_is_told_without_what_was_typed(client: Client, acme_viewer: User) -> None:
    enter(client, acme_viewer.email, "hunter2-and-more")
    enter(client, "hunter2@and-more.example", "x")
    assert told() == [
        ("person.sign_in_failed", f"person {acme_viewer}", "nobody signed in", {"at": "password"}),
        ("person.sign_in_failed", "person (no such account)", "nobody signed in", {"at": "password"}),
    ]
    assert "hunter2" not in repr(list(AuditEvent.objects.values()))


def test_closed_account_is_told_like_any_other_that_was_tried(client: Client, acme_viewer: User) -> None:
    User.objects.filter(pk=acme_viewer.pk).update(is_active=False)
    enter(client, acme_viewer.email)
    assert [verb for verb, *_ in told()] == ["person.sign_in_failed"]


def test_lock_out_is_told_once_and_what_it_keeps_off_is_not(client: Client, acme_viewer: User) -> None:
    for _attempt in range(8):
        enter(client, acme_viewer.email, "wrong")
    assert [verb for verb, *_ in told()] == ["person.sign_in_failed"] * 4 + ["person.locked_out"]


def test_wrong_password_where_it_is_asked_again_is_told_of_who_is_signed_in(client: Client, acme_viewer: User) -> None:
    enter(client, acme_viewer.email)
    client.post("/account/confirm/", {"password": "wrong"})
    assert told()[1:] == [("person.sign_in_failed", f"person {acme_viewer}", acme_viewer.email, {"at": "password"})]


def test_operators_read_it_and_tenants_do_not(
    signed_in: SignedIn, client: Client, acme_viewer: User, acme_admin: User, operator: User
) -> None:
    enter(Client(), acme_viewer.email)
    page = signed_in(operator).get("/admin/audit/?verb=person.signed_in").content.decode()
    assert acme_viewer.email in page
    assert "Signed in" in page
    assert 'title="person.signed_in"' in page
    assert 'title="person.' not in signed_in(acme_admin).get("/t/acme/audit/").content.decode()


def test_everybody_reads_what_happened_to_their_own_account(
    signed_in: SignedIn, acme_viewer: User, acme_admin: User, django_assert_max_num_queries: Any
) -> None:
    enter(Client(), acme_admin.email, REMOTE_ADDR="192.0.2.99")
    for _ in range(30):
        enter(Client(), acme_viewer.email, REMOTE_ADDR="192.0.2.7")
    enter(Client(), acme_viewer.email, "wrong", REMOTE_ADDR="198.51.100.9")
    client = signed_in(acme_viewer)
    with django_assert_max_num_queries(8):
        page = client.get("/account/activity/").content.decode()
    assert "198.51.100.9" in page
    assert page.count("192.0.2.7") == 24
    assert "192.0.2.99" not in page
    assert "Sign-in failed" in page
    assert 'rel="next"' in page


def test_nobody_reads_it_without_signing_in(client: Client) -> None:
    assert client.get("/account/activity/")["location"].startswith("/sign-in/")


def test_person_with_the_longest_address_signs_in(client: Client, db: None) -> None:
    user = User.objects.create_user(f"{'a' * 64}@{'b' * 63}.{'c' * 63}.{'d' * 50}.example"[:254], PASSWORD)
    assert enter(client, user.email).status_code == 302
    assert len(told()) == 1
