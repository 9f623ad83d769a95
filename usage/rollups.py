"""Rollups: minute, hour and day totals, raised in the transaction that inserts the records they count; see ledger.post."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, Final, cast
from zoneinfo import ZoneInfo

from django.db import connection, transaction

from usage import histograms, labels
from usage.copying import array_cell, cells, copy, time_cell
from usage.events import Ending, UsageEvent, ending
from usage.spans import Span, at, edges_s, floor_s
from usage.totals import AMOUNTS, HISTOGRAMS, Totals, busy

TABLES: Final[Mapping[Span, str]] = {
    "minute": "usage_minuterollup",
    "hour": "usage_hourrollup",
    "day": "usage_dayrollup",
    "month": "usage_dayrollup",
}
# The same without the keys: what most questions are answered from, for a tenant may have thousands.
ALL_KEYS: Final[Mapping[Span, str]] = {
    "minute": "usage_minuteallkeys",
    "hour": "usage_hourallkeys",
    "day": "usage_dayallkeys",
    "month": "usage_dayallkeys",
}
# What each key used in a day, whatever it asked for, without latencies.
DAY_KEYS: Final = "usage_daykey"
KEY: Final = ("tenant_id", "starts_at", "key_id", "alias", "backend", "status", "ending", "stream")
KEY_OF_ALL: Final = ("tenant_id", "starts_at", "alias", "backend", "status", "ending", "stream")
KEY_OF_DAY_KEYS: Final = ("tenant_id", "starts_at", "key_id")
_SUBJECT: Final = KEY[2:]
SPANS: Final[tuple[Span, ...]] = ("minute", "hour", "day")  # that have totals of their own
_NO_KEY: Final = "00000000-0000-0000-0000-000000000000"  # of the rows of all keys, while they are staged
NO_TENANT_ZONE: Final = "UTC"  # of a tenant that was deleted before its last events were posted
_LOCK: Final = 0x5365_6B69_7368_6F06  # see lock()
_DAYS_MOST: Final = 100_000

_Key = tuple[str, int, str, str, str, int, Ending, str]  # KEY, with starts_at in Unix seconds
_amounts: Final = attrgetter(*AMOUNTS)


def raise_by(events: Iterable[UsageEvent], zone_of: Mapping[str, ZoneInfo]) -> None:
    """Raise the rollups by `events`, inside the caller's transaction. zone_of: of every tenant among them, from zones().

    Rows are written in one order, so that two who post at once wait for each other and never in a circle.
    """
    minutes: dict[_Key, Totals] = {}
    labelled: list[UsageEvent] = []
    for event in events:
        if event.end_user or event.metadata:
            labelled.append(event)
        streamed = "yes" if event.stream else "no"
        subject = (event.key_id, event.alias, event.backend or "", event.status, ending(event), streamed)
        key = (event.tenant_id, int(event.created_s // 60) * 60, *subject)
        totals = minutes.get(key)
        if totals is None:
            totals = minutes[key] = Totals()
        totals.count(event)
        for minute_s, ran_ms in busy(event):
            ran = totals if minute_s == key[1] else minutes.setdefault((event.tenant_id, minute_s, *subject), Totals())
            ran.busy_ms += ran_ms
    of_each, of_all = _spans(minutes, zone_of), _spans(_of_all_keys(minutes), zone_of)
    staged = [
        *((TABLES[span], KEY, _FIGURES, of_each[span]) for span in SPANS),
        *((ALL_KEYS[span], KEY_OF_ALL, _FIGURES, of_all[span]) for span in SPANS),
        (DAY_KEYS, KEY_OF_DAY_KEYS, AMOUNTS, _of_keys(of_each["day"])),
    ]
    with connection.cursor() as cursor:
        cursor.execute(_MAKE_STAGE)
        cursor.execute("DELETE FROM usage_raise")
        copy("usage_raise", ("destination", *_COLUMNS), _lines((table, rows) for table, *_, rows in staged))
        for table, key_columns, figures, _ in staged:
            cursor.execute(_raise(table, key_columns, figures), [table])
    labels.raise_by(labelled, zone_of)


def lock(*, alone: bool) -> None:
    """For the caller's transaction: post beside others who post; or alone, as is needed to change a reporting zone too.

    A statement of its own, so that the next one sees what those waited for have committed.
    """
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT pg_advisory_xact_lock{'' if alone else '_shared'}(%s)", [_LOCK])


def zones(tenant_ids: Collection[str]) -> dict[str, ZoneInfo]:
    """The zones in which the tenants' hours and days are cut; they stay so while the caller has the lock."""
    ids = list(tenant_ids)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO usage_reportingzone (tenant_id, time_zone)
            SELECT id, coalesce(tenant.time_zone, %s) FROM unnest(%s::uuid[]) AS id
                LEFT JOIN accounts_tenant AS tenant USING (id) LEFT JOIN usage_reportingzone AS zone ON zone.tenant_id = id
            WHERE zone.tenant_id IS NULL ORDER BY id ON CONFLICT DO NOTHING
            """,
            [NO_TENANT_ZONE, ids],
        )
        cursor.execute(
            "SELECT given, time_zone FROM unnest(%s::text[]) AS given JOIN usage_reportingzone ON tenant_id = given::uuid",
            [ids],
        )
        return {tenant_id: zone_named(name) for tenant_id, name in cursor.fetchall()}


def realign() -> int:
    """Follow tenants whose time zone was changed: cut their days anew, from their hours. How many tenants.

    Hours stay as they were cut; one that was cut in a zone half an hour off counts in the day it began in.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT tenant.id::text, tenant.time_zone FROM usage_reportingzone AS zone
                JOIN accounts_tenant AS tenant ON tenant.id = zone.tenant_id
            WHERE tenant.time_zone <> zone.time_zone
            """
        )
        changed: list[tuple[str, str]] = cursor.fetchall()
    for tenant_id, name in changed:
        _realign(tenant_id, name)
    return len(changed)


def zone_named(name: str) -> ZoneInfo:
    """A name that is no zone (any more) is UTC: it must not keep every tenant's events from being posted."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError):
        return ZoneInfo(NO_TENANT_ZONE)


