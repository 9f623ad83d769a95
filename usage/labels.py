"""Totals by end user and by tag, which clients make up as they like: so many an hour and a day of a tenant, the rest as one.

A tag is name=value of a call's metadata; a call with three counts in three. Calls without any are in no row.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from django.db import connection

from usage.copying import cells, copy, time_cell
from usage.events import UsageEvent
from usage.spans import Span, floor_s
from usage.totals import SUMS, Totals

Kind = Literal["end_user", "tag"]
KINDS: Final[tuple[Kind, ...]] = ("end_user", "tag")
TABLES: Final[Mapping[Span, str]] = {"hour": "usage_hourlabel", "day": "usage_daylabel", "month": "usage_daylabel"}
# How many labels of a kind a tenant's hour and day hold; who comes first has the place, and keeps it.
MOST: Final[Mapping[Span, int]] = {"hour": 200, "day": 1000}
LABEL_MAX: Final = 200  # characters; a longer one is among the rest
KEY: Final = ("tenant_id", "starts_at", "kind", "label")

_Key = tuple[str, int, Kind, str]


def labels_of(event: UsageEvent) -> Iterator[tuple[Kind, str]]:
    if event.end_user:
        yield "end_user", _kept(event.end_user)
    for name, value in (event.metadata if isinstance(event.metadata, dict) else {}).items():
        yield "tag", _kept(f"{name}={value}")


def raise_by(events: Iterable[UsageEvent], zone_of: Mapping[str, ZoneInfo]) -> None:
    """Inside the caller's transaction, which has the lock of the rollups. zone_of: of every tenant among them."""
    spans: dict[Span, dict[_Key, Totals]] = {"hour": {}, "day": {}}
    for event in events:
        zone = zone_of[event.tenant_id]
        for span, rows in spans.items():
            starts_s = floor_s(span, event.created_s, zone)
            for kind, label in labels_of(event):
                key = (event.tenant_id, starts_s, kind, label)
                totals = rows.get(key)
                if totals is None:
                    totals = rows[key] = Totals()
                totals.count(event)
    if not spans["day"]:
        return
    with connection.cursor() as cursor:
        cursor.execute(_MAKE_STAGE)
        cursor.execute("DELETE FROM usage_raise_labels")
        copy("usage_raise_labels", ("span", *KEY, *SUMS), _lines(spans))
        for span, most in MOST.items():
            cursor.execute(_BOUND.format(span=span), {"span": span, "most": most})
            cursor.execute(_RAISE.format(span=span), {"span": span})


def recut(cursor: Any, tenant_id: str, days: Sequence[datetime]) -> None:
    """The tenant's days anew, from its hours. days: where each begins, of all hours there are."""
    cursor.execute("DELETE FROM usage_daylabel WHERE tenant_id = %s", [tenant_id])
    cursor.execute(
        f"""
        WITH cut AS (
            SELECT (%(days)s::timestamptz[])[width_bucket(starts_at, %(days)s::timestamptz[])] AS day, kind, label, {_SUMMED}
            FROM usage_hourlabel WHERE tenant_id = %(tenant_id)s GROUP BY day, kind, label
        ), ranked AS (
            SELECT *, row_number() OVER (PARTITION BY day, kind ORDER BY label = '', requests DESC, label) AS place FROM cut
        )
        INSERT INTO usage_daylabel ({", ".join((*KEY, *SUMS))})
        SELECT %(tenant_id)s::uuid, day, kind, CASE WHEN place > %(most)s THEN '' ELSE label END AS kept, {_SUMMED}
        FROM ranked GROUP BY day, kind, kept
        """,  # noqa: S608 - own names
        {"days": list(days), "tenant_id": tenant_id, "most": MOST["day"]},
    )


