"""The report of a month as people read it: what each alias and each key used and cost, and what all tenants did."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from accounts.models import Tenant
from portal.behind import Calls, Cell, between
from portal.breakdown import labels_of
from portal.measures import MEASURES, percent, whole
from usage.money import units
from usage.monthly import Month, MonthOfTenant
from usage.series import Dimension, Sums

COLUMNS: Final = ("requests", "prompt", "cached", "completion", "errors", "cost")
LINES_MOST: Final = 20  # of a table on the page; the file has all
HEAD: Final = (
    "line", "month", "time_zone", "alias", "key_id", "key_name", "requests", "errors", "refused", "blocked", "prompt_tokens",
    "cached_tokens", "completion_tokens", "cost",
)  # fmt: skip
HEAD_OF_ALL: Final = (
    "line", "month", "tenant", "name", "time_zone", "requests", "errors", "refused", "blocked", "prompt_tokens",
    "cached_tokens", "completion_tokens", "cost",
)  # fmt: skip
_COUNTED: Final = (
    "requests", "errors", "refused", "blocked", "prompt_tokens", "cached_tokens", "completion_tokens",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """What one alias, key or tenant used. share: of the cost, or of the tokens where nothing has a price."""

    label: str
    url: str
    cells: Sequence[Cell]
    share: str


@dataclass(frozen=True, slots=True)
class Table:
    """rest: what is too small for the page, as one line; None where all of it is there."""

    lines: Sequence[Line]
    rest: Line | None


@dataclass(frozen=True, slots=True)
class Report:
    by_alias: Table
    by_key: Table
    total: Line
    shares_are_of_cost: bool


@dataclass(frozen=True, slots=True)
class OfAll:
    lines: Sequence[tuple[Tenant | None, Line]]
    total: Line
    shares_are_of_cost: bool


def report(tenant: Tenant, found: MonthOfTenant) -> Report:
    """Six queries, one of them for the names of keys."""
    calls, total = Calls(tenant.slug, between(found.start, found.end)), found.total
    return Report(
        _table("alias", found, total, calls),
        _table("key", found, total, calls),
        _line(_("Total"), total, total, calls, {}),
        total.cost_nano > 0,
    )


def report_of_all(month: Month, found: Mapping[UUID, Sums]) -> OfAll:
    """One query. A tenant that is gone has its id for a name, and comes after the others of as much cost."""
    known = Tenant.objects.in_bulk(list(found))
    total = sum(found.values(), Sums())
    ranked = sorted(found, key=lambda pk: (-_weight(found[pk], total), known[pk].slug if pk in known else f"~{pk}"))
    lines = [(known.get(pk), _line(known[pk].name if pk in known else str(pk), found[pk], total, None, {})) for pk in ranked]
    return OfAll(lines, _line(_("Total"), total, total, None, {}), total.cost_nano > 0)


def rows(found: MonthOfTenant) -> Iterator[list[str]]:
    """The file: each alias and key, and the total of them. By the names of HEAD."""
    lines = found.lines()
    names = labels_of("key", {key for _alias, key in lines})
    when = [str(found.month), found.zone.key]
    for (alias, key), sums in sorted(lines.items(), key=lambda item: (item[0][0], names[item[0][1]], item[0][1])):
        yield ["alias and key", *when, alias, key, names[key], *_amounts(sums)]
    yield ["total", *when, "", "", "", *_amounts(sum(lines.values(), Sums()))]


def rows_of_all(month: Month, found: Mapping[UUID, Sums]) -> Iterator[list[str]]:
    """The file: each tenant, and the total of them. By the names of HEAD_OF_ALL."""
    known = Tenant.objects.in_bulk(list(found))
    for pk in sorted(found, key=lambda pk: known[pk].slug if pk in known else f"~{pk}"):
        tenant = known.get(pk)
        who = [tenant.slug, tenant.name, tenant.time_zone] if tenant else [str(pk), "", ""]
        yield ["tenant", str(month), *who, *_amounts(found[pk])]
    yield ["total", str(month), "", "", "", *_amounts(sum(found.values(), Sums()))]


def _table(dimension: Dimension, month: MonthOfTenant, total: Sums, calls: Calls) -> Table:
    by = ("cost_nano",) if total.cost_nano else ("prompt_tokens", "completion_tokens")
    shown, others = month.most(dimension, LINES_MOST, by=by)
    labels = labels_of(dimension, shown)
    lines = [_line(labels[name], shown[name], total, calls, {dimension: name}) for name in shown]
    if not others:
        return Table(lines, None)
    label = ngettext("%(number)s more, in the file", "%(number)s more, in the file", others)
    rest = total + -sum(shown.values(), Sums())
    return Table(lines, _line(label % {"number": whole(others)}, rest, total, None, {}))


def _line(label: str, sums: Sums, total: Sums, calls: Calls | None, of: dict[str, str]) -> Line:
    """calls: where the calls behind the figures are; None: not on one page. of: what narrows them to this line."""
    linked = calls if calls is not None and all(of.values()) else None
    values = [(name, MEASURES[name].of(sums, 1)) for name in COLUMNS]
    figures = [(name, MEASURES[name].shown(value), bool(value)) for name, value in values]
    cells = linked.cells(figures, of) if linked else [Cell(text) for _name, text, _has_calls in figures]
    share = percent(_weight(sums, total), _weight(total, total))
    return Line(label, linked.url(**of) if linked and of else "", cells, share)


def _weight(sums: Sums, total: Sums) -> int:
    return sums.cost_nano if total.cost_nano else sums.tokens


def _amounts(sums: Sums) -> list[str]:
    return [*(str(getattr(sums, name)) for name in _COUNTED), units(sums.cost_nano)]
