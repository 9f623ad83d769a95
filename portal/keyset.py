"""Pages of long lists by keyset: each begins where the one before ended, so that the hundredth costs what the first does.

The place stands in the URL, as `after` or `before`: what the columns of the order say in one row. What is no place, or lies
beyond the end, is the beginning: a list is never empty while it has rows.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest

Row = TypeVar("Row", bound=Model)
Shown = TypeVar("Shown")

ROWS_PER_PAGE: Final = 25
PLACES: Final = ("after", "before")
TEXT_MOST: Final = 1000
# In the place of no moment: an order has no gaps.
LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)
FAR_OFF: Final = datetime(9999, 1, 1, tzinfo=UTC)


def text(said: Any) -> str:
    if not isinstance(said, str) or "\x00" in said or len(said) > TEXT_MOST:
        raise ValueError("no text")
    return said


def whole(said: Any) -> int:
    if not isinstance(said, int) or not -(2**63) <= said < 2**63:
        raise ValueError("no number of a column")
    return said


def moment(said: Any) -> datetime:
    found = datetime.fromisoformat(text(said))
    if found.tzinfo is None or found.year > FAR_OFF.year or found.year < LONG_AGO.year:
        raise ValueError("no moment of a column")
    return found


def identity(said: Any) -> UUID:
    return UUID(text(said))


@dataclass(frozen=True, slots=True)
class Column:
    """One column of an order. field: of the model, of one it points at (`tenant__slug`) or annotated; never NULL.

    read: the value from what the URL says; raises ValueError.
    """

    field: str
    read: Callable[[Any], Any] = text
    is_descending: bool = False

    @property
    def turned(self) -> "Column":
        return replace(self, is_descending=not self.is_descending)


Order = Sequence[Column]  # the last column, or all together, tell every row from every other


def orders(first: Order = (), /, **named: Order) -> Mapping[str, Order]:
    """Each under its name, and turned round under the name with a minus. first: columns before all of them, never turned."""
    turned = {f"-{name}": (*first, *(column.turned for column in order)) for name, order in named.items()}
    return {name: (*first, *order) for name, order in named.items()} | turned


@dataclass(frozen=True, slots=True)
class Page(Generic[Shown]):
    """previous, next: the query strings of the pages beside this one, "" where there is none.

    total: how many rows all pages have; None: that was not counted.
    """

    rows: Sequence[Shown]
    previous: str = ""
    next: str = ""
    total: int | None = None

    def __iter__(self) -> Iterator[Shown]:
        return iter(self.rows)


def page_of(
    request: HttpRequest, rows: QuerySet[Row], order: Order, *, size: int = ROWS_PER_PAGE, is_counted: bool = True
) -> Page[Row]:
    """The page of `rows` that the URL names. A list that fits one page costs one query."""
    found, has_previous, has_next = _found(request, rows, order, size)
    total: int | None = len(found)
    if has_previous or has_next:
        total = rows.order_by().count() if is_counted else None
    return Page(
        found,
        previous=query(request, before=place_of(found[0], order)) if has_previous else "",
        next=query(request, after=place_of(found[-1], order)) if has_next else "",
        total=total,
    )


def page_in(request: HttpRequest, shown: Sequence[Shown], named: Callable[[Shown], str]) -> Page[Shown]:
    """The same of a list that is at hand, whose entries `named` tells from each other."""
    order = (Column("name"),)
    places = {named(entry): number for number, entry in enumerate(shown)}
    # An entry may be called "", as calls without an alias are: no place in the URL is another thing than that one.
    after, before = (places.get(said[0]) if (said := asked(request, name, order)) else None for name in PLACES)
    start = 0 if before is None else max(0, before - ROWS_PER_PAGE)
    start = start if after is None else after + 1
    rows = shown[start : start + ROWS_PER_PAGE]
    return Page(
        rows,
        previous=query(request, before=_said([named(rows[0])])) if rows and start else "",
        next=query(request, after=_said([named(rows[-1])])) if start + len(rows) < len(shown) else "",
        total=len(shown),
    )


def query(request: HttpRequest, **place: str) -> str:
    """The URL's filters and sort, and `place` in the list: the beginning where none is given."""
    kept = request.GET.copy()
    for name in PLACES:
        kept.pop(name, None)
    for name, value in place.items():
        kept[name] = value
    return f"?{kept.urlencode()}"


def _found(request: HttpRequest, rows: QuerySet[Row], order: Order, size: int) -> tuple[list[Row], bool, bool]:
    """The rows of the page; are there any before, and after?"""
    before = asked(request, "before", order)
    if before is not None:
        found = list(_ordered(rows.filter(_beyond(_turned(order), before)), _turned(order))[: size + 1])
        if len(found) > size:
            return found[size - 1 :: -1], True, True
        # What is before fills no page more: it is the first one.
    after = None if before is not None else asked(request, "after", order)
    if after is not None:
        found = list(_ordered(rows.filter(_beyond(order, after)), order)[: size + 1])
        if found:
            return found[:size], True, len(found) > size
    found = list(_ordered(rows, order)[: size + 1])
    return found[:size], False, len(found) > size


def _ordered(rows: QuerySet[Row], order: Order) -> QuerySet[Row]:
    return rows.order_by(*(f"-{column.field}" if column.is_descending else column.field for column in order))


def _turned(order: Order) -> Order:
    return [column.turned for column in order]


def _beyond(order: Order, values: Sequence[Any]) -> Q:
    """Rows that stand after the place. The first column's bound is said alone too: an index knows what to do with it."""
    beyond, alike = Q(), Q()
    for column, value in zip(order, values, strict=True):
        sign = "lt" if column.is_descending else "gt"
        beyond |= alike & Q(**{f"{column.field}__{sign}": value})
        alike &= Q(**{column.field: value})
    first = order[0]
    return Q(**{f"{first.field}__{'lte' if first.is_descending else 'gte'}": values[0]}) & beyond


def asked(request: HttpRequest, name: str, order: Order) -> list[Any] | None:
    """The place of this name in the URL, one value a column; None for none, and for what is none."""
    said = request.GET.get(name, "")
    if not said or len(said) > TEXT_MOST:
        return None
    try:
        values = json.loads(said)
        return [column.read(value) for column, value in zip(order, _listed(values), strict=True)]
    except (ValueError, RecursionError):
        return None


def _listed(values: Any) -> Iterable[Any]:
    return values if isinstance(values, list) else [values]


def place_of(row: object, order: Order) -> str:
    """Where `row` stands, as the URL says it."""
    return _said([attrgetter(column.field.replace("__", "."))(row) for column in order])


def _said(values: Sequence[Any]) -> str:
    return json.dumps(values if len(values) > 1 else values[0], ensure_ascii=False, separators=(",", ":"), default=str)
