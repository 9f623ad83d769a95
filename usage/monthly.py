"""Months as they are billed: of each tenant by its own clock, summed from the days of its rollups. Never reads a record."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import connection

from accounts.models import Tenant
from usage.models import DayAllKeys, ReportingZone
from usage.rollups import zone_named
from usage.series import Asked, Dimension, Sums, ranks, table, totals
from usage.spans import at, floor_s, next_s
from usage.totals import ANY, SUMS


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """Of the calendar. Its text is ISO 8601's: 2026-11."""

    year: int
    number: int

    @classmethod
    def of(cls, day: date) -> "Month":
        return cls(day.year, day.month)

    @property
    def first(self) -> date:
        return date(self.year, self.number, 1)

    @property
    def previous(self) -> "Month":
        return Month.of(self.first - timedelta(days=1))

    @property
    def next(self) -> "Month":
        return Month.of(self.first + timedelta(days=32))

    def bounds(self, zone: ZoneInfo) -> tuple[datetime, datetime]:
        """Its first moment by the clock of `zone`, and that of the next month."""
        start_s = floor_s("month", datetime(self.year, self.number, 15, tzinfo=zone).timestamp(), zone)
        return at(start_s).astimezone(zone), at(next_s("month", start_s, zone)).astimezone(zone)

    def __str__(self) -> str:
        return f"{self.year:04}-{self.number:02}"


@dataclass(frozen=True, slots=True)
class MonthOfTenant:
    """start, end: aware, in the tenant's zone."""

    month: Month
    zone: ZoneInfo
    start: datetime
    end: datetime
    asked: Asked

    @property
    def total(self) -> Sums:
        """One query."""
        return totals(self.asked, latencies=False).get("", Sums())

    def most(self, dimension: Dimension, count: int, *, by: Sequence[str]) -> tuple[dict[str, Sums], int]:
        """Of the aliases or keys those that used most, first the one with most; and how many others used anything.

        by: of what. Two queries.
        """
        found = ranks(self.asked, dimension, by=[by, ("requests",), ("prompt_tokens", "completion_tokens", "cost_nano")])
        ranked = sorted((name for name in found if any(found[name])), key=lambda name: (-found[name][0], -found[name][1], name))
        sums = totals(self.asked, dimension, only=ranked[:count], latencies=False)
        return {name: sums[name] for name in ranked[:count] if name in sums}, len(ranked[count:])

    def lines(self) -> dict[tuple[str, str], Sums]:
        """By alias and key's id together. One query."""
        return {(alias, key): sums for (alias, key), sums in table(self.asked, ("alias", "key")).items()}


def month_of_tenant(tenant: Tenant, month: Month, zone: ZoneInfo) -> MonthOfTenant:
    """zone: of the tenant's rollups. No query: those are of what is asked of the answer."""
    start, end = month.bounds(zone)
    return MonthOfTenant(month, zone, start, end, Asked((str(tenant.pk),), zone, start, end, "month"))


def month_of_all(month: Month) -> dict[UUID, Sums]:
    """Of every tenant that used something in its own month, also of those that are gone. Two queries."""
    zones = list(ReportingZone.objects.values_list("tenant_id", "time_zone"))
    bounds = [month.bounds(zone_named(name)) for _, name in zones]
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT tenant_id, {", ".join(f"sum({name})::bigint" for name in SUMS)}
            FROM unnest(%s::uuid[], %s::timestamptz[], %s::timestamptz[]) AS wanted (id, starts, ends)
                JOIN usage_dayallkeys ON tenant_id = id AND starts_at >= starts AND starts_at < ends
            GROUP BY tenant_id HAVING {ANY}
            """,  # noqa: S608 - own names
            [[pk for pk, _ in zones], [start for start, _ in bounds], [end for _, end in bounds]],
        )
        return {pk: Sums(**dict(zip(SUMS, values, strict=True))) for pk, *values in cursor.fetchall()}


def first_month(tenant: Tenant, zone: ZoneInfo) -> Month | None:
    """By the clock of `zone` the earliest that has figures; None: nothing was used yet."""
    earliest = DayAllKeys.objects.filter(tenant_id=tenant.pk).order_by("starts_at").values_list("starts_at", flat=True).first()
    return Month.of(earliest.astimezone(zone).date()) if earliest else None


def first_month_of_all() -> Month | None:
    """Of all tenants, by UTC. A look into the index for each, for there is none by time alone."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT min(first.starts_at) FROM usage_reportingzone AS zone CROSS JOIN LATERAL (
                SELECT starts_at FROM usage_dayallkeys AS day WHERE day.tenant_id = zone.tenant_id ORDER BY starts_at LIMIT 1
            ) AS first
            """
        )
        (earliest,) = cursor.fetchone() or (None,)
    return Month.of(earliest.date()) if earliest else None
