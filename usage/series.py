"""What a chart and its table show: sums of rollups by bucket and by group, of one tenant or of all. Never reads a record.

A page asks for a period: totals(), of all groups, and buckets(), of those that are drawn, the rest as one. What does not ask
for keys is answered by the totals of all keys, of which there are hundreds of times fewer rows where a tenant has thousands.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from operator import add
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from django.db import connection

from accounts.models import Tenant
from usage import histograms, labels
from usage.models import ReportingZone
from usage.rollups import ALL_KEYS, DAY_KEYS, TABLES, summed, zone_named
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
# What is grouped and compared, and its type: as text it would take four times as long.
_RAW: Final[dict[Dimension, tuple[str, str]]] = {
    **{name: (column, "text") for name, column in COLUMNS.items()},
    "key": ("key_id", "uuid"),
    "status": ("status", "smallint"),
    "tenant": ("tenant_id", "uuid"),
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
        ours, theirs = self.first_tokens, other.first_tokens
        return Sums(
            self.requests + other.requests,
            self.errors + other.errors,
            self.refused + other.refused,
            self.blocked + other.blocked,
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cost_nano + other.cost_nano,
            self.busy_ms + other.busy_ms,
            tuple(map(add, ours, theirs)) if ours and theirs else ours or theirs,
        )

    @property
    def is_empty(self) -> bool:
        return not (any(getattr(self, name) for name in AMOUNTS) or any(self.first_tokens))

    def __neg__(self) -> "Sums":
        amounts = {name: -getattr(self, name) for name in AMOUNTS}
        return Sums(**amounts, first_tokens=tuple(-count for count in self.first_tokens))


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


def totals(
    asked: Asked,
    dimension: Dimension | None = None,
    sub: Dimension | None = None,
    *,
    only: Collection[str] | None = None,
    latencies: bool = True,
) -> dict[str, Sums]:
    """Of the whole time, by value of the dimension; by "" where there is none, by both with SEPARATOR between for two.

    only: of these values alone. latencies: with the histograms, which cost four times the rest.
    """
    chosen = _chosen(dimension, sub)
    query, values = _query(asked, chosen, [_name(dimension, sub)], only=only, latencies=latencies)
    return {name: _sums(found) for name, *found in _rows(query, values)}


def ranks(
    asked: Asked, dimension: Dimension | None, sub: Dimension | None = None, *, by: Sequence[Sequence[str]]
) -> dict[str, tuple[int, ...]]:
    """Of every value of the dimension some figures alone, each the sum of columns: it may have thousands of values."""
    figures = [f"sum({' + '.join(columns)})::bigint" for columns in by]
    query, values = _query(asked, _chosen(dimension, sub), [_name(dimension, sub)], figures=figures, latencies=False)
    return {name: tuple(found) for name, *found in _rows(query, values)}


def table(asked: Asked, dimensions: Sequence[Dimension]) -> dict[tuple[str, ...], Sums]:
    """Of the whole time, by the values of all the dimensions together, where anything was used. Without latencies."""
    query, values = _query(asked, dimensions, [COLUMNS[name] for name in dimensions], latencies=False)
    rows = {tuple(row[: len(dimensions)]): _sums(row[len(dimensions) :]) for row in _rows(query, values)}
    return {names: sums for names, sums in rows.items() if any(getattr(sums, name) for name in SUMS)}


def most_used(asked: Asked, dimension: Dimension, count: int) -> list[tuple[str, Sums]]:
    """The values with the most calls, first the one with most; their calls and tokens alone."""
    amounts = ("requests", "prompt_tokens", "completion_tokens")
    query, values = _query(asked, [dimension], [COLUMNS[dimension]], amounts=amounts, latencies=False)
    found = _rows(f"{query} ORDER BY sum(requests) DESC, {_RAW[dimension][0]} LIMIT %(most)s", values | {"most": count})
    return [(name, _sums(sums)) for name, *sums in found]


def buckets(
    asked: Asked,
    dimension: Dimension | None = None,
    sub: Dimension | None = None,
    *,
    drawn: Collection[str] = (),
    amounts: Collection[str] = AMOUNTS,
    latencies: bool = True,
) -> list[Row]:
    """By bucket, from 0, oldest first; of the dimension's values those that are `drawn`, and all others together.

    amounts: the only ones that are summed, all others are 0. latencies: with the histograms, which cost four times the rest.
    """
    name = _name(dimension, sub)
    chosen = _chosen(dimension, sub)
    if "key" in chosen or _kind(chosen):
        return _buckets_and_the_rest(asked, chosen, name, drawn, amounts=amounts, latencies=latencies)
    if dimension is not None:
        name = f"CASE WHEN {name} = ANY(%(drawn)s) THEN {name} END"
    query, values = _query(asked, chosen, [_BUCKET, name], amounts=amounts, latencies=latencies, grouped=[_BUCKET, name])
    found = _rows(f"{query} ORDER BY 1, 2", values | {"drawn": list(drawn)})
    return [Row(number - 1, name, _sums(amounts)) for number, name, *amounts in found]


def _buckets_and_the_rest(
    asked: Asked, chosen: Sequence[Dimension], name: str, drawn: Collection[str], *, amounts: Collection[str], latencies: bool
) -> list[Row]:
    """Those drawn are looked up, thousands of others are what is left of all together: in one statement, which sees one moment.

    All together are the totals of all keys; of labels, which overlap, those of all labels.
    """
    what: Any = {"amounts": amounts, "latencies": latencies}
    query, values = _query(asked, chosen, [_BUCKET, name], only=drawn, grouped=[_BUCKET, name], **what)
    of_all, more = _query(asked, chosen if _kind(chosen) else (), [_BUCKET, "NULL::text"], grouped=[_BUCKET], **what)
    rows: list[Row] = []
    rest: dict[int, Sums] = {}
    for number, found, *figures in _rows(f"{query} UNION ALL {of_all}", values | more):
        sums = _sums(figures)
        if found is None:
            rest[number - 1] = rest.get(number - 1, Sums()) + sums
        else:
            rows.append(Row(number - 1, found, sums))
            rest[number - 1] = rest.get(number - 1, Sums()) + -sums
    rows += [Row(number, None, sums) for number, sums in rest.items() if not sums.is_empty]
    return sorted(rows, key=lambda row: (row.bucket, row.name is None, row.name or ""))


def every_row(asked: Asked, dimension: Dimension | None = None, sub: Dimension | None = None) -> Iterator[Row]:
    """By bucket and by every value of the dimension, oldest first: some buckets at a time, for there may be many values."""
    edges = asked.edges
    for first in range(0, len(edges) - 1, BUCKETS_AT_ONCE):
        part = edges[first : first + BUCKETS_AT_ONCE + 1]
        some = replace(asked, start=part[0], end=part[-1])
        query, values = _query(some, _chosen(dimension, sub), [_BUCKET, _name(dimension, sub)])
        found = _rows(f"{query} ORDER BY 1, 2", values)
        if not connection.in_atomic_block:
            connection.close()  # back to its pool: a client that reads slowly holds none
        yield from (Row(first + number - 1, name, _sums(amounts)) for number, name, *amounts in found)


def how_many_rows(asked: Asked, dimension: Dimension | None = None, sub: Dimension | None = None, *, most: int) -> int:
    """How many every_row gives; counted to most + 1 at most, which says that there are more."""
    chosen = _chosen(dimension, sub)
    source, where, values = _source(asked, asked.edges, chosen)
    grouped = ", ".join([_BUCKET, *(_RAW[name][0] for name in chosen)])
    found = _rows(
        f"SELECT count(*) FROM (SELECT 1 FROM {source} WHERE {where} GROUP BY {grouped} LIMIT %(most)s) AS found",  # noqa: S608
        values | {"most": most + 1},
    )
    return int(found[0][0])


_BUCKET: Final = "width_bucket(starts_at, %(edges)s::timestamptz[])"


def _chosen(*dimensions: Dimension | None) -> list[Dimension]:
    return [name for name in dimensions if name is not None]


def _name(dimension: Dimension | None, sub: Dimension | None = None) -> str:
    if dimension is None:
        return "''::text"
    return f"{COLUMNS[dimension]} || chr({ord(SEPARATOR)}) || {COLUMNS[sub]}" if sub else COLUMNS[dimension]


def _source(asked: Asked, edges: Sequence[datetime], dimensions: Sequence[Dimension]) -> tuple[str, str, dict[str, Any]]:
    """The table, the condition, and its values. Raises ValueError for what no table knows together."""
    # Days of other zones than the tenant's own are made of hours.
    span: Span = asked.span if asked.is_own or asked.span == "minute" else "hour"
    where = ["tenant_id = ANY(%(tenants)s::uuid[])", "starts_at >= %(start)s", "starts_at < %(end)s"]
    values: dict[str, Any] = {
        "tenants": list(asked.tenant_ids),
        "edges": list(edges),
        "start": at(edges[0].timestamp()),
        "end": at(edges[-1].timestamp()),
        **{name: list(wanted) for name, wanted in asked.wanted.items()},
    }
    where += [_is_one_of(name, name) for name in asked.wanted]
    named = {*dimensions, *asked.wanted}
    if kind := _kind(named):
        return labels.TABLES[span], " AND ".join([*where, "kind = %(kind)s"]), values | {"kind": kind}
    return (TABLES if "key" in named else ALL_KEYS)[span], " AND ".join(where), values


def _is_one_of(dimension: Dimension, parameter: str) -> str:
    column, kind = _RAW[dimension]
    return f"{column} = ANY(%({parameter})s::{kind}[])"


def _kind(named: Collection[Dimension]) -> str | None:
    kinds = [name for name in named if name in labels.KINDS]
    if not kinds:
        return None
    if len(kinds) > 1 or not set(named) <= {*kinds, "tenant"}:
        raise ValueError("labels have totals of their own, by nothing else")
    return kinds[0]


def _query(
    asked: Asked,
    dimensions: Sequence[Dimension],
    shown: Sequence[str],
    *,
    only: Collection[str] | None = None,
    amounts: Collection[str] = AMOUNTS,
    latencies: bool = True,
    figures: Sequence[str] | None = None,
    grouped: Sequence[str] | None = None,
) -> tuple[str, dict[str, Any]]:
    """A SELECT of what is `shown`, then the sums of each group, and its values.

    figures: in place of those sums. only: of the dimensions' values these, both with SEPARATOR between for two. grouped: by
    what; None: by bucket, where that is shown, and by the dimensions.
    """
    source, where, values = _source(asked, asked.edges, dimensions)
    if source == TABLES["day"] and not latencies and {*dimensions, *asked.wanted} <= {"key", "tenant"}:
        source = DAY_KEYS
    if only is not None:
        parts = list(zip(*(name.split(SEPARATOR, len(dimensions) - 1) for name in only), strict=True)) or [()] * len(dimensions)
        for place, (name, part) in enumerate(zip(dimensions, parts, strict=True)):
            where += f" AND {_is_one_of(name, f'only_{place}')}"
            values[f"only_{place}"] = list(part)
        if len(dimensions) > 1:
            where += f" AND {shown[-1]} = ANY(%(only)s)"
            values["only"] = list(only)
    if grouped is None:
        grouped = [*([_BUCKET] if _BUCKET in shown else []), *(_RAW[name][0] for name in dimensions)]
    is_of_labels = source in labels.TABLES.values()
    known = SUMS if is_of_labels else AMOUNTS
    sums = [f"sum({name})::bigint" if name in known and name in amounts else "0::bigint" for name in AMOUNTS]
    if latencies:
        sums.append("ARRAY[]::int[]" if is_of_labels else summed("first_tokens"))
    query = f"SELECT {', '.join([*shown, *(figures or sums)])} FROM {source} WHERE {where}"  # noqa: S608 - own names
    return query + (f" GROUP BY {', '.join(grouped)}" if grouped else " HAVING count(*) > 0"), values


def _rows(query: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def _sums(values: Sequence[Any]) -> Sums:
    """values: as _query selects them."""
    latencies = tuple(values[-1]) if len(values) > len(AMOUNTS) else ()
    return Sums(**dict(zip(AMOUNTS, values, strict=False)), first_tokens=latencies)
