"""What a chart and its table show: sums of rollups by bucket and by group, of one tenant or of all. Never reads a record.

A page asks twice at most for a period: totals(), of all groups, and buckets(), of those that are drawn, the rest as one.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from django.db import connection

from accounts.models import Tenant
from usage import histograms, labels
from usage.models import ReportingZone
from usage.rollups import TABLES, summed, zone_named
from usage.spans import Span, at, edges_s
from usage.totals import AMOUNTS, SUMS

Dimension = Literal["alias", "key", "ending", "status", "stream", "backend", "tenant", "end_user", "tag"]
COLUMNS: Final[dict[Dimension, str]] = {
    "alias": "alias",
    "key": "key_id::text",
    "ending": "ending",
    "status": "status::text",
    "backend": "backend",
    "stream": "stream",
    "tenant": "tenant_id::text",
    # From totals of their own, which know of nothing else: see usage.labels.
    "end_user": "label",
    "tag": "label",
}
SEPARATOR: Final = "\x1f"  # between the values of two dimensions
BUCKETS_MOST: Final = 800  # more than a screen has room for
BUCKETS_AT_ONCE: Final = 24  # of an export; each of them has a row for every group


@dataclass(frozen=True, slots=True)
class Asked:
    """tenant_ids: whose. start, end: aware. span: of a bucket, by the clock of `zone`; start and end are widened to whole ones.

    wanted: of a dimension, the only values that count, as text; a key's is its id. own: `zone` is the one tenant's own.
    """

    tenant_ids: tuple[str, ...]
    zone: ZoneInfo
    start: datetime
    end: datetime
    span: Span
    wanted: dict[Dimension, tuple[str, ...]] = field(default_factory=dict)
    is_own: bool = True

    @property
    def edges(self) -> list[datetime]:
        """Where each bucket starts, and where the last one ends. Raises ValueError when there are over BUCKETS_MOST."""
        found = edges_s(self.span, self.start.timestamp(), self.end.timestamp(), self.zone, most=BUCKETS_MOST)
        if found is None or len(found) < 2:
            raise ValueError("too long a time for such buckets, or none")
        return [datetime.fromtimestamp(edge, self.zone) for edge in found]


@dataclass(frozen=True, slots=True)
class Sums:
    """As the columns of a rollup. first_tokens: a histogram, see usage.histograms; () where it was not asked for."""

    requests: int = 0
    errors: int = 0
    refused: int = 0
    blocked: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_nano: int = 0
    busy_ms: int = 0
    first_tokens: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def first_token_ms(self, fraction: float) -> float | None:
        return histograms.percentile(self.first_tokens, fraction)

    def __add__(self, other: "Sums") -> "Sums":
        histogram = [a + b for a, b in zip(self.first_tokens, other.first_tokens, strict=False)]
        longer = self.first_tokens or other.first_tokens
        added = {name: getattr(self, name) + getattr(other, name) for name in AMOUNTS}
        return Sums(**added, first_tokens=tuple(histogram) if histogram else longer)


@dataclass(frozen=True, slots=True)
class Row:
    """One bucket, and in it one value of the dimension: "" where none was asked for, None for all that are not drawn."""

    bucket: int
    name: str | None
    sums: Sums


def zone_of(tenant: Tenant) -> ZoneInfo:
    """The zone its rollups are cut in: the tenant's own, but for the second after that was changed."""
    name = ReportingZone.objects.filter(tenant_id=tenant.pk).values_list("time_zone", flat=True).first()
    return zone_named(name or tenant.time_zone)


def totals(asked: Asked, dimension: Dimension | None = None, sub: Dimension | None = None) -> dict[str, Sums]:
    """Of the whole time, by value of the dimension; by "" where there is none, by both with SEPARATOR between for two."""
    edges = asked.edges
    found = _select(asked, edges[0], edges[-1], [dimension, sub], [_name(dimension, sub)], {})
    return {name: _sums(values) for name, *values in found}


def table(asked: Asked, dimensions: Sequence[Dimension]) -> dict[tuple[str, ...], Sums]:
    """Of the whole time, by the values of all the dimensions together. Without latencies, which cost four times the rest."""
    edges = asked.edges
    found = _select(asked, edges[0], edges[-1], dimensions, [COLUMNS[name] for name in dimensions], {}, latencies=False)
    rows = {tuple(row[: len(dimensions)]): _sums([*row[len(dimensions) :], ()]) for row in found}
    return {names: sums for names, sums in rows.items() if any(getattr(sums, name) for name in SUMS)}


