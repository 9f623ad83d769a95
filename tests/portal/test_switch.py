"""The way from tenant to tenant in the bar: for people of several, one query, at most twenty of them."""

import re
from collections.abc import Callable

import pytest
from django.test import Client

from accounts.models import Membership, Tenant, User
from accounts.roles import Role

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]


def offered(client: Client, path: str) -> list[str]:
    page = client.get(path).content.decode()
    found = re.search(r'<nav class="menu-panel"(.*?)</nav>', page, re.DOTALL)
    return re.findall(r'href="([^"]*)"', found[1]) if found else []


def test_who_is_in_one_tenant_sees_none(signed_in: SignedIn, acme_viewer: User, globex: Tenant) -> None:
    assert offered(signed_in(acme_viewer), "/t/acme/") == []


def test_it_leads_to_the_same_room_where_every_member_may_enter(signed_in: SignedIn, acme_admin: User, globex: Tenant) -> None:
    Membership.objects.create(tenant=globex, user=acme_admin, role=Role.VIEWER)
    client = signed_in(acme_admin)
    assert offered(client, "/t/acme/aliases/") == ["/t/acme/aliases/", "/t/globex/aliases/"]
    assert offered(client, "/t/acme/keys/new/") == ["/t/acme/keys/", "/t/globex/keys/"]
    assert offered(client, "/t/acme/settings/") == ["/t/acme/", "/t/globex/"]


def test_strangers_are_not_offered(signed_in: SignedIn, acme_admin: User, globex: Tenant) -> None:
    Tenant.objects.create(slug="third", name="Third")
    Membership.objects.create(tenant=globex, user=acme_admin, role=Role.VIEWER)
    assert "/t/third/" not in offered(signed_in(acme_admin), "/t/acme/")


def test_twenty_are_offered_and_then_the_list(signed_in: SignedIn, operator: User) -> None:
    for number in range(25):
        Tenant.objects.create(slug=f"tenant-{number:02}", name=f"Tenant {number:02}")
    links = offered(signed_in(operator), "/t/tenant-24/aliases/")
    assert links == [*(f"/t/tenant-{number:02}/aliases/" for number in range(20)), "/"]
