"""The worker's tasks: known to Celery and beat, and quiet while a store is out."""

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings
from django.db import connection
from django.utils import timezone

from accounts.models import Tenant
from portal import embedded
from portal.celery import app
from tests.usage.made import event, put_on_journal
from usage import months, tasks
from usage.lag import journal_lag
from usage.limits import BoundLimit, Limit
from usage.models import DayRollup, UsageRecord
from usage.partitions import PARTITIONS
from usage.quota import LEASE_S, Quota, Reservation, skeleton

NOW = timezone.now()


@pytest.fixture
def _absent_valkey(tmp_path: Path, settings: Any) -> None:
    settings.REDIS_URL = embedded.embedded_redis_url(tmp_path / "home")


def test_beat_asks_for_tasks_that_exist() -> None:
    app.loader.import_default_modules()
    asked = {entry["task"] for entry in django_settings.CELERY_BEAT_SCHEDULE.values()}
    assert asked <= set(app.tasks)
    assert {name for name in app.tasks if name.startswith("usage.tasks.")} <= asked
    assert all(entry["options"]["expires"] for entry in django_settings.CELERY_BEAT_SCHEDULE.values())


@pytest.mark.django_db
def test_journal_is_posted(valkey: redis.Redis, acme: Tenant) -> None:
    put_on_journal(valkey, event(acme, NOW))
    tasks.post_journal()
    assert UsageRecord.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.usefixtures("_absent_valkey")
def test_redis_out_ends_the_turn_quietly(caplog: pytest.LogCaptureFixture) -> None:
    tasks.post_journal()
    tasks.reap()
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


@pytest.mark.django_db(transaction=True)
def test_postgresql_out_ends_the_turn_and_keeps_the_journal(
    valkey: redis.Redis, acme: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    put_on_journal(valkey, event(acme, NOW))
    with pytest.MonkeyPatch.context() as patch:
        connection.close()
        patch.setitem(connection.settings_dict, "HOST", "/nowhere")
        tasks.post_journal()
    assert "The journal waits: OperationalError" in caplog.text
    assert journal_lag(valkey, now_s=NOW.timestamp()).entries == 1
    tasks.post_journal()
    assert UsageRecord.objects.count() == 1


@pytest.mark.django_db
def test_call_of_a_dead_worker_is_reaped_and_posted(valkey: redis.Redis, acme: Tenant) -> None:
    quota, began = Quota(valkey), NOW - timedelta(seconds=LEASE_S + 5)
    for number in range(PARTITIONS):
        quota.mark_alive(number, journal_end="0-0", now_s=began.timestamp())
    call = event(acme, began)
    held = quota.reserve(
        call.request_id, str(acme.pk), [BoundLimit("tenant", str(acme.pk), Limit("tokens_per_hour", 10_000))],
        prompt_tokens=100, output_tokens=50, cost_nano=0, time_zone=acme.time_zone, now_s=began.timestamp(),
        meta=skeleton(call),
    )  # fmt: skip
    assert isinstance(held, Reservation)
    tasks.reap()
    tasks.post_journal()
    record = UsageRecord.objects.get()
    assert (str(record.request_id), record.outcome, record.prompt_tokens) == (call.request_id, "lost", 100)
    assert DayRollup.objects.get().errors == 1


@pytest.mark.django_db
def test_daily_tasks_do_their_work(valkey: redis.Redis, acme: Tenant) -> None:
    put_on_journal(valkey, event(acme, NOW), event(acme, NOW - timedelta(days=500)))
    tasks.post_journal()
    tasks.make_partitions()
    tasks.enforce_retention()
    tasks.reconcile()
    assert UsageRecord.objects.count() == 1
    ahead = (NOW.replace(day=1) + timedelta(days=32)).strftime("%Y_%m")
    assert f"{months.LEDGER}_{ahead}" in months.partitions()