def buckets(
    asked: Asked,
    dimension: Dimension | None = None,
    sub: Dimension | None = None,
    *,
    drawn: Collection[str] = (),
    latencies: bool = True,
) -> list[Row]:
    """By bucket, from 0, oldest first; of the dimension's values those that are `drawn`, and all others together.

    latencies: with the histograms, which cost four times the rest.
    """
    edges = asked.edges
    name = _name(dimension, sub)
    if dimension is not None:
        name = f"CASE WHEN {name} = ANY(%(drawn)s) THEN {name} END"
    values = {"edges": edges, "drawn": list(drawn)}
    found = _select(asked, edges[0], edges[-1], [dimension, sub], [_BUCKET, name], values, latencies=latencies)
    more: list[Any] = [] if latencies else [()]
    return [Row(number - 1, name, _sums([*amounts, *more])) for number, name, *amounts in found]


def every_row(asked: Asked, dimension: Dimension | None = None, sub: Dimension | None = None) -> Iterator[Row]:
    """By bucket and by every value of the dimension, oldest first: some buckets at a time, for there may be many values."""
    edges = asked.edges
    for first in range(0, len(edges) - 1, BUCKETS_AT_ONCE):
        part = edges[first : first + BUCKETS_AT_ONCE + 1]
        found = _select(asked, part[0], part[-1], [dimension, sub], [_BUCKET, _name(dimension, sub)], {"edges": part})
        if not connection.in_atomic_block:
            connection.close()  # back to its pool: a client that reads slowly holds none
        yield from (Row(first + number - 1, name, _sums(values)) for number, name, *values in found)


def how_many_rows(asked: Asked, dimension: Dimension | None = None, sub: Dimension | None = None, *, most: int) -> int:
    """How many every_row gives; counted to most + 1 at most, which says that there are more."""
    edges = asked.edges
    source, where, values = _source(asked, edges[0], edges[-1], [dimension, sub])
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT count(*) FROM (
                SELECT 1 FROM {source} WHERE {where} GROUP BY {_BUCKET}, {_name(dimension, sub)} LIMIT %(most)s
            ) AS found
            """,  # noqa: S608 - own names
            {**values, "edges": edges, "most": most + 1},
        )
        (count,) = cursor.fetchone() or (0,)
    return int(count)


_BUCKET: Final = "width_bucket(starts_at, %(edges)s::timestamptz[])"


def _name(dimension: Dimension | None, sub: Dimension | None = None) -> str:
    if dimension is None:
        return "''::text"
    return f"{COLUMNS[dimension]} || chr({ord(SEPARATOR)}) || {COLUMNS[sub]}" if sub else COLUMNS[dimension]


def _source(
    asked: Asked, start: datetime, end: datetime, dimensions: Sequence[Dimension | None]
) -> tuple[str, str, dict[str, Any]]:
    """The table, the condition, and its values. Raises ValueError for what no table knows together."""
    # Days of other zones than the tenant's own are made of hours.
    span: Span = asked.span if asked.is_own or asked.span == "minute" else "hour"
    where = ["tenant_id = ANY(%(tenants)s::uuid[])", "starts_at >= %(start)s", "starts_at < %(end)s"]
    values: dict[str, Any] = {
        "tenants": list(asked.tenant_ids),
        "start": at(start.timestamp()),
        "end": at(end.timestamp()),
        **{name: list(wanted) for name, wanted in asked.wanted.items()},
    }
    where += [f"{COLUMNS[name]} = ANY(%({name})s)" for name in asked.wanted]
    named = {name for name in (*dimensions, *asked.wanted) if name is not None}
    if (kind := _kind(named)) is None:
        return TABLES[span], " AND ".join(where), values
    return labels.TABLES[span], " AND ".join([*where, "kind = %(kind)s"]), values | {"kind": kind}


def _kind(named: Collection[Dimension]) -> str | None:
    kinds = [name for name in named if name in labels.KINDS]
    if not kinds:
        return None
    if len(kinds) > 1 or not set(named) <= {*kinds, "tenant"}:
        raise ValueError("labels have totals of their own, by nothing else")
    return kinds[0]


def _select(
    asked: Asked,
    start: datetime,
    end: datetime,
    dimensions: Sequence[Dimension | None],
    chosen: Sequence[str],
    values: dict[str, Any],
    *,
    latencies: bool = True,
) -> list[tuple[Any, ...]]:
    source, where, own = _source(asked, start, end, dimensions)
    is_of_labels = source in labels.TABLES.values()
    sums = [f"sum({name})::bigint" for name in SUMS]
    sums.append("0::bigint" if is_of_labels else "sum(busy_ms)::bigint")
    if latencies:
        sums.append("ARRAY[]::int[]" if is_of_labels else summed("first_tokens"))
    places = ", ".join(str(place) for place in range(1, len(chosen) + 1))
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join([*chosen, *sums])} FROM {source} WHERE {where} GROUP BY {places} ORDER BY {places}",  # noqa: S608
            {**own, **values},
        )
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def _sums(values: Sequence[Any]) -> Sums:
    return Sums(**dict(zip(AMOUNTS, values[:-1], strict=True)), first_tokens=tuple(values[-1]))
