"""The calls themselves, newest first: one page of them, bounded in time and in how many are looked at; never by offset."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import connection

from accounts.models import Tenant
from usage.models import UsageRecord

ROWS: Final = 25
CALLS_AT_ONCE: Final = 1000  # of all of them
LOOKED_AT_MOST: Final = 50_000  # of a page: about 0.1 s; the rest is the next page's
# of a page of so many rows, before that: hardly ever does a filter leave fewer.
LOOKED_AT_FIRST: Final = 40
_WENT_WRONG: Final = ("failed", "refused", "blocked")

_ENDING: Final = """CASE WHEN error_code = 'content_blocked' THEN 'blocked'
    WHEN outcome IN ('failed', 'timeout', 'lost') THEN 'failed' ELSE outcome END"""
# A call that was lost with its worker has no code of an error: nobody was there to give it one.
LOST: Final = "lost"
_CODE: Final = f"CASE WHEN error_code = '' AND outcome = '{LOST}' THEN '{LOST}' ELSE error_code END"
# By the names of Wanted; each is given its value as %(name)s.
_CONDITIONS: Final = {
    "aliases": "alias = ANY(%(aliases)s)",
    "key_ids": "key_id = ANY(%(key_ids)s::uuid[])",
    "endings": f"{_ENDING} = ANY(%(endings)s)",
    "status": "status = %(status)s",
    "code": f"{_CODE} = %(code)s",
    "stream": "stream = %(stream)s",
    "end_user": "end_user = %(end_user)s",
    "tag": "metadata @> %(tag)s::jsonb",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calls; None and () mean all. start, end: aware, the end is not in it. tag: JSON of names and values they carry."""

    start: datetime
    end: datetime
    aliases: Sequence[str] = ()
    key_ids: Sequence[str] = ()
    endings: Sequence[str] = ()
    status: int | None = None
    code: str = ""
    stream: bool | None = None
    end_user: str = ""
    tag: str = ""

    def conditions(self) -> dict[str, Any]:
        """By the names of _CONDITIONS, what is asked for."""
        values = {name: getattr(self, name) for name in _CONDITIONS}
        lists = ("aliases", "key_ids", "endings")
        return {
            name: list(value) if name in lists else value
            for name, value in values.items()
            if value is not None and value != "" and not (name in lists and not value)
        }


@dataclass(frozen=True, slots=True)
class Place:
    """Between two calls of the list."""

    created_at: datetime
    request_id: UUID


@dataclass(frozen=True, slots=True)
class Page:
    """calls: each as the parts it was posted in. older: where the next page begins; None when this is the last one.

    is_cut: not all of the time was looked through; there may be more even where `calls` are few.
    """

    calls: Sequence[Sequence[UsageRecord]] = field(default_factory=tuple)
    older: Place | None = None
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Trouble:
    """Calls that went wrong alike. latest: the id of one of them."""

    ending: str
    code: str
    calls: int
    latest: UUID
    latest_at: datetime


