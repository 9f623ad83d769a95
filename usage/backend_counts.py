"""What backends count themselves, by hour, out of counters that only rise; and the ledger's own count beside it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from django.db import connection, transaction

from usage.models import BackendHour, BackendReading
from usage.spans import at

HOUR_S: Final = 3600
GAP_MOST_S: Final = 7 * 86_400  # between two readings: over more it is anybody's guess in which hours it was
STARTED_SAME_S: Final = 2.0  # a process tells its start again to the second
AMOUNTS: Final = ("prompt_tokens", "completion_tokens", "requests")


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters since a process began at started_s, Unix seconds; None where it does not say."""

    prompt_tokens: int
    completion_tokens: int
    requests: int
    started_s: float | None


@dataclass(slots=True)
class Counted:
    """By the ledger (hours of the rollups) and by the backend itself. covered_s: of the time, in how much it was read.

    left_tokens: of the ledger's, those of calls whose client left, which may be estimates.
    """

    ledger_prompt: int = 0
    ledger_completion: int = 0
    left_tokens: int = 0
    own_prompt: int = 0
    own_completion: int = 0
    covered_s: int = 0
    resets: int = 0


@dataclass(slots=True)
class OfBackend:
    """In all, and by the hour's start in Unix seconds."""

    total: Counted = field(default_factory=Counted)
    hours: dict[int, Counted] = field(default_factory=dict)


@transaction.atomic
def note(backend: str, reading: Reading, read_at: datetime) -> None:
    """Add what was counted since the last reading to the hours in between, by their share of the time.

    A process that began anew counts from nothing: what the old one counted after its last reading is not known.
    """
    last = BackendReading.objects.select_for_update().filter(pk=backend).first()
    if last is not None and last.read_at >= read_at:
        return
    values = {name: getattr(reading, name) for name in AMOUNTS}
    BackendReading.objects.update_or_create(
        backend=backend, defaults={"read_at": read_at, "started_s": reading.started_s, **values}
    )
    if last is None or (read_at - last.read_at).total_seconds() > GAP_MOST_S:
        return
    from_s, until_s = last.read_at.timestamp(), read_at.timestamp()
    if is_reset := _is_another(last, reading):
        if reading.started_s is not None and from_s < reading.started_s < until_s:
            from_s = reading.started_s
    else:
        values = {name: value - getattr(last, name) for name, value in values.items()}
    shares = {name: list(_spread(value, from_s, until_s)) for name, value in values.items()}
    covered = list(_spread(round(until_s - from_s), from_s, until_s))
    for place, (hour_s, seconds) in enumerate(covered):
        amounts = [shares[name][place][1] for name in AMOUNTS]
        _raise(backend, hour_s, amounts, seconds, resets=int(is_reset and place == len(covered) - 1))


def compared(start: datetime, end: datetime) -> dict[str, OfBackend]:
    """By backend, also one that is in the ledger or in the readings alone. start, end: whole hours. Two queries.

    The hours of a tenant whose zone is half an hour off count in the hour of UTC in which they begin.
    """
    found: dict[str, OfBackend] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT backend, extract(epoch FROM date_trunc('hour', starts_at))::bigint, sum(prompt_tokens)::bigint,
                sum(completion_tokens)::bigint,
                coalesce(sum(prompt_tokens + completion_tokens) FILTER (WHERE ending = 'client_left'), 0)::bigint
            FROM usage_reportingzone AS zone CROSS JOIN LATERAL (
                SELECT backend, starts_at, prompt_tokens, completion_tokens, ending FROM usage_hourrollup
                WHERE tenant_id = zone.tenant_id AND starts_at >= %s AND starts_at < %s AND backend <> '' OFFSET 0
            ) AS hours GROUP BY 1, 2
            """,
            [start, end],
        )
        for backend, hour_s, prompt, completion, left in cursor.fetchall():
            for counted in _both(found, backend, hour_s):
                counted.ledger_prompt += prompt
                counted.ledger_completion += completion
                counted.left_tokens += left
    for row in BackendHour.objects.filter(starts_at__gte=start, starts_at__lt=end):
        for counted in _both(found, row.backend, int(row.starts_at.timestamp())):
            counted.own_prompt += row.prompt_tokens
            counted.own_completion += row.completion_tokens
            counted.covered_s += row.covered_s
            counted.resets += row.resets
    return found


def _both(found: dict[str, OfBackend], backend: str, hour_s: int) -> tuple[Counted, Counted]:
    of_it = found.setdefault(backend, OfBackend())
    return of_it.total, of_it.hours.setdefault(hour_s, Counted())


def _is_another(last: BackendReading, reading: Reading) -> bool:
    """Is it another process than at the last reading? Where it does not say, a counter that fell tells."""
    is_told = last.started_s is not None and reading.started_s is not None
    if is_told and abs((last.started_s or 0) - (reading.started_s or 0)) > STARTED_SAME_S:
        return True
    return any(getattr(reading, name) < getattr(last, name) for name in AMOUNTS)


def _spread(amount: int, from_s: float, until_s: float) -> Iterator[tuple[int, int]]:
    """`amount` over the hours that from_s..until_s touches, in whole numbers that add up to it."""
    given, hour_s = 0, int(from_s // HOUR_S) * HOUR_S
    while hour_s < until_s:
        done = min(until_s, hour_s + HOUR_S) - from_s
        upto = round(amount * done / (until_s - from_s))
        yield hour_s, upto - given
        given, hour_s = upto, hour_s + HOUR_S


def _raise(backend: str, hour_s: int, amounts: list[int], covered_s: int, *, resets: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO usage_backendhour AS held
                (backend, starts_at, prompt_tokens, completion_tokens, requests, covered_s, resets)
            VALUES (%s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (backend, starts_at) DO UPDATE SET prompt_tokens = held.prompt_tokens + EXCLUDED.prompt_tokens,
                completion_tokens = held.completion_tokens + EXCLUDED.completion_tokens,
                requests = held.requests + EXCLUDED.requests, covered_s = held.covered_s + EXCLUDED.covered_s,
                resets = held.resets + EXCLUDED.resets
            """,
            [backend, at(hour_s), *amounts, covered_s, resets],
        )