def forget(tenant_id: str, key_ids: Collection[str], zone: ZoneInfo) -> None:
    """Take from the hours what the ledger's calls by these keys put there, before they are deleted; the caller recuts the days.

    What had no room of its own is taken from the rest. For made-up usage alone.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH made_up AS (
                SELECT created_at, part, outcome, error_code, prompt_tokens, cached_tokens, completion_tokens, cost_nano,
                    created_at AT TIME ZONE %(zone)s - created_at AT TIME ZONE 'UTC' AS shift, end_user, metadata
                FROM usage_usagerecord WHERE tenant_id = %(tenant)s AND key_id = ANY(%(keys)s::uuid[])
            ), labelled AS (
                SELECT *, 'end_user' AS kind, end_user AS label FROM made_up WHERE end_user <> ''
                UNION ALL
                SELECT made_up.*, 'tag', one.key || '=' || one.value FROM made_up, jsonb_each_text(metadata) AS one
                WHERE jsonb_typeof(metadata) = 'object'
            ), hours AS (
                SELECT date_trunc('hour', created_at + shift, 'UTC') - shift AS starts_at, kind,
                    CASE WHEN length(label) > {LABEL_MAX} THEN '' ELSE label END AS label, {_OF_RECORDS}
                FROM labelled GROUP BY 1, 2, 3
            ), placed AS (
                SELECT hours.starts_at, hours.kind, coalesce(held.label, '') AS label, {_summed("hours")}
                FROM hours LEFT JOIN usage_hourlabel AS held ON held.tenant_id = %(tenant)s AND held.label = hours.label
                    AND held.starts_at = hours.starts_at AND held.kind = hours.kind
                GROUP BY 1, 2, 3
            )
            UPDATE usage_hourlabel AS held SET {", ".join(f"{name} = held.{name} - placed.{name}" for name in SUMS)}
            FROM placed WHERE held.tenant_id = %(tenant)s AND held.starts_at = placed.starts_at
                AND held.kind = placed.kind AND held.label = placed.label
            """,  # noqa: S608 - own names
            {"zone": zone.key, "tenant": tenant_id, "keys": list(key_ids)},
        )
        nothing = " AND ".join(f"{name} = 0" for name in SUMS)
        cursor.execute(f"DELETE FROM usage_hourlabel WHERE tenant_id = %s AND {nothing}", [tenant_id])  # noqa: S608 - own names


def _kept(label: str) -> str:
    return label if len(label) <= LABEL_MAX else ""


def _lines(spans: Mapping[Span, Mapping[_Key, Totals]]) -> Iterator[str]:
    for span, rows in spans.items():
        for (tenant_id, starts_s, kind, label), totals in rows.items():
            sums = "\t".join(str(getattr(totals, name)) for name in SUMS)
            yield f"{span}\t{tenant_id}\t{time_cell(starts_s)}\t{kind}\t{cells(label)}\t{sums}\n"


def _summed(table: str) -> str:
    return ", ".join(f"sum({table}.{name})::bigint AS {name}" for name in SUMS)


_SUMMED: Final = ", ".join(f"sum({name})::bigint AS {name}" for name in SUMS)
# As Totals.count, of the ledger's records.
_OF_RECORDS: Final = """
    count(*) FILTER (WHERE part = 0) AS requests,
    count(*) FILTER (WHERE part = 0 AND outcome IN ('failed', 'timeout', 'lost') AND error_code <> 'content_blocked') AS errors,
    count(*) FILTER (WHERE part = 0 AND outcome = 'refused' AND error_code <> 'content_blocked') AS refused,
    count(*) FILTER (WHERE part = 0 AND error_code = 'content_blocked') AS blocked,
    sum(prompt_tokens)::bigint AS prompt_tokens, sum(cached_tokens)::bigint AS cached_tokens,
    sum(completion_tokens)::bigint AS completion_tokens, sum(cost_nano)::bigint AS cost_nano
"""
# Emptied at the end of each transaction.
_MAKE_STAGE: Final = (
    "CREATE TEMPORARY TABLE IF NOT EXISTS usage_raise_labels (span text, LIKE usage_hourlabel) ON COMMIT DELETE ROWS"
)
_SAME: Final = "held.tenant_id = stage.tenant_id AND held.starts_at = stage.starts_at AND held.kind = stage.kind"
_BOUND: Final = f"""
    WITH fresh AS (
        SELECT stage.ctid AS row, tenant_id, starts_at, kind,
            row_number() OVER (PARTITION BY tenant_id, starts_at, kind ORDER BY requests DESC, label) AS place
        FROM usage_raise_labels AS stage WHERE span = %(span)s AND label <> ''
            AND NOT EXISTS (SELECT FROM usage_{{span}}label AS held WHERE {_SAME} AND held.label = stage.label)
    ), room AS (
        SELECT tenant_id, starts_at, kind, %(most)s - (
            SELECT count(*) FROM usage_{{span}}label AS held WHERE {_SAME} AND held.label <> ''
        ) AS places FROM (SELECT DISTINCT tenant_id, starts_at, kind FROM fresh) AS stage
    )
    UPDATE usage_raise_labels AS stage SET label = '' FROM fresh JOIN room USING (tenant_id, starts_at, kind)
    WHERE stage.ctid = fresh.row AND fresh.place > room.places
"""  # noqa: S608 - own names
_RAISE: Final = f"""
    INSERT INTO usage_{{span}}label AS held ({", ".join((*KEY, *SUMS))})
    SELECT {", ".join(KEY)}, {_SUMMED} FROM usage_raise_labels WHERE span = %(span)s
    GROUP BY {", ".join(KEY)} ORDER BY {", ".join(KEY)}
    ON CONFLICT ({", ".join(KEY)}) DO UPDATE SET {", ".join(f"{name} = held.{name} + EXCLUDED.{name}" for name in SUMS)}
"""  # noqa: S608 - own names
