"""A question about usage, answered as a page shows it: one chart, and a table of what the total is made of."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import ApiKey, Tenant
from portal.behind import Calls, Cell
from portal.charts import SERIES_MOST, Chart, Series, chart, whole_moment
from portal.forms.usage import Period, UsageFilter
from portal.measures import MEASURES, Measure, percent, whole
from portal.wording import ENDINGS
from usage.labels import KINDS
from usage.money import units
from usage.series import SEPARATOR, Asked, Dimension, Row, Sums, buckets, every_row, ranks, totals

# What the table can be sorted by, in the order of its columns.
COLUMNS: Final = ("requests", "prompt", "completion", "errors", "refused", "blocked", "first_p95", "cost")
STREAMED: Final = {"yes": gettext_lazy("Streamed"), "no": gettext_lazy("Whole"), "": ENDINGS[""]}
HEAD: Final = (
    "start", "end", "group", "name", "subgroup", "subname", "requests", "prompt_tokens", "cached_tokens", "completion_tokens",
    "errors", "refused", "blocked", "first_token_p50_ms", "first_token_p95_ms", "concurrency", "cost",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One value of the dimension, and of a second one. url: of the calls behind it; "" where there is no page of them.

    place: from 0, the colour it is drawn in; None: it is among the others.
    """

    name: str
    label: str
    sub_name: str
    sub_label: str
    url: str
    sums: Sums
    cells: Sequence[Cell]
    share: str
    place: int | None

    @property
    def css(self) -> str:
        return "series-other" if self.place is None else f"series-{self.place + 1}"


@dataclass(frozen=True, slots=True)
class Board:
    """change: against the time that is compared with, "" where none is or it had nothing.

    names: of the table's lines, in its order; there may be thousands, of which a page makes entries() of a few.
    """

    measure: Measure
    chart: Chart
    names: Sequence[str]
    total: Sums
    total_shown: str
    total_cells: Sequence[Cell]
    before_shown: str
    change: str
    sort: str
    start: datetime
    end: datetime
    entries: Callable[[Sequence[str]], list[Entry]]


def board(form: UsageFilter, tenant_ids: tuple[str, ...], *, sort: str = "", calls: Calls | None = None) -> Board:
    """Three queries, four with a comparison, and two for the names of what is drawn; entries() takes three.

    sort: one of COLUMNS or `name`, with a minus for the largest first.
    calls: the list that holds what the page tells of; None where that is not one tenant's.
    """
    asked, dimension, sub, measure = form.asked(tenant_ids), form.dimension, form.sub, MEASURES[form.measure]
    edges = asked.edges
    of_s = edges[-1].timestamp() - edges[0].timestamp()
    weighed = measure if measure.is_summed else MEASURES["requests"]
    column = sort.removeprefix("-")
    sorted_by = MEASURES[column] if column in COLUMNS else weighed
    # A call may have several tags, and one without an end user is in no row: the total is that of all calls.
    total = totals(asked).get("", Sums())
    found = ranks(asked, dimension, sub, by=[weighed.reads, sorted_by.reads or weighed.reads])
    ranked = sorted(found, key=lambda name: (-found[name][0], name))
    drawn = [name for name in ranked[:SERIES_MOST] if found[name][0]]
    places = {name: place for place, name in enumerate(drawn)}
    labels = pair_labels(dimension, sub, found if column == "name" else drawn)
    joined = {name: " · ".join(pair) if sub else pair[0] for name, pair in labels.items()}
    latencies = measure.name.startswith("first_")
    rows = buckets(asked, dimension, sub, drawn=drawn, amounts=measure.reads, latencies=latencies)
    before, before_total = _before(form, tenant_ids, measure, calls)
    urls = calls.urls(edges, measure.name) if calls else ()
    series = _series(measure, rows, edges, drawn, joined, lambda name: _narrowed(form, calls, edges, name), urls)
    value, value_before = measure.of(total, of_s), measure.of(before_total, of_s) if before_total else None

    latencies_of = {} if sorted_by.reads else totals(asked, dimension, sub)

    def figure(name: str) -> float:
        return found[name][1] if sorted_by.reads else (sorted_by.of(latencies_of.get(name, Sums()), of_s) or 0)

    def entries(names: Sequence[str]) -> list[Entry]:
        sums = totals(asked, dimension, sub, only=names)
        labels = pair_labels(dimension, sub, names)
        return [
            _entry(
                name, labels[name], sums[name], form, calls, of_s, _share(measure, sums[name], total, of_s), places.get(name)
            )
            for name in names
            if name in sums
        ]

    return Board(
        measure,
        chart("usage", measure.label, measure, asked.span, edges, series, before=before, urls=urls),
        _sorted(ranked, joined, figure, sort) if dimension else (),
        total,
        measure.shown(value),
        cells(total, of_s, calls, {}),
        "" if value_before is None else measure.shown(value_before),
        change(value, value_before),
        sort,
        edges[0],
        edges[-1],
        entries,
    )