def summed(column: str) -> str:
    """SQL: the histograms of a group of rows, added up bucket by bucket."""
    return "ARRAY[" + ", ".join(f"sum({column}[{n}])::int" for n in range(1, histograms.SIZE + 1)) + "]"


def _of_all_keys(rows: Mapping[_Key, Totals]) -> dict[_Key, Totals]:
    """The same without their keys."""
    return _summed(
        ((tenant_id, starts_s, _NO_KEY, *subject), totals) for (tenant_id, starts_s, _, *subject), totals in rows.items()
    )


def _of_keys(rows: Mapping[_Key, Totals]) -> dict[_Key, Totals]:
    """The same by their keys alone."""
    return _summed(((*key[:3], "", "", 0, "", ""), totals) for key, totals in rows.items())


def _spans(minutes: dict[_Key, Totals], zone_of: Mapping[str, ZoneInfo]) -> dict[Span, dict[_Key, Totals]]:
    hours = _merged("hour", minutes, zone_of)
    return {"minute": minutes, "hour": hours, "day": _merged("day", hours, zone_of)}


def _merged(span: Span, rows: Mapping[_Key, Totals], zone_of: Mapping[str, ZoneInfo]) -> dict[_Key, Totals]:
    """Rows of a finer span, in rows of `span`."""
    starts: dict[tuple[str, int], int] = {}
    for tenant_id, finer_s in {key[:2] for key in rows}:
        starts[tenant_id, finer_s] = floor_s(span, finer_s, zone_of[tenant_id])
    return _summed(((key[0], starts[key[:2]], *key[2:]), totals) for key, totals in rows.items())


def _summed(rows: Iterable[tuple[tuple[Any, ...], Totals]]) -> dict[_Key, Totals]:
    """What has one key, added up. What is alone with its key is passed on as it is: see _lines."""
    merged: dict[_Key, Totals] = {}
    own: set[_Key] = set()  # whose totals were made here, and may be changed
    for found, totals in rows:
        key = cast(_Key, found)
        if key not in merged:
            merged[key] = totals
        elif key in own:
            merged[key].absorb(totals)
        else:
            merged[key] = merged[key] + totals
            own.add(key)
    return merged


def _lines(staged: Iterable[tuple[str, Mapping[_Key, Totals]]]) -> Iterator[str]:
    """As COPY takes them: the table, then _COLUMNS. What is the hour's only minute is written once for both."""
    numbers: dict[int, str] = {}
    for table, rows in staged:
        for (tenant_id, starts_s, key_id, alias, backend, status, ended, streamed), totals in rows.items():
            written = numbers.get(id(totals))
            if written is None:
                written = numbers[id(totals)] = _numbers(totals)
            subject = f"{key_id}\t{cells(alias, backend)}\t{status}\t{ended}\t{streamed}"
            yield f"{table}\t{tenant_id}\t{time_cell(starts_s)}\t{subject}\t{written}\n"


def _numbers(totals: Totals) -> str:
    sums = "\t".join(map(str, _amounts(totals)))
    return f"{sums}\t{array_cell(totals.durations)}\t{array_cell(totals.first_tokens)}"