def page(tenant: Tenant, wanted: Wanted, *, before: Place | None = None, rows: int = ROWS) -> Page:
    """Those older than `before`, newest first, so many at most. Two queries, three where few of the latest are wanted."""
    given = wanted.conditions()
    # What the filter asks of an index stands inside, where the bound is; all else outside.
    inside = ["tenant_id = %(tenant)s", "part = 0", "created_at >= %(start)s", "created_at < %(end)s"]
    if before is not None:
        inside.append("(created_at, request_id) < (%(before_at)s, %(before_id)s)")
    if given.get("code") == LOST:
        inside.append(f"outcome = '{LOST}'")
    elif "code" in given or (given.get("endings") and set(given["endings"]) <= {"refused", "blocked"}):
        inside.append("error_code <> ''")
    outside = [_CONDITIONS[name] for name in given] or ["true"]
    values: dict[str, Any] = {
        "tenant": tenant.pk,
        "start": wanted.start,
        "end": wanted.end,
        "rows": rows + 1,
    } | given
    if before is not None:
        values |= {"before_at": before.created_at, "before_id": before.request_id}
    query = f"""
        WITH looked_at AS MATERIALIZED (
            SELECT request_id, created_at, alias, key_id, outcome, status, error_code, stream, end_user, metadata
            FROM usage_usagerecord WHERE {" AND ".join(inside)} ORDER BY created_at DESC, request_id DESC LIMIT %(most)s
        ), found AS (
            SELECT request_id, created_at FROM looked_at WHERE {" AND ".join(outside)}
            ORDER BY created_at DESC, request_id DESC LIMIT %(rows)s
        )
        SELECT true, request_id, created_at, 0 FROM found
        UNION ALL
        (SELECT false, request_id, created_at, (SELECT count(*) FROM looked_at) FROM looked_at
        ORDER BY created_at, request_id LIMIT 1)
    """  # noqa: S608 - own names
    found: list[tuple[datetime, UUID]] = []
    last: tuple[datetime, UUID, int] | None = None
    first = LOOKED_AT_FIRST * rows if given else rows + 1
    for most in (min(first, LOOKED_AT_MOST), LOOKED_AT_MOST):
        with connection.cursor() as cursor:
            cursor.execute(query, values | {"most": most})
            told = cursor.fetchall()
        found = sorted(((created_at, pk) for is_found, pk, created_at, _n in told if is_found), reverse=True)
        last = next(((created_at, pk, count) for is_found, pk, created_at, count in told if not is_found), None)
        if len(found) > rows or last is None or last[2] < most:
            break
    is_cut = len(found) <= rows and last is not None and last[2] == LOOKED_AT_MOST
    older = Place(*found[rows - 1]) if len(found) > rows else Place(last[0], last[1]) if is_cut and last else None
    return Page(_calls(tenant, found[:rows]), older, is_cut)


def every_call(tenant: Tenant, wanted: Wanted) -> Iterator[Sequence[UsageRecord]]:
    """All of them, newest first, each as the parts it was posted in: some at a time."""
    place: Place | None = None
    while True:
        found = page(tenant, wanted, before=place, rows=CALLS_AT_ONCE)
        if not connection.in_atomic_block:
            connection.close()  # back to its pool: a client that reads slowly holds none
        yield from found.calls
        if (place := found.older) is None:
            return


def call(tenant: Tenant, request_id: UUID) -> list[UsageRecord]:
    """The parts of one call, in their order; none where this tenant made no such call."""
    return list(UsageRecord.objects.filter(tenant_id=tenant.pk, request_id=request_id).order_by("part"))


def troubles(tenant: Tenant, start: datetime, end: datetime) -> list[Trouble]:
    """What went wrong in that time, most frequent first, of the latest LOOKED_AT_MOST such calls."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH latest AS (
                (SELECT {_ENDING} AS ending, error_code AS code, request_id, created_at FROM usage_usagerecord
                WHERE tenant_id = %(tenant)s AND created_at >= %(start)s AND created_at < %(end)s AND part = 0
                    AND error_code <> '' ORDER BY created_at DESC LIMIT {LOOKED_AT_MOST})
                UNION ALL
                (SELECT 'failed', '{LOST}', request_id, created_at FROM usage_usagerecord
                WHERE tenant_id = %(tenant)s AND created_at >= %(start)s AND created_at < %(end)s AND part = 0
                    AND outcome = '{LOST}' AND error_code = '' ORDER BY created_at DESC LIMIT {LOOKED_AT_MOST})
            )
            SELECT ending, code, count(*), (array_agg(request_id ORDER BY created_at DESC))[1], max(created_at) FROM latest
            WHERE ending = ANY(%(wrong)s) GROUP BY ending, code ORDER BY 3 DESC, 1, 2
            """,  # noqa: S608 - own names
            {"tenant": tenant.pk, "start": start, "end": end, "wrong": list(_WENT_WRONG)},
        )
        return [Trouble(*row) for row in cursor.fetchall()]


def _calls(tenant: Tenant, found: Sequence[tuple[datetime, UUID]]) -> list[list[UsageRecord]]:
    if not found:
        return []
    times = [created_at for created_at, _pk in found]
    parts: dict[UUID, list[UsageRecord]] = {pk: [] for _at, pk in found}
    rows = UsageRecord.objects.filter(
        tenant_id=tenant.pk, request_id__in=list(parts), created_at__gte=min(times), created_at__lte=max(times)
    )
    for record in rows.order_by("part"):
        parts[record.request_id].append(record)
    return list(parts.values())
