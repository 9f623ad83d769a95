"""The ledger: post(events) inserts each event once and raises the rollups by what was new, in one transaction."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from django.db import DatabaseError, connection, transaction

from usage import months, rollups
from usage.copying import NULL, cells, copy, json_cell, time_cell
from usage.events import UsageEvent
from usage.spans import at

TRIES: Final = 3
COLUMNS: Final = (
    "request_id", "created_at", "tenant_id", "key_id", "prompt_tokens", "cached_tokens", "completion_tokens",
    "reserved_tokens", "cost_nano", "first_token_ms", "duration_ms", "queue_ms", "part", "status", "attempts", "stream",
    "clamped", "tenant", "key_name", "alias", "deployment", "backend", "outcome", "error_code", "usage_source",
    "client_request_id", "end_user", "metadata", "limits", "price", "policy", "auth_us", "policy_us", "admission_us",
)  # fmt: skip

_RACES: Final = ("23505", "40001", "40P01")  # unique violation, serialization failure, deadlock
# As uuid.UUID spells it: two spellings of one id would be two events. In lower case, as text, it also sorts like the uuid.
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")

_Id = tuple[str, int]  # request id, part


def post(events: Iterable[UsageEvent]) -> int:
    """Insert those of `events` that the ledger does not hold yet, and raise the rollups by them. How many were new.

    All or nothing, in one transaction; safe to repeat and to run twice at once. An event is known by request_id and part,
    and keeps its created_s. Raises ValueError, TypeError, django.db.DataError or IntegrityError for an event that cannot
    be stored, OperationalError or InterfaceError when PostgreSQL is out.
    """
    wanted: dict[_Id, UsageEvent] = {}
    for event in events:
        if not _UUID.match(event.request_id):
            raise ValueError("a request id is a UUID")
        wanted.setdefault((event.request_id, event.part), event)
    if not wanted:
        return 0
    months.ensure(map(at, {event.created_s // 86400 * 86400 for event in wanted.values()}))
    for count in range(1, TRIES + 1):
        try:
            with transaction.atomic():
                rollups.lock(alone=count > 1)
                return _post_new(wanted)
        except DatabaseError as error:
            if count == TRIES or _sqlstate(error) not in _RACES:
                raise
    raise AssertionError("the last try returns or raises")


def _post_new(wanted: Mapping[_Id, UsageEvent]) -> int:
    # Asking first and copying straight into the ledger takes 10 us an event less than a staging table and ON CONFLICT
    # (2026-11). Where two post the same at once the primary key decides, and the slower one asks again, alone.
    known = _known(wanted)
    new = {key: event for key, event in sorted(wanted.items(), key=lambda item: item[0]) if key not in known}
    if new:
        zones = rollups.zones({event.tenant_id for event in new.values()})
        copy(months.LEDGER, COLUMNS, map(_line, new.values()))
        rollups.raise_by(new.values(), zones)
    return len(new)


def _known(wanted: Mapping[_Id, UsageEvent]) -> set[_Id]:
    times = [event.created_s for event in wanted.values()]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT request_id::text, part FROM usage_usagerecord "
            "WHERE request_id = ANY(string_to_array(%s, ',')::uuid[]) AND created_at BETWEEN %s AND %s",
            [",".join(request_id for request_id, _ in wanted), at(min(times)), at(max(times))],
        )
        return set(cursor.fetchall())


def _line(e: UsageEvent) -> str:
    """One line of COPY's text format, in the order of COLUMNS."""
    texts = cells(
        e.tenant, e.key_name, e.alias, e.deployment or "", e.backend or "", e.outcome, e.error_code or "", e.usage_source,
        e.client_request_id or "", e.end_user or "",
    )  # fmt: skip
    return (
        f"{e.request_id}\t{time_cell(e.created_s)}\t{e.tenant_id}\t{e.key_id}\t{e.prompt_tokens}\t{e.cached_tokens}\t"
        f"{e.completion_tokens}\t{e.reserved_tokens}\t{e.cost_nano}\t{_or_null(e.first_token_ms)}\t{e.duration_ms}\t{e.queue_ms}\t{e.part}\t"
        f"{e.status}\t{e.attempts}\t{e.stream}\t{e.clamped}\t{texts}\t"
        f"{json_cell(e.metadata)}\t{json_cell(e.limits)}\t{json_cell(e.price)}\t{json_cell(e.policy)}\t"
        f"{_or_null(e.auth_us)}\t{_or_null(e.policy_us)}\t{_or_null(e.admission_us)}\n"
    )


def _or_null(number: int | None) -> str:
    return NULL if number is None else str(number)


def _sqlstate(error: DatabaseError) -> str | None:
    return getattr(error.__cause__, "sqlstate", None)
