"""The isolation matrix: each page and action of the URL map, for each role, on its own things and on a stranger's."""

import html
from collections.abc import Callable

import pytest
from django.test import Client

from accounts.models import Membership, Tenant, User
from accounts.roles import ALLOWED, Action, Role
from tests.portal.furnished import MARKUP, Place, Things, furnish, places

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]

PLACES = [place for place in places() if place.access not in ("public", "internal")]
OF_TENANTS = [place for place in PLACES if place.is_of_a_tenant]
OF_THE_PLATFORM = [place for place in PLACES if place.access == "operator"]
ABOUT_THINGS = [place for place in OF_TENANTS if place.arguments != {"slug"}]
WELL = {200, 302, 303}


def of_each(chosen: list[Place]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("place", chosen, ids=[place.name for place in chosen])


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


@of_each(OF_TENANTS)
def test_a_strangers_tenant_is_a_404_by_every_method(signed_in: SignedIn, member: User, strange: Things, place: Place) -> None:
    assert statuses(signed_in(member), place, place.url(strange)) == {404}


@of_each(ABOUT_THINGS)
def test_a_strangers_thing_under_ones_own_tenant_is_a_404(
    signed_in: SignedIn, acme_owner: User, own: Things, strange: Things, place: Place
) -> None:
    smuggled = {**strange, "everywhere": own["everywhere"]}
    assert statuses(signed_in(acme_owner), place, place.url(smuggled)) == {404}


@of_each(OF_TENANTS)
def test_each_role_opens_what_the_matrix_of_roles_says(
    signed_in: SignedIn, acme: Tenant, member: User, own: Things, place: Place
) -> None:
    role = Role(acme.memberships.get(user=member).role)
    found = statuses(signed_in(member), place, place.url(own))
    if place.access in ALLOWED[role]:
        assert not found & {403, 404, 405, 500}
    else:
        assert found == {403}


@of_each(OF_THE_PLATFORM)
def test_pages_of_operators_are_a_404_for_members(signed_in: SignedIn, member: User, own: Things, place: Place) -> None:
    assert statuses(signed_in(member), place, place.url(own)) == {404}


@of_each(OF_THE_PLATFORM)
def test_operators_open_pages_of_operators(signed_in: SignedIn, operator: User, own: Things, place: Place) -> None:
    assert not statuses(signed_in(operator), place, place.url(own)) & {403, 404, 405, 500}


@of_each(PLACES)
def test_nobody_is_sent_to_sign_in(client: Client, own: Things, place: Place) -> None:
    for method in place.methods:
        answer = client.generic(method, place.url(own))
        assert (answer.status_code, answer["location"].split("?")[0]) == (302, "/sign-in/")


@of_each([place for place in PLACES if "GET" in place.methods])
def test_markup_in_a_stored_text_stays_text(signed_in: SignedIn, operator: User, own: Things, place: Place) -> None:
    answer = signed_in(operator).get(place.url(own))
    if answer.get("content-type", "").startswith("text/html"):
        page = answer.content.decode()
        assert MARKUP not in page
        assert "alert(1)" not in page or html.escape(MARKUP) in page
