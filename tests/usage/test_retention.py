"""Retention: each tenant's usage goes when its time is over, by whole days, and nothing else does."""

from datetime import UTC, datetime, timedelta

import pytest

from accounts.models import Tenant
from tests.usage.made import event
from usage import ledger, months, retention
from usage.models import DayRollup, HourRollup, MinuteRollup, UsageRecord
from usage.reports import usage_report

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 21, 3, tzinfo=UTC)  # noon in Tokyo


def keep(tenant: Tenant, days: int) -> None:
    Tenant.objects.filter(pk=tenant.pk).update(usage_retention_days=days)


def post_daily(tenant: Tenant, days: int) -> None:
    """Two calls a day, on today and each of `days` before."""
    ledger.post([event(tenant, NOW - timedelta(days=n, hours=h)) for n in range(days + 1) for h in (0, 1)])


def test_each_tenant_keeps_its_own_days(acme: Tenant, globex: Tenant) -> None:
    keep(acme, 5)
    keep(globex, 8)
    for tenant in (acme, globex):
        post_daily(tenant, 10)
    removed = retention.enforce(NOW)
    for tenant, days in ((acme, 6), (globex, 9)):
        assert UsageRecord.objects.filter(tenant_id=tenant.pk).count() == 2 * days
        assert HourRollup.objects.filter(tenant_id=tenant.pk).count() == 2 * days
        assert DayRollup.objects.filter(tenant_id=tenant.pk).count() == days
    assert (removed.records, removed.partitions) == (14, ())
    assert retention.enforce(NOW) == retention.Removed(0, 0, ())


def test_the_oldest_day_that_is_left_is_whole(acme: Tenant) -> None:
    keep(acme, 3)
    ledger.post([event(acme, NOW - timedelta(days=3, hours=hours)) for hours in range(24)])
    retention.enforce(NOW)
    oldest = NOW - timedelta(days=4)
    by_day, by_hour = (usage_report(acme, oldest, NOW, bucket=bucket)["total"]["requests"] for bucket in ("day", "hour"))
    assert by_day == by_hour == UsageRecord.objects.count() == 13


def test_minutes_go_after_some_days_and_their_hours_stay(acme: Tenant) -> None:
    post_daily(acme, 10)
    retention.enforce(NOW)
    assert MinuteRollup.objects.count() == 2 * (retention.MINUTES_KEPT_DAYS + 1)
    assert HourRollup.objects.count() == UsageRecord.objects.count() == 22


def test_months_nobody_keeps_are_dropped_whole(acme: Tenant, globex: Tenant) -> None:
    keep(acme, 5)
    keep(globex, 60)
    ledger.post([event(tenant, NOW - timedelta(days=days)) for tenant in (acme, globex) for days in (0, 50, 70, 100)])
    removed = retention.enforce(NOW)
    assert removed.partitions == (f"{months.LEDGER}_2026_08",)
    assert {(r.tenant, (NOW - r.created_at).days) for r in UsageRecord.objects.all()} == {
        ("acme", 0),
        ("globex", 0),
        ("globex", 50),
    }


def test_usage_of_a_deleted_tenant_stays_as_long_as_the_longest(acme: Tenant, globex: Tenant) -> None:
    keep(globex, 6)
    post_daily(acme, 10)
    acme.delete()
    retention.enforce(NOW)
    assert UsageRecord.objects.count() == 2 * 7


def test_days_are_the_tenants(acme: Tenant, globex: Tenant) -> None:
    keep(acme, 1)
    keep(globex, 1)
    Tenant.objects.filter(pk=globex.pk).update(time_zone="America/New_York")
    edge = datetime.fromisoformat("2026-11-20T00:00+09:00")  # a day before noon of the 21st in Tokyo is the 20th there
    for tenant in (acme, globex):
        ledger.post([event(tenant, edge - timedelta(seconds=1)), event(tenant, edge)])
    retention.enforce(NOW)
    left = UsageRecord.objects.values_list("tenant", "created_at")
    assert sorted(left) == [("acme", edge), ("globex", edge - timedelta(seconds=1)), ("globex", edge)]
