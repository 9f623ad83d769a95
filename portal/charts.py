"""Report rows as charts: their geometry, drawn as inline SVG by templates/portal/_chart.html. No I/O.

Shapes are in an inner SVG that stretches; words stand outside of it, in per cent of the width, and so keep their size. No
element carries a style or a colour of its own: classes do (static/portal/charts.css), so that dark and print follow.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, pairwise
from typing import Final

from django.utils import formats
from django.utils.functional import Promise
from django.utils.translation import gettext as _

from portal.behind import Cell
from portal.measures import Amount, Measure
from usage.spans import Span

SERIES_MOST: Final = 6  # the rest is one more, "other"
WIDTH: Final = 1000  # of the inner SVG, in its own units
HEIGHT: Final = 200
HEAD: Final = 20  # above the tallest bar, for the topmost word
TICKS_MOST: Final = 7
_EVERY: Final[dict[Span, tuple[int, ...]]] = {
    "minute": (1, 2, 5, 10, 15, 20, 30, 60),
    "hour": (1, 2, 3, 4, 6, 12, 24, 48, 72, 168),
    "day": (1, 2, 5, 7, 10, 14, 28, 56, 91),
    "month": (1, 2, 3, 6, 12, 24),
}
_GAP_BUCKETS_MOST: Final = 64  # more bars than these touch each other


@dataclass(frozen=True, slots=True)
class Series:
    """label: as people read it. place: from 0, which colour; None: the colour of what is left over.

    urls: by bucket, of the calls that a value counts; () where they are nobody's page.
    """

    label: str
    values: Sequence[Amount]
    place: int | None = None
    urls: Sequence[str] = ()

    @property
    def css(self) -> str:
        return "series-other" if self.place is None else f"series-{self.place + 1}"

    def cells(self, measure: Measure, count: int) -> list[Cell]:
        """Of that many buckets; what has no such bucket is not known."""
        values = [*self.values[:count], *[None] * (count - len(self.values))]
        urls = self.urls or [""] * count
        return [
            Cell(text, url if value else "") for text, value, url in zip(measure.all_shown(values), values, urls, strict=False)
        ]


@dataclass(frozen=True, slots=True)
class Bar:
    x: str
    width: str
    y: str
    height: str
    css: str


@dataclass(frozen=True, slots=True)
class Line:
    """dots: where a value stands alone."""

    path: str
    css: str
    dots: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    y: str
    label: str


@dataclass(frozen=True, slots=True)
class Tick:
    """is_minor: left out where there is no room. is_late: its word may not fit beside it, and stands before it then."""

    x: str
    label: str
    is_minor: bool
    is_late: bool


@dataclass(frozen=True, slots=True)
class TableRow:
    """starts, ends: as the fields `from` and `to` of a filter take them. cells: by series."""

    label: str
    starts: str
    ends: str
    cells: Sequence[Cell]
    total: Cell
    before: Cell


@dataclass(frozen=True, slots=True)
class Chart:
    """name: of its elements' ids. before: the label of the dashed line, "" without one."""

    name: str
    title: str
    description: str
    unit: str
    series: Sequence[Series]
    bars: Sequence[Bar]
    lines: Sequence[Line]
    dashed: Line | None
    grid: Sequence[Grid]
    ticks: Sequence[Tick]
    rows: Sequence[TableRow]
    before: str = ""
    width: int = WIDTH
    height: int = HEIGHT + HEAD
    full_height: int = HEIGHT + HEAD + 24

    @property
    def areas(self) -> Iterator[Line]:
        """The bars of each series as one shape: a page may have a thousand bars."""
        parts: dict[str, list[str]] = {}
        for bar in self.bars:
            parts.setdefault(bar.css, []).append(f"M{bar.x} {bar.y}h{bar.width}v{bar.height}h-{bar.width}z")
        for css, found in parts.items():
            yield Line("".join(found), css)

    @property
    def has_total(self) -> bool:
        return len(self.series) > 1 and bool(self.bars)

    @property
    def is_empty(self) -> bool:
        return not any(value for series in self.series for value in series.values)


def chart(
    name: str,
    title: str | Promise,
    measure: Measure,
    span: Span,
    edges: Sequence[datetime],
    series: Sequence[Series],
    *,
    before: Series | None = None,
    urls: Sequence[str] = (),
) -> Chart:
    """Stacked bars of what adds up, else a line each. edges: of the buckets, in the zone shown. urls: of their totals."""
    count = len(edges) - 1
    stacks = [sum(one.values[n] or 0 for one in series) for n in range(count)]
    highest = max(stacks) if measure.is_summed else _highest([v for one in series for v in one.values])
    scale = scale_of(max(highest, _highest(before.values) if before else 0), is_whole=measure.unit != "" and measure.is_summed)
    top = scale[-1]
    total = measure.of_total(stacks)
    return Chart(
        name=name,
        title=str(title),
        description=_described(measure, edges, span, stacks, total),
        unit=str(measure.unit),
        series=series,
        bars=list(_bars(series, count, top)) if measure.is_summed else (),
        lines=() if measure.is_summed else [Line(path(one.values, top), one.css, dots(one.values, top)) for one in series],
        dashed=Line(path(before.values[:count], top), "before") if before else None,
        grid=[Grid(_figure(_y(value, top)), measure.short(value)) for value in scale if value],
        ticks=list(ticks(edges, span)),
        rows=_rows(measure, span, edges, series, Series("", stacks, urls=urls), before),
        before=before.label if before else "",
    )


def sparkline(values: Sequence[Amount]) -> str:
    """The path of a line in a box of WIDTH x HEIGHT."""
    return path(values, _highest(values) or 1, head=0)


