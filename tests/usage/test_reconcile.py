"""Reconciliation finds every difference between ledger, rollups and counters, and makes none up."""

from datetime import date, datetime, timedelta
from typing import Any

import pytest
import redis
from django.db import connection
from django.utils import timezone

from accounts import audit
from accounts.models import AuditEvent, Tenant
from tests.usage.made import KEY_ID, OTHER_KEY_ID, event, put_on_journal
from usage import ledger
from usage.limits import BoundLimit, Limit
from usage.models import DayAllKeys, DayKey, DayRollup, HourAllKeys, HourRollup, MinuteAllKeys, MinuteRollup
from usage.partitions import alive_key, partition
from usage.quota import Counter, Quota
from usage.reconcile import Drift, reconcile

pytestmark = pytest.mark.django_db
NOW = timezone.now()
NOW_S = NOW.timestamp()
DAY = (NOW - timedelta(hours=36)).date()
NOON = datetime.fromisoformat(f"{DAY}T12:00+09:00")


@pytest.fixture(autouse=True)
def _store(valkey: redis.Redis) -> None:
    """Emptied before and after each test."""


def use(tenant: Tenant) -> None:
    """Some calls of every kind on the day and on the days beside it."""
    kinds: list[dict[str, Any]] = [
        {}, {"outcome": "failed", "status": 502}, {"outcome": "refused", "status": 429}, {"outcome": "lost", "status": 500},
        {"outcome": "refused", "status": 403, "error_code": "content_blocked"}, {"part": 1},
        {"key_id": OTHER_KEY_ID, "alias": "code"},
    ]  # fmt: skip
    ledger.post([event(tenant, NOON + timedelta(hours=hours), **kind) for kind in kinds for hours in range(-24, 36, 5)])


def test_books_that_agree_have_no_drift(acme: Tenant, globex: Tenant) -> None:
    Tenant.objects.filter(pk=globex.pk).update(time_zone="Asia/Kolkata")
    use(acme)
    use(globex)
    report = reconcile(DAY, now_s=NOW_S)
    assert (report.day, report.tenants, report.drifts) == (DAY, 2, ())
    assert not AuditEvent.objects.exists()


@pytest.mark.parametrize(("model", "where"), [(MinuteRollup, "minute"), (HourRollup, "hour"), (DayRollup, "day")])
@pytest.mark.parametrize("name", ["requests", "errors", "refused", "blocked", "cached_tokens", "cost_nano"])
def test_rollup_that_differs_is_told(acme: Tenant, globex: Tenant, model: Any, where: str, name: str) -> None:
    use(acme)
    use(globex)
    row = model.objects.filter(tenant_id=acme.pk, starts_at__gte=NOON - timedelta(hours=12), key_id=OTHER_KEY_ID).order_by(
        "starts_at"
    )[0]
    setattr(row, name, getattr(row, name) + 3)
    row.save()
    (drift,) = reconcile(DAY, now_s=NOW_S).drifts
    assert (drift.where, drift.tenant_id, drift.name) == (where, str(acme.pk), name)
    assert drift.subject == f"key {OTHER_KEY_ID} alias code"
    assert drift.found - drift.ledger == 3
    told = AuditEvent.objects.get()
    assert (told.verb, told.after["first"][0]["where"]) == ("usage.drifted", where)
    assert audit.verify() is None


@pytest.mark.parametrize(
    ("model", "where", "subject"),
    [
        (MinuteAllKeys, "minute_all_keys", "alias code"),
        (HourAllKeys, "hour_all_keys", "alias code"),
        (DayAllKeys, "day_all_keys", "alias code"),
        (DayKey, "day_key", f"key {OTHER_KEY_ID}"),
    ],
)
def test_totals_of_all_keys_or_of_each_that_differ_are_told(acme: Tenant, model: Any, where: str, subject: str) -> None:
    use(acme)
    own = {"key_id": OTHER_KEY_ID} if model is DayKey else {"alias": "code"}
    row = model.objects.filter(starts_at__gte=NOON - timedelta(hours=12), **own).order_by("starts_at")[0]
    row.requests += 3
    row.save()
    (drift,) = reconcile(DAY, now_s=NOW_S).drifts
    assert (drift.where, drift.subject, drift.name, drift.found - drift.ledger) == (where, subject, "requests", 3)


