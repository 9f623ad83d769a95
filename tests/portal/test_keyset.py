"""Lists by keyset: every row once, forth and back, whatever is asked in the URL."""

from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import RequestFactory
from django.utils import timezone

from accounts import issuing
from accounts.models import ApiKey, Tenant
from portal import keyset
from portal.keyset import Page
from portal.views.keys import ORDERS, annotated

pytestmark = pytest.mark.django_db


@pytest.fixture
def many(acme: Tenant) -> list[ApiKey]:
    """Fourteen, with equal names, equal moments and none."""
    now = timezone.now()
    made = []
    for n in range(14):
        key, _ = issuing.issue(acme, issuing.Terms(f"key-{n // 3}-{n if n % 3 else 0}"), actor=None, actor_label="test")
        key.last_used_at = None if n % 4 == 0 else now - timedelta(days=n % 3)
        key.revoked_at = now if n % 5 == 0 else None
        key.save()
        made.append(key)
    return made


def page(order: keyset.Order, query: str = "") -> Page[Any]:
    request = RequestFactory().get("/list/" + query)
    return keyset.page_of(request, annotated(ApiKey.objects.all()), order, size=4)


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.usefixtures("many")
def test_every_row_stands_on_one_page_both_ways(name: str) -> None:
    order = ORDERS[name]
    signs = [f"{'-' if column.is_descending else ''}{column.field}" for column in order]
    expected = list(annotated(ApiKey.objects.all()).order_by(*signs))
    forth = [page(order)]
    while forth[-1].next:
        forth.append(page(order, forth[-1].next))
    assert [row for one in forth for row in one] == expected
    assert {one.total for one in forth} == {14}
    back = [forth[-1]]
    while back[-1].previous:
        back.append(page(order, back[-1].previous))
    assert [list(one) for one in reversed(back)] == [list(one) for one in forth]


@pytest.mark.parametrize("name", keyset.PLACES)
@pytest.mark.parametrize(
    "said",
    ["x", "[]", "{}", "null", "1e999", "[1,2,3]", '["9999-99-99","a","b"]', '["\\u0000"]', "[" * 900, "9" * 999, "1" * 2000],
)
def test_a_place_that_is_none_is_the_beginning(many: list[ApiKey], name: str, said: str) -> None:
    order = ORDERS["name"]
    assert list(page(order, "?" + urlencode({name: said}))) == list(page(order))


def test_rows_that_come_and_go_move_no_other_to_another_page(many: list[ApiKey]) -> None:
    order = ORDERS["made"][1:]
    first = page(order)
    ApiKey.objects.filter(pk=first.rows[0].pk).delete()
    ApiKey.objects.filter(pk=first.rows[-1].pk).delete()
    assert list(page(order, first.next)) == many[4:8]


def test_the_place_goes_with_the_filters_and_not_into_another_order(many: list[ApiKey]) -> None:
    first = page(ORDERS["name"], "?q=key&sort=name")
    assert first.next.startswith("?q=key&sort=name&after=")
    second = page(ORDERS["name"], first.next)
    assert "after" not in second.previous
    assert second.previous.startswith("?q=key&sort=name&before=")


def test_a_list_at_hand_is_turned_the_same_way() -> None:
    names = [f"n{number}" for number in range(60)]

    def at(query: str) -> Page[str]:
        return keyset.page_in(RequestFactory().get("/list/" + query), names, str)

    first = at("")
    third = at(at(first.next).next)
    assert (list(first), list(third)) == (names[:25], names[50:])
    assert (first.previous, third.next) == ("", "")
    assert list(at(at(third.previous).previous)) == names[:25]
    assert list(at('?after="gone"')) == names[:25]


@pytest.mark.parametrize("nameless_at", [0, 1, 2])
def test_a_list_at_hand_begins_at_its_beginning_where_an_entry_has_no_name(nameless_at: int) -> None:
    names = ["a", "b"]
    names.insert(nameless_at, "")
    assert list(keyset.page_in(RequestFactory().get("/list/"), names, str)) == names
