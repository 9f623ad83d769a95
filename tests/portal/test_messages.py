"""What a page says after an act, each level with its own look and role; and what who is signed out gets for a part of one."""

from collections.abc import Callable

import pytest
from django.test import Client

from accounts.keys import mint
from accounts.models import AuditEvent, SecurityRule, Tenant, User
from gateway.config import policies
from tests.e2e.conftest import BY

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
RULES = [{"kind": "keywords", "words": ["alpha"], "where": ["input"], "action": "block"}]
HTMX = {"HX-Request": "true"}


def test_a_refusal_is_an_alert_and_what_was_done_a_status(signed_in: SignedIn, acme: Tenant, acme_admin: User) -> None:
    policy = policies.create(acme, "house", **BY)
    client, path = signed_in(acme_admin), "/t/acme/policies/house/publish/"
    page = client.post(path, follow=True).content.decode()
    assert '<p class="notice notice-error" role="alert">' in page
    assert "has no draft" in page
    policies.save_draft(policy, RULES, **BY)
    page = client.post(path, follow=True).content.decode()
    assert '<p class="notice notice-ok" role="status">' in page
    assert 'role="alert"' not in page.split("<template")[0]


@pytest.mark.parametrize("path", ["/t/acme/limits/part/", "/t/acme/now/", "/admin/health/live/", "/t/nowhere/limits/part/"])
def test_a_part_of_a_page_is_never_the_sign_in_page(client: Client, acme: Tenant, path: str) -> None:
    answer = client.get(path, headers=HTMX)
    assert (answer.status_code, answer.content) == (401, b"")
    assert client.get(path)["location"].startswith("/sign-in/")  # whoever opens it as a page goes there


def test_a_part_for_who_owes_a_second_factor_has_the_whole_page_asked_for_anew(signed_in: SignedIn, operator: User) -> None:
    SecurityRule.objects.create(subject="operator")
    answer = signed_in(operator).get("/admin/health/live/", headers=HTMX)
    assert (answer.status_code, answer["HX-Refresh"], answer.content) == (204, "true", b"")


def test_who_is_signed_in_has_the_words_for_later(signed_in: SignedIn, client: Client, operator: User) -> None:
    assert '<template id="signed-out">' not in client.get("/sign-in/").content.decode()
    assert '<template id="signed-out">' in signed_in(operator).get("/admin/health/").content.decode()


def test_a_key_typed_into_a_form_is_told_and_changes_nothing(
    signed_in: SignedIn, acme: Tenant, acme_admin: User, operator: User
) -> None:
    text = mint()
    reason = {"reason": f"Their key {text} is on the internet."}
    sent = [
        (operator, "/admin/tenants/acme/suspend/", reason),
        (acme_admin, "/account/", {"name": text, "language": "", "theme": "system"}),
    ]
    before = AuditEvent.objects.count()
    for who, path, fields in sent:
        answer = signed_in(who).post(path, fields)
        page = answer.content.decode()
        assert answer.status_code == 400, path
        assert "There is an API key in what you sent" in page
        assert text not in page
    acme.refresh_from_db()
    assert acme.is_active
    assert AuditEvent.objects.count() == before
