"""Made-up use: believable, marked, made once, and taken away without a trace on what is real."""

from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts import issuing
from accounts.models import ApiKey, AuditEvent, Tenant
from portal import demo, demo_usage
from tests.usage.made import event
from usage import ledger
from usage.models import DayAllKeys, DayKey, DayRollup, HourAllKeys, HourRollup, MinuteAllKeys, MinuteRollup, UsageRecord

pytestmark = pytest.mark.django_db


@pytest.fixture
def tenant() -> Tenant:
    return demo.seed_tenant("http://127.0.0.1:8002")


@pytest.fixture(autouse=True)
def few_days(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_usage, "DAYS", 10)


def test_use_is_made_up_once_and_marked(tenant: Tenant) -> None:
    call_command("demo_usage")
    records = UsageRecord.objects.all()
    other = Tenant.objects.get(slug=demo_usage.OTHER)
    assert other.is_demo
    assert {record.tenant_id for record in records} == {tenant.pk, other.pk}
    assert all(record.metadata["demo"] == "made up" for record in records)
    assert {"completed", "failed", "refused"} <= {record.outcome for record in records}
    assert all(record.created_at < timezone.now() for record in records)
    assert sum(row.requests for row in HourRollup.objects.all()) == len(records)
    with pytest.raises(CommandError, match="made-up use already"):
        call_command("demo_usage")


def test_weekends_are_quiet(tenant: Tenant) -> None:
    demo_usage.seed(timezone.now())
    zone = ZoneInfo(tenant.time_zone)
    days = DayRollup.objects.filter(tenant_id=tenant.pk).values_list("starts_at", "requests")
    totals: dict[date, int] = {}
    for starts_at, requests in days:
        day = starts_at.astimezone(zone).date()
        totals[day] = totals.get(day, 0) + requests
    whole = sorted(totals)[1:-1]
    office = [totals[day] for day in whole if day.weekday() < 5]
    assert max(totals[day] for day in whole if day.weekday() >= 5) < sum(office) / len(office) / 2


def test_removal_leaves_what_is_real(tenant: Tenant) -> None:
    key, _text = issuing.issue(tenant, issuing.Terms("real"), actor=None, actor_label="test")
    ago = timezone.now().replace(second=0) - timedelta(
        hours=3
    )  # else the call may run into a second minute, and have a row there
    real = event(tenant, ago, key_id=str(key.pk))
    ledger.post([real])
    call_command("demo_usage")
    call_command("demo_usage", "--remove")
    assert [str(record.request_id) for record in UsageRecord.objects.all()] == [real.request_id]
    for model in (MinuteRollup, HourRollup, DayRollup, MinuteAllKeys, HourAllKeys, DayAllKeys, DayKey):
        rows: Any = model.objects.all()
        assert [row.requests for row in rows] == [1]
    assert [key.name for key in ApiKey.objects.usable()] == ["real"]
    assert not Tenant.objects.filter(slug=demo_usage.OTHER).exists()
    assert AuditEvent.objects.filter(verb="tenant.deleted").count() == 1
    call_command("demo_usage")


def test_without_the_demo_tenant_nothing_is_made_up(acme: Tenant) -> None:
    with pytest.raises(CommandError, match="no demo tenant"):
        call_command("demo_usage")
    assert not UsageRecord.objects.exists()
    assert Tenant.objects.get() == acme


def test_real_tenant_of_that_name_is_left_alone(tenant: Tenant) -> None:
    real = Tenant.objects.create(slug=demo_usage.OTHER, name="Ours")
    with pytest.raises(CommandError, match="a real one"):
        call_command("demo_usage")
    call_command("demo_usage", "--remove")
    assert Tenant.objects.filter(pk=real.pk).exists()
    assert Tenant.objects.filter(pk=tenant.pk).exists()
