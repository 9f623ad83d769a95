"""The isolation matrix: each page and action of the URL map, for each role, on its own things and on a stranger's."""

import html
from collections.abc import Callable

import pytest
from django.db import transaction
from django.test import Client

from accounts.models import Membership, Tenant, User
from accounts.roles import ALLOWED, Action, Role
from tests.portal.furnished import MARKUP, Place, Things, furnish, places

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
Opened = Callable[[list[Place], Callable[[Place], None]], None]

PLACES = [place for place in places() if place.access not in ("public", "internal")]
OF_TENANTS = [place for place in PLACES if place.is_of_a_tenant]
OF_THE_PLATFORM = [place for place in PLACES if place.access == "operator"]
ABOUT_THINGS = [place for place in OF_TENANTS if place.arguments != {"slug"}]
WELL = {200, 302, 303}


@pytest.fixture
def opened(subtests: pytest.Subtests) -> Opened:
    """Check each place by itself; what that changed is undone, so that the next finds all things as they were."""

    def open_each(chosen: list[Place], check: Callable[[Place], None]) -> None:
        for place in chosen:
            with subtests.test(place.name), transaction.atomic():
                try:
                    check(place)
                finally:
                    transaction.set_rollback(True)

    return open_each


def statuses(client: Client, place: Place, url: str) -> set[int]:
    """What each method that the page takes is answered with."""
    return {client.generic(method, url).status_code for method in place.methods}


@pytest.fixture
def own(acme: Tenant) -> Things:
    return furnish(acme)


@pytest.fixture
def strange(globex: Tenant) -> Things:
    return furnish(globex)


@pytest.fixture(params=Role, ids=str)
def member(request: pytest.FixtureRequest, acme: Tenant) -> User:
    user = User.objects.create_user("member@acme.example")
    Membership.objects.create(tenant=acme, user=user, role=request.param)
    return user


def test_the_matrix_covers_pages_of_tenants_and_of_the_platform() -> None:
    assert len(OF_TENANTS) > 15
    assert {place.access for place in OF_TENANTS} >= {Action.VIEW, Action.MANAGE_KEYS, Action.MANAGE_POLICIES}
    assert not [place.name for place in PLACES if not place.methods]


def test_a_strangers_tenant_is_a_404_by_every_method(
    signed_in: SignedIn, member: User, strange: Things, opened: Opened
) -> None:
    def check(place: Place) -> None:
        assert statuses(signed_in(member), place, place.url(strange)) == {404}

    opened(OF_TENANTS, check)


def test_a_strangers_thing_under_ones_own_tenant_is_a_404(
    signed_in: SignedIn, acme_owner: User, own: Things, strange: Things, opened: Opened
) -> None:
    smuggled = {**strange, "everywhere": own["everywhere"]}

    def check(place: Place) -> None:
        assert statuses(signed_in(acme_owner), place, place.url(smuggled)) == {404}

    opened(ABOUT_THINGS, check)


def test_each_role_opens_what_the_matrix_of_roles_says(
    signed_in: SignedIn, acme: Tenant, member: User, own: Things, opened: Opened
) -> None:
    role = Role(acme.memberships.get(user=member).role)

    def check(place: Place) -> None:
        found = statuses(signed_in(member), place, place.url(own))
        if place.access in ALLOWED[role]:
            assert not found & {403, 404, 405, 500}
        else:
            assert found == {403}

    opened(OF_TENANTS, check)


def test_pages_of_operators_are_a_404_for_members(signed_in: SignedIn, member: User, own: Things, opened: Opened) -> None:
    def check(place: Place) -> None:
        assert statuses(signed_in(member), place, place.url(own)) == {404}

    opened(OF_THE_PLATFORM, check)


def test_operators_open_pages_of_operators(signed_in: SignedIn, operator: User, own: Things, opened: Opened) -> None:
    def check(place: Place) -> None:
        assert not statuses(signed_in(operator), place, place.url(own)) & {403, 404, 405, 500}

    opened(OF_THE_PLATFORM, check)


def test_nobody_is_sent_to_sign_in(client: Client, own: Things, opened: Opened) -> None:
    def check(place: Place) -> None:
        for method in place.methods:
            answer = client.generic(method, place.url(own))
            assert (answer.status_code, answer["location"].split("?")[0]) == (302, "/sign-in/")

    opened(PLACES, check)


def test_markup_in_a_stored_text_stays_text(signed_in: SignedIn, operator: User, own: Things, opened: Opened) -> None:
    def check(place: Place) -> None:
        answer = signed_in(operator).get(place.url(own))
        if answer.get("content-type", "").startswith("text/html"):
            page = answer.content.decode()
            assert MARKUP not in page
            assert "alert(1)" not in page or html.escape(MARKUP) in page

    opened([place for place in PLACES if "GET" in place.methods], check)
