"""Retention: usage older than its tenant keeps is deleted, and months that nobody keeps are dropped."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db import connection, transaction

from accounts.models import Tenant
from usage import labels, months, rollups
from usage.models import BackendHour, ReportingZone
from usage.rollups import ALL_KEYS, DAY_KEYS, TABLES, zone_named
from usage.spans import at, floor_s, next_s

MINUTES_KEPT_DAYS: Final = 8  # the finest rollups serve the charts of the last days; hours and days stay with the ledger
NO_TENANT_KEPT_DAYS: Final = 400  # where no tenant is left to say
_LABELS: Final = frozenset(labels.TABLES.values())
_TIME: Final[Mapping[str, str]] = {
    months.LEDGER: "created_at",
    **dict.fromkeys((*TABLES.values(), *ALL_KEYS.values(), DAY_KEYS, *labels.TABLES.values()), "starts_at"),
}


@dataclass(frozen=True, slots=True)
class Removed:
    """records, rollups: rows deleted. partitions: months dropped whole."""

    records: int
    rollups: int
    partitions: tuple[str, ...]


def enforce(now: datetime) -> Removed:
    """Delete what is past its time at `now`, by whole days of the tenant's reporting zone, so that totals stay whole.

    Usage of a tenant that was deleted stays as long as the longest that any tenant keeps.
    """
    kept_days = dict(Tenant.objects.values_list("pk", "usage_retention_days"))
    longest_days = max(kept_days.values(), default=NO_TENANT_KEPT_DAYS)
    dropped = months.drop_before(now - timedelta(days=longest_days + 1))
    BackendHour.objects.filter(starts_at__lt=now - timedelta(days=longest_days)).delete()
    records = rollups = 0
    for tenant_id, zone in ReportingZone.objects.values_list("tenant_id", "time_zone"):
        days = kept_days.get(tenant_id, longest_days)
        records += _delete(months.LEDGER, str(tenant_id), zone, now - timedelta(days=days))
        for table in (TABLES["day"], TABLES["hour"], ALL_KEYS["day"], ALL_KEYS["hour"], DAY_KEYS, *_LABELS):
            rollups += _delete(table, str(tenant_id), zone, now - timedelta(days=days))
        for table in (TABLES["minute"], ALL_KEYS["minute"]):
            rollups += _delete(table, str(tenant_id), zone, now - timedelta(days=min(days, MINUTES_KEPT_DAYS)))
    return Removed(records, rollups, tuple(dropped))


def _delete(table: str, tenant_id: str, zone_name: str, before: datetime) -> int:
    """Delete the tenant's rows from before the day that `before` is in, a day a transaction; how many."""
    column, zone = _TIME[table], zone_named(zone_name)
    end_s = floor_s("day", before.timestamp(), zone)
    deleted = 0
    with connection.cursor() as cursor:
        while True:
            cursor.execute(
                f"SELECT min({column}) FROM {table} WHERE tenant_id = %s AND {column} < %s",  # noqa: S608 - own names
                [tenant_id, at(end_s)],
            )
            oldest: tuple[datetime | None] = cursor.fetchone() or (None,)
            if oldest[0] is None:
                return deleted
            day_ends_s = min(end_s, next_s("day", floor_s("day", oldest[0].timestamp(), zone), zone))
            with transaction.atomic():
                # The ledger's trigger lets pass what is older than this, in this transaction.
                cursor.execute("SELECT set_config('sekisho.retain_from', %s, true)", [at(day_ends_s).isoformat()])
                cursor.execute(
                    f"DELETE FROM {table} WHERE tenant_id = %s AND {column} < %s",  # noqa: S608 - own names
                    [tenant_id, at(day_ends_s)],
                )
                deleted += cursor.rowcount


def forget(tenant_id: str, key_ids: Collection[str]) -> int:
    """Delete all usage by these keys of the tenant, from ledger and rollups; how many records. For made-up usage alone."""
    with transaction.atomic(), connection.cursor() as cursor:
        rollups.lock(alone=True)
        cursor.execute("SELECT set_config('sekisho.retain_from', '9999-01-01', true)")
        zone = ReportingZone.objects.filter(tenant_id=tenant_id).values_list("time_zone", flat=True).first() or "UTC"
        labels.forget(tenant_id, key_ids, zone_named(zone))
        deleted = 0
        for table in (months.LEDGER, *(TABLES[span] for span in rollups.SPANS)):
            cursor.execute(
                f"DELETE FROM {table} WHERE tenant_id = %s AND key_id = ANY(%s::uuid[])",  # noqa: S608 - own names
                [tenant_id, list(key_ids)],
            )
            deleted += cursor.rowcount if table == months.LEDGER else 0
        rollups.recut_sums(tenant_id, rollups.SPANS)
        rollups.recut_labels(tenant_id, zone)
        cursor.execute("SELECT set_config('sekisho.retain_from', '', true)")
    return deleted