def test_rollup_that_is_missing_and_one_without_records_are_told(acme: Tenant) -> None:
    use(acme)
    HourRollup.objects.filter(key_id=OTHER_KEY_ID).delete()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE usage_dayrollup SET alias = 'stray' WHERE alias = 'code'")
    drifts = reconcile(DAY, now_s=NOW_S).drifts
    assert {(drift.where, drift.subject.rpartition(" ")[2]) for drift in drifts} == {
        ("hour", "code"),
        ("day", "code"),
        ("day", "stray"),
    }


def test_minutes_that_are_gone_by_now_are_not_missed(acme: Tenant) -> None:
    use(acme)
    MinuteRollup.objects.all().delete()
    MinuteAllKeys.objects.all().delete()
    assert reconcile(DAY, now_s=NOW_S).drifts != ()
    assert reconcile(DAY, now_s=NOW_S + 20 * 86400).drifts == ()


def count(valkey: redis.Redis, tenant: Tenant, tokens: int, cost_nano: int) -> None:
    """As calls with these limits would have left them."""
    quota = Quota(valkey)
    quota.mark_alive(partition(str(tenant.pk)), journal_end=quota.journal_end(partition(str(tenant.pk))), now_s=NOW_S)
    quota.restore(
        str(tenant.pk),
        [
            Counter("key", KEY_ID, "tokens_per_month", tokens, NOW_S),
            Counter("tenant", str(tenant.pk), "money_per_month", cost_nano, NOW_S),
            Counter("alias", "a:b/c", "tokens_per_month", 0, NOW_S),
        ],
        time_zone=tenant.time_zone,
        now_s=NOW_S,
    )


def test_counters_of_the_month_are_compared_with_what_is_journaled_too(valkey: redis.Redis, acme: Tenant) -> None:
    ledger.post([event(acme, NOW)])
    put_on_journal(valkey, event(acme, NOW))
    count(valkey, acme, 240, 3_000_000)
    report = reconcile(DAY, now_s=NOW_S)
    assert (report.counters, report.drifts) == (3, ())


def test_counter_that_differs_is_told(valkey: redis.Redis, acme: Tenant) -> None:
    ledger.post([event(acme, NOW)])
    count(valkey, acme, 121, 1_499_999)
    drifts = reconcile(DAY, now_s=NOW_S).drifts
    assert set(drifts) == {
        Drift("counter", str(acme.pk), f"key {KEY_ID}", "tokens_per_month", 120, 121),
        Drift("counter", str(acme.pk), f"tenant {acme.pk}", "money_per_month", 1_500_000, 1_499_999),
    }


def test_counters_of_a_tenant_that_is_gone_are_left_alone(valkey: redis.Redis, acme: Tenant) -> None:
    count(valkey, acme, 5, 5)
    acme.delete()
    assert reconcile(DAY, now_s=NOW_S).counters == 0


def test_counters_being_restored_are_left_alone(valkey: redis.Redis, acme: Tenant) -> None:
    count(valkey, acme, 5, 5)
    valkey.delete(alive_key(partition(str(acme.pk))))
    assert reconcile(DAY, now_s=NOW_S).drifts == ()


def test_state_of_a_made_up_limit_reads_the_counter(valkey: redis.Redis, acme: Tenant) -> None:
    count(valkey, acme, 5, 5)
    bound = BoundLimit("key", KEY_ID, Limit("tokens_per_month", 0))
    (state,) = Quota(valkey).state(str(acme.pk), [bound], time_zone=acme.time_zone, now_s=NOW_S)
    assert state.used == 5


def test_any_day_can_be_asked_for(acme: Tenant) -> None:
    use(acme)
    assert reconcile(date(2020, 2, 29), now_s=NOW_S).drifts == ()