def _raised(column: str) -> str:
    return f"ARRAY[{', '.join(f'held.{column}[{n}] + EXCLUDED.{column}[{n}]' for n in range(1, histograms.SIZE + 1))}]"


# Emptied at the end of each transaction.
_MAKE_STAGE: Final = (
    "CREATE TEMPORARY TABLE IF NOT EXISTS usage_raise (destination text, LIKE usage_minuterollup) ON COMMIT DELETE ROWS"
)
_FIGURES: Final = (*AMOUNTS, *HISTOGRAMS)
_COLUMNS: Final = (*KEY, *_FIGURES)
_SUMMED: Final = ", ".join([*(f"sum({name})::bigint" for name in AMOUNTS), *map(summed, HISTOGRAMS)])


def _raise(table: str, key: Sequence[str], figures: Sequence[str]) -> str:
    sums = [_raised(name) if name in HISTOGRAMS else f"held.{name} + EXCLUDED.{name}" for name in figures]
    return f"""
        INSERT INTO {table} AS held ({", ".join((*key, *figures))})
        SELECT {", ".join((*key, *figures))} FROM usage_raise WHERE destination = %s ORDER BY {", ".join(key)}
        ON CONFLICT ({", ".join(key)}) DO UPDATE SET
            {", ".join(f"{name} = {total}" for name, total in zip(figures, sums, strict=True))}
    """  # noqa: S608 - own names


def recut_sums(tenant_id: str, spans: Collection[Span]) -> None:
    """The tenant's totals of all keys, and of each key's days, anew from those that tell both keys and all else apart.

    Inside the caller's transaction, which has the lock.
    """
    made: list[tuple[str, str, Sequence[str], Sequence[str]]] = [
        (ALL_KEYS[span], TABLES[span], KEY_OF_ALL, _FIGURES) for span in spans
    ]
    if "day" in spans:
        made.append((DAY_KEYS, TABLES["day"], KEY_OF_DAY_KEYS, AMOUNTS))
    with connection.cursor() as cursor:
        for table, source, key, figures in made:
            sums = [summed(name) if name in HISTOGRAMS else f"sum({name})::bigint" for name in figures]
            cursor.execute(f"DELETE FROM {table} WHERE tenant_id = %s", [tenant_id])  # noqa: S608 - own names
            cursor.execute(
                f"""
                INSERT INTO {table} ({", ".join((*key, *figures))})
                SELECT {", ".join((*key, *sums))} FROM {source} WHERE tenant_id = %s GROUP BY {", ".join(key)}
                """,  # noqa: S608 - own names
                [tenant_id],
            )


def _realign(tenant_id: str, name: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        lock(alone=True)
        cursor.execute("SELECT min(starts_at), max(starts_at) FROM usage_hourrollup WHERE tenant_id = %s", [tenant_id])
        first, last = cast("tuple[datetime | None, datetime | None]", cursor.fetchone())
        cursor.execute("DELETE FROM usage_dayrollup WHERE tenant_id = %s", [tenant_id])
        cursor.execute("DELETE FROM usage_daylabel WHERE tenant_id = %s", [tenant_id])
        if first is not None and last is not None:
            days = _days(first, last, zone_named(name))
            cursor.execute(
                f"""
                INSERT INTO usage_dayrollup ({", ".join(_COLUMNS)})
                SELECT tenant_id, (%(days)s::timestamptz[])[width_bucket(starts_at, %(days)s::timestamptz[])] AS day,
                    {", ".join(_SUBJECT)}, {_SUMMED}
                FROM usage_hourrollup WHERE tenant_id = %(tenant_id)s
                GROUP BY tenant_id, day, {", ".join(_SUBJECT)}
                """,  # noqa: S608 - own names
                {"days": days, "tenant_id": tenant_id},
            )
            labels.recut(cursor, tenant_id, days)
        recut_sums(tenant_id, ["day"])
        cursor.execute("UPDATE usage_reportingzone SET time_zone = %s WHERE tenant_id = %s", [name, tenant_id])


def recut_labels(tenant_id: str, name: str) -> None:
    """The tenant's days of labels anew, after their hours were changed; inside the caller's transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT min(starts_at), max(starts_at) FROM usage_hourlabel WHERE tenant_id = %s", [tenant_id])
        first, last = cast("tuple[datetime | None, datetime | None]", cursor.fetchone())
        labels.recut(cursor, tenant_id, _days(first, last, zone_named(name)) if first and last else [])


def _days(first: datetime, last: datetime, zone: ZoneInfo) -> list[datetime]:
    edges = edges_s("day", first.timestamp(), last.timestamp() + 1, zone, most=_DAYS_MOST)
    return [at(edge) for edge in edges or []]
