"""What went on lately, over all tenants: asked by operators, of the minute rollups, tenant by tenant for the index's sake."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import connection

from usage import histograms
from usage.rollups import SUMS, summed
from usage.series import Sums

_P95: Final = 0.95


@dataclass(frozen=True, slots=True)
class Calls:
    """Those that ended, and how many of them failed: not those that were refused or blocked."""

    requests: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """Where calls were refused for a limit."""

    tenant_id: UUID
    key_id: UUID
    alias: str


@dataclass(frozen=True, slots=True)
class Lately:
    """The same calls twice: by minute, and by tenant. What nobody used is left out."""

    minutes: Mapping[datetime, Sums]
    tenants: Mapping[UUID, Sums]

    @property
    def total(self) -> Sums:
        return sum(self.minutes.values(), Sums())


def lately(since: datetime) -> Lately:
    """Of all tenants, those that are gone too; one query."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT starts_at, minutes.tenant_id, {", ".join(f"sum({name})::bigint" for name in SUMS)}
            FROM usage_reportingzone AS zone
            CROSS JOIN LATERAL (
                SELECT tenant_id, starts_at, {", ".join(SUMS)} FROM usage_minuterollup
                WHERE tenant_id = zone.tenant_id AND starts_at >= %s OFFSET 0
            ) AS minutes
            GROUP BY GROUPING SETS ((starts_at), (minutes.tenant_id))
            """,  # noqa: S608 - own names
            [since],
        )
        found = cursor.fetchall()
    sums = [(starts_at, tenant_id, Sums(**dict(zip(SUMS, values, strict=True)))) for starts_at, tenant_id, *values in found]
    return Lately(
        {starts_at: one for starts_at, _, one in sums if starts_at is not None},
        {tenant_id: one for _, tenant_id, one in sums if tenant_id is not None},
    )


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


def calls_since(tenant_ids: Collection[UUID], since: datetime) -> dict[UUID, Calls]:
    """By tenant; those without a call since are left out."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT tenant_id, sum(requests)::bigint, sum(errors)::bigint FROM usage_minuterollup
            WHERE tenant_id = ANY(%s) AND starts_at >= %s GROUP BY tenant_id
            """,
            [list(tenant_ids), since],
        )
        return {tenant_id: Calls(requests, errors) for tenant_id, requests, errors in cursor.fetchall()}


def refused_since(tenant_ids: Collection[UUID], since: datetime) -> set[Refused]:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT DISTINCT tenant_id, key_id, alias FROM usage_minuterollup
            WHERE tenant_id = ANY(%s) AND starts_at >= %s AND status = 429 AND refused > 0
            """,
            [list(tenant_ids), since],
        )
        return {Refused(*row) for row in cursor.fetchall()}
