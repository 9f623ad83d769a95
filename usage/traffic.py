"""What went on lately, over all tenants: asked by operators, of the minute rollups, tenant by tenant for the index's sake."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import connection

from usage import histograms
from usage.rollups import summed

_P95: Final = 0.95


def first_tokens_ms(since: datetime) -> dict[str, float]:
    """The 95th percentile of the time to the first token, by backend; those without a streamed call since are left out."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT backend, {summed("first_tokens")} FROM accounts_tenant AS tenant
            CROSS JOIN LATERAL (
                SELECT backend, first_tokens FROM usage_minuterollup
                WHERE tenant_id = tenant.id AND starts_at >= %s OFFSET 0
            ) AS minutes
            WHERE backend <> '' GROUP BY backend
            """,  # noqa: S608 - own names
            [since],
        )
        found = cursor.fetchall()
    told = {backend: histograms.percentile(counts, _P95) for backend, counts in found}
    return {backend: value for backend, value in told.items() if value is not None}


def calls_of_aliases(named: Mapping[UUID, Collection[str]], since: datetime) -> dict[tuple[UUID, str], int]:
    """How many calls ended, by tenant and alias. named: which aliases of which tenants."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT tenant_id, alias, sum(requests)::bigint FROM usage_minuterollup
            WHERE tenant_id = ANY(%s) AND alias = ANY(%s) AND starts_at >= %s GROUP BY tenant_id, alias
            """,
            [list(named), sorted({alias for aliases in named.values() for alias in aliases}), since],
        )
        return {(tenant_id, alias): calls for tenant_id, alias, calls in cursor.fetchall()}


@dataclass(frozen=True, slots=True)
class Counted:
    """Of one subject. requests, tokens: in each minute, oldest first, 0 where nothing was."""

    requests: tuple[int, ...]
    tokens: tuple[int, ...]


def last_minutes(tenant_id: UUID, subjects: Sequence[tuple[str, str]], until: datetime, count: int) -> list[Counted]:
    """The `count` whole minutes before that of `until`, of each (subject, its id) as in BoundLimit. One query."""
    if not subjects:
        return []
    end = until.replace(second=0, microsecond=0)
    start = end - timedelta(minutes=count)
    chosen: list[str] = []
    values: dict[str, Any] = {}
    for place, (subject, subject_id) in enumerate(subjects):
        condition = {"key": f"key_id = %(id{place})s::uuid", "alias": f"alias = %(id{place})s"}.get(subject, "true")
        values[f"id{place}"] = subject_id
        amounts = ("requests", "prompt_tokens + completion_tokens")
        chosen += [f"coalesce(sum({amount}) FILTER (WHERE {condition}), 0)::bigint" for amount in amounts]
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT starts_at, {", ".join(chosen)} FROM usage_minuterollup
            WHERE tenant_id = %(tenant)s AND starts_at >= %(start)s AND starts_at < %(end)s GROUP BY starts_at
            """,  # noqa: S608 - own names
            {"tenant": tenant_id, "start": start, "end": end, **values},
        )
        found = {starts_at: amounts for starts_at, *amounts in cursor.fetchall()}
    nothing = [0] * len(chosen)
    rows = [found.get(start + timedelta(minutes=n), nothing) for n in range(count)]
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(chosen)
    return [Counted(columns[2 * place], columns[2 * place + 1]) for place in range(len(subjects))]