def scale_of(highest: float, *, is_whole: bool = False) -> list[float]:
    """0 and up to four steps of 1, 2 or 5 times a power of ten, the last one not below `highest`."""
    if highest <= 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(highest / 4))
    step = next(size * power for size in (1, 2, 5, 10) if size * power * 4 >= highest * 0.999999)
    if is_whole:
        step = max(1.0, step)
    return [step * n for n in range(math.ceil(highest / step * 0.999999) + 1)]


def path(values: Sequence[Amount], top: float, *, head: int = HEAD) -> str:
    """A line through the middles of the buckets; it breaks where there is no value."""
    parts, is_open = [], False
    for place, value in enumerate(values):
        if value is not None:
            parts.append(f"{'L' if is_open else 'M'}{_point(place, value, len(values), top, head)}")
        is_open = value is not None
    return "".join(parts)


def dots(values: Sequence[Amount], top: float) -> str:
    """A dot where a value has none beside it: there is no line through it."""
    around = [None, *values, None]
    return "".join(
        f"M{_point(place, value, len(values), top, HEAD)}h0.01"
        for place, value in enumerate(values)
        if value is not None and around[place] is None and around[place + 2] is None
    )


def ticks(edges: Sequence[datetime], span: Span) -> Iterator[Tick]:
    """A few moments of the axis, on hours or days that people count by."""
    count = len(edges) - 1
    chosen = _on_the_clock(edges[:-1], span)
    for order, place in enumerate(chosen):
        yield Tick(
            f"{_figure(100 * place / count)}%",
            moment(edges[place], span, count),
            is_minor=order % 2 == 1,
            is_late=place > 0.85 * count,
        )


def moment(at: datetime, span: Span, count: int) -> str:
    """As short as tells it from the others of the axis."""
    if span == "month":
        return formats.date_format(at, "YEAR_MONTH_FORMAT")
    if span == "day" or (span == "hour" and (count > 48 or (at.hour, at.minute) == (0, 0))):
        return formats.date_format(at, "MONTH_DAY_FORMAT")
    return formats.time_format(at.time(), "TIME_FORMAT")


def whole_moment(at: datetime, span: Span) -> str:
    """With its date: as the table says it."""
    if span == "month":
        return formats.date_format(at, "YEAR_MONTH_FORMAT")
    return formats.date_format(at, "DATE_FORMAT" if span == "day" else "DATETIME_FORMAT")


def _on_the_clock(starts: Sequence[datetime], span: Span) -> list[int]:
    clock: dict[Span, Callable[[datetime], int]] = {
        "minute": lambda at: at.hour * 60 + at.minute,
        "hour": lambda at: at.hour + 24 * at.toordinal(),
        "day": lambda at: at.toordinal(),
        "month": lambda at: at.year * 12 + at.month - 1,
    }
    # In zones with half an hour, what begins at half past counts as its hour.
    for every in _EVERY[span]:
        found = [n for n, at in enumerate(starts) if clock[span](at) % every == 0]
        if 0 < len(found) <= TICKS_MOST:
            return found
    return list(range(0, len(starts), max(1, len(starts) // TICKS_MOST)))


def _bars(series: Sequence[Series], count: int, top: float) -> Iterator[Bar]:
    slot = WIDTH / count
    gap = slot * 0.2 if count <= _GAP_BUCKETS_MOST else 0
    for place in range(count):
        sums = list(accumulate((one.values[place] or 0 for one in series), initial=0))
        for one, below, above in zip(series, sums, sums[1:], strict=False):
            if above > below:
                high, low = _y(above, top), _y(below, top)
                x, width = _figure(place * slot + gap / 2), _figure(slot - gap)
                yield Bar(x, width, _figure(high), _figure(low - high), one.css)


def _rows(
    measure: Measure,
    span: Span,
    edges: Sequence[datetime],
    series: Sequence[Series],
    total: Series,
    before: Series | None,
) -> list[TableRow]:
    count = len(edges) - 1
    columns = [one.cells(measure, count) for one in series]
    totals = total.cells(measure, count)
    earlier = before.cells(measure, count) if before else []
    return [
        TableRow(
            whole_moment(start, span),
            f"{start:%Y-%m-%dT%H:%M}",
            f"{end:%Y-%m-%dT%H:%M}",
            [column[n] for column in columns],
            totals[n],
            earlier[n] if before else Cell(""),
        )
        for n, (start, end) in enumerate(pairwise(edges))
    ]


def _described(measure: Measure, edges: Sequence[datetime], span: Span, stacks: Sequence[float], total: float | None) -> str:
    said = _("From %(start)s to %(end)s.") % {
        "start": whole_moment(edges[0], span),
        "end": formats.date_format(edges[-1], "DATETIME_FORMAT"),
    }
    if total is not None:
        most = max(range(len(stacks)), key=lambda n: stacks[n])
        said += " " + _("%(total)s in all; most at %(moment)s, %(most)s.") % {
            "total": measure.shown(total),
            "moment": whole_moment(edges[most], span),
            "most": measure.shown(stacks[most]),
        }
    return said


def _point(place: int, value: float, count: int, top: float, head: int) -> str:
    return f"{_figure((place + 0.5) * WIDTH / count)} {_figure(_y(value, top, head=head))}"


def _highest(values: Sequence[Amount]) -> float:
    return max((value for value in values if value is not None), default=0)


def _y(value: float, top: float, *, head: int = HEAD) -> float:
    return head + HEIGHT * (1 - value / top)


def _figure(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
