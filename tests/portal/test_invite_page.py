"""What the link of an invitation opens, for each who may hold it."""

import re
from collections.abc import Callable

import pytest
from django.contrib.auth import get_user
from django.test import Client

from accounts import inviting
from accounts.models import AuditEvent, Invitation, Membership, Tenant, User
from accounts.roles import Role
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
NEW = "new@acme.example"
JOIN = {"name": "New Person", "password": PASSWORD, "again": PASSWORD}


@pytest.fixture
def link(acme: Tenant, acme_owner: User) -> str:
    return link_for(acme, acme_owner)


def link_for(tenant: Tenant, by: User, email: str = NEW, role: str = Role.DEVELOPER) -> str:
    return f"/invite/{inviting.invite(tenant, email, role, actor=by)[1]}/"


def test_a_new_person_sets_name_and_password_and_is_in(client: Client, link: str, acme: Tenant, acme_owner: User) -> None:
    page = client.get(link).content.decode()
    assert all(told in page for told in ("Acme", "Developer", acme_owner.email, NEW))
    before = client.session.session_key
    answer = client.post(link, JOIN, follow=True)
    assert answer.redirect_chain == [("/t/acme/", 302)]
    assert "you are a member of Acme now" in answer.content.decode()
    user = User.objects.get(email=NEW)
    assert get_user(client) == user
    assert client.session.session_key != before
    assert (user.name, user.memberships.get().role) == ("New Person", Role.DEVELOPER)
    assert [event.verb for event in AuditEvent.objects.for_tenant(acme)] == ["member.joined", "member.invited"]
    assert client.get(link).status_code == 404


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"password": "short", "again": "short"}, "too short"),
        ({"password": "new@acme.example", "again": "new@acme.example"}, "too similar"),
        ({"again": "another long password"}, "type the same one twice"),
        ({"name": ""}, "This field is required."),
        ({"name": "a\nb"}, "Use no control characters."),
    ],
)
def test_a_weak_beginning_says_what_to_do(client: Client, link: str, fields: dict[str, str], said: str) -> None:
    answer = client.post(link, JOIN | fields)
    assert answer.status_code == 200
    assert said in answer.content.decode()
    assert not User.objects.filter(email=NEW).exists()
    assert Invitation.objects.open().count() == 1


def test_somebody_with_an_account_signs_in_first_and_comes_back(client: Client, link: str) -> None:
    user = User.objects.create_user(NEW, PASSWORD)
    page = client.get(link).content.decode()
    found = re.search(r'href="(/sign-in/\?next=[^"]*)"', page)
    assert found is not None
    assert link in found[1]
    assert 'type="password"' not in page
    client.post(link, JOIN)  # what a form of earlier says: nothing is set
    user.refresh_from_db()
    assert user.check_password(PASSWORD)
    assert not Membership.objects.filter(user=user).exists()
    client.force_login(user)
    assert 'name="password"' not in client.get(link).content.decode()
    assert client.post(link, follow=True).redirect_chain == [("/t/acme/", 302)]
    assert Membership.objects.get(user=user).role == Role.DEVELOPER


def test_the_wrong_person_is_told_so_and_gets_nothing(signed_in: SignedIn, link: str, globex_admin: User) -> None:
    client = signed_in(globex_admin)
    page = client.get(link).content.decode()
    assert f"You are signed in as {globex_admin.email}" in page
    client.post(link, JOIN)
    assert not Membership.objects.filter(user=globex_admin, tenant__slug="acme").exists()
    assert not User.objects.filter(email=NEW).exists()
    assert Invitation.objects.open().count() == 1


def test_a_member_keeps_the_role_they_have(signed_in: SignedIn, link: str, acme: Tenant) -> None:
    user = User.objects.create_user(NEW, PASSWORD)
    Membership.objects.create(tenant=acme, user=user, role=Role.VIEWER)
    client = signed_in(user)
    assert "You are a member already" in client.get(link).content.decode()
    client.post(link)
    assert Membership.objects.get(tenant=acme, user=user).role == Role.VIEWER


def test_links_that_are_over_look_the_same(client: Client, acme: Tenant, acme_owner: User) -> None:
    used = link_for(acme, acme_owner, "used@acme.example")
    client.post(used, JOIN)
    client.logout()
    withdrawn = link_for(acme, acme_owner, "withdrawn@acme.example")
    inviting.withdraw(Invitation.objects.get(email="withdrawn@acme.example"), actor=acme_owner)
    expired = link_for(acme, acme_owner, "expired@acme.example")
    row = Invitation.objects.get(email="expired@acme.example")
    Invitation.objects.filter(pk=row.pk).update(expires_at=row.created_at)
    pages = set()
    for link in (used, withdrawn, expired, "/invite/never-made/"):
        for answer in (client.get(link), client.post(link, JOIN)):
            assert answer.status_code == 404
            page = answer.content.decode().replace(answer["x-request-id"], "").replace(link, "")
            pages.add(re.sub(r'name="csrfmiddlewaretoken" value="[^"]*"', "", page))
    assert len(pages) == 1
    assert "Ask whoever sent it to you for a new one" in pages.pop()


def test_no_cache_keeps_the_page(client: Client, link: str) -> None:
    answer = client.get(link)
    assert "no-store" in answer["cache-control"]
    assert answer["referrer-policy"] == "same-origin"


def test_the_form_asks_for_its_token(link: str) -> None:
    assert Client(enforce_csrf_checks=True).post(link, JOIN).status_code == 403
    assert not User.objects.filter(email=NEW).exists()


def test_stored_markup_stays_text(client: Client, acme: Tenant, acme_owner: User) -> None:
    evil = "<script>alert(1)</script>"
    Tenant.objects.update(name=evil)
    assert evil not in client.get(link_for(acme, acme_owner)).content.decode()