def change(value: float | None, before: float | None) -> str:
    """In per cent, with its sign; "" where there is nothing to compare."""
    if value is None or not before:
        return ""
    share = (value - before) / before * 100
    return f"{'+' if share >= 0.5 else '-' if share <= -0.5 else '±'}{whole(abs(share))} %"


def cells(sums: Sums, of_s: float, calls: Calls | None, of: Mapping[str, str]) -> list[Cell]:
    """of: what narrows `calls` to those that are counted here."""
    values = [(name, MEASURES[name].of(sums, of_s)) for name in COLUMNS]
    figures = [(name, MEASURES[name].shown(value), bool(value)) for name, value in values]
    return calls.cells(figures, of) if calls else [Cell(text) for _name, text, _has_calls in figures]


def pair_labels(dimension: Dimension | None, sub: Dimension | None, names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """How people call the values of one dimension, or of two with SEPARATOR between; one query for each at most."""
    if sub is None:
        return {name: (label, "") for name, label in labels_of(dimension, names).items()}
    pairs = {name: tuple(name.split(SEPARATOR, 1)) for name in names}
    firsts = labels_of(dimension, {first for first, _second in pairs.values()})
    seconds = labels_of(sub, {second for _first, second in pairs.values()})
    return {name: (firsts[first], seconds[second]) for name, (first, second) in pairs.items()}


def labels_of(dimension: Dimension | None, names: Any) -> dict[str, str]:
    """How people call the values of a dimension; one query at most. A key or tenant that is gone has its id alone."""
    given: dict[str, str] = {}
    if dimension == "key":
        given = {str(pk): name for pk, name in ApiKey.objects.filter(pk__in=list(names)).values_list("pk", "name")}
    elif dimension == "tenant":
        given = {str(pk): slug for pk, slug in Tenant.objects.filter(pk__in=list(names)).values_list("pk", "slug")}
    elif dimension == "ending":
        given = {name: str(words) for name, words in ENDINGS.items()}
    elif dimension == "stream":
        given = {name: str(words) for name, words in STREAMED.items()}
    elif dimension == "alias":
        given = {"": _("Without an alias")}
    elif dimension in KINDS:
        given = {"": _("All the others together")}
    return {name: given.get(name) or name or _("None") for name in names}


def lines_of(asked: Asked, dimension: Dimension | None, sub: Dimension | None = None) -> Iterator[dict[str, Any]]:
    """What the page shows, all of it and exactly: of each bucket each group, by the names of HEAD."""
    edges = asked.edges
    lengths_s = [end.timestamp() - start.timestamp() for start, end in pairwise(edges)]
    labels: dict[str, tuple[str, str]] = {}
    for row in every_row(asked, dimension, sub):
        name = row.name or ""
        if name not in labels:
            labels |= pair_labels(dimension, sub, [name]) if dimension else {"": ("", "")}
        first, _sign, second = name.partition(SEPARATOR) if sub else (name, "", "")
        sums = row.sums
        p50, p95 = sums.first_token_ms(0.5), sums.first_token_ms(0.95)
        values = (
            edges[row.bucket].isoformat(), edges[row.bucket + 1].isoformat(), first, labels[name][0], second, labels[name][1],
            sums.requests, sums.prompt_tokens, sums.cached_tokens, sums.completion_tokens, sums.errors, sums.refused,
            sums.blocked, None if p50 is None else round(p50), None if p95 is None else round(p95),
            None if dimension in KINDS else round(sums.busy_ms / 1000 / lengths_s[row.bucket], 3), units(sums.cost_nano),
        )  # fmt: skip
        yield dict(zip(HEAD, values, strict=True))


def values_of(measure: Measure, rows: Sequence[Row], edges: Sequence[datetime], name: str | None) -> list[float | None]:
    """The measure by bucket, of one value of the dimension. Nothing where nothing was: 0 of what adds up, else None."""
    nothing = 0.0 if measure.is_summed or measure.name == "rate" else None
    lengths = [end.timestamp() - start.timestamp() for start, end in pairwise(edges)]
    values: list[float | None] = [nothing] * len(lengths)
    for row in rows:
        if row.name == name and row.bucket < len(values):
            values[row.bucket] = measure.of(row.sums, lengths[row.bucket])
    return values


def _series(
    measure: Measure,
    rows: Sequence[Row],
    edges: Sequence[datetime],
    drawn: Sequence[str],
    labels: dict[str, str],
    urls_of: Callable[[str], Sequence[str]],
    urls: Sequence[str],
) -> list[Series]:
    """urls_of: by bucket, of the calls of one value; urls: of all of them."""
    if all(row.name == "" for row in rows) and drawn in ([], [""]):
        return [Series(str(measure.label), values_of(measure, rows, edges, ""), 0, urls)]
    series = [Series(labels[n], values_of(measure, rows, edges, n), place, urls_of(n)) for place, n in enumerate(drawn)]
    if measure.is_summed and any(row.name is None and measure.of(row.sums, 1) for row in rows):
        series.append(Series(_("Other"), values_of(measure, rows, edges, None)))
    return series or [Series(str(measure.label), [None] * (len(edges) - 1), 0)]


def _before(
    form: UsageFilter, tenant_ids: tuple[str, ...], measure: Measure, calls: Calls | None
) -> tuple[Series | None, Sums | None]:
    period: Period | None = form.compared
    if period is None:
        return None, None
    asked = form.asked(tenant_ids, period)
    edges = asked.edges
    rows = buckets(asked, amounts=measure.reads, latencies=measure.name.startswith("first_"))
    label = _("Before, from %(start)s") % {"start": whole_moment(edges[0], asked.span)}
    urls = calls.urls(edges, measure.name) if calls else ()
    return Series(label, values_of(measure, rows, edges, ""), urls=urls), sum((row.sums for row in rows), Sums())


def _entry(
    name: str,
    label: tuple[str, str],
    sums: Sums,
    form: UsageFilter,
    calls: Calls | None,
    of_s: float,
    share: str,
    place: int | None,
) -> Entry:
    of = _of(form, name)
    first, second = of[str(form.dimension)], of.get(str(form.sub), "")
    linked = calls if _can_be_asked(of) else None
    url = linked.url(**of) if linked else ""
    return Entry(first, label[0], second, label[1], url, sums, cells(sums, of_s, linked, of), share, place)


def _of(form: UsageFilter, name: str) -> dict[str, str]:
    """A value as the list's filters say it."""
    first, _sign, second = name.partition(SEPARATOR) if form.sub else (name, "", "")
    return {str(form.dimension): first} | ({str(form.sub): second} if form.sub else {})


def _can_be_asked(of: Mapping[str, str]) -> bool:
    """What has no name, and labels without a row of their own, cannot be asked of the list."""
    return all(of.values())


def _narrowed(form: UsageFilter, calls: Calls | None, edges: Sequence[datetime], name: str) -> Sequence[str]:
    of = _of(form, name)
    return calls.urls(edges, form.measure, **of) if calls and _can_be_asked(of) else ()


def _share(measure: Measure, sums: Sums, total: Sums, of_s: float) -> str:
    base = measure if measure.is_summed else MEASURES["requests"]
    return percent(base.of(sums, of_s) or 0, base.of(total, of_s) or 0)


def _sorted(ranked: Sequence[str], labels: Mapping[str, str], figure: Callable[[str], float], sort: str) -> Sequence[str]:
    column, is_down = sort.removeprefix("-"), sort.startswith("-")
    if column == "name":
        return sorted(ranked, key=lambda name: labels[name].casefold(), reverse=is_down)
    if column in COLUMNS:
        return sorted(ranked, key=figure, reverse=is_down)
    return ranked
