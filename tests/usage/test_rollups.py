"""Rollups: cut in the tenant's zone, cut anew when that changes, and always the sum of the ledger."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from accounts.models import Tenant
from tests.usage.made import OTHER_KEY_ID, event
from usage import ledger, rollups
from usage.histograms import bucket
from usage.models import DayRollup, HourRollup, MinuteRollup, ReportingZone

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def test_one_row_for_each_tenant_key_alias_backend_and_status(acme: Tenant, globex: Tenant) -> None:
    variants = [
        event(globex, NOON),
        event(acme, NOON, key_id=OTHER_KEY_ID),
        event(acme, NOON, alias="code"),
        event(acme, NOON, backend="gpu-2"),
        event(acme, NOON, backend=None, status=502, outcome="failed"),
        event(acme, NOON),
    ]
    ledger.post(variants)
    ledger.post([event(acme, NOON + timedelta(seconds=59))])
    for model in (MinuteRollup, HourRollup, DayRollup):
        counts = model.objects.filter(requests__gt=0).values_list("requests", flat=True)  # without those that only ran on
        assert sorted(counts) == [1, 1, 1, 1, 1, 2]


def test_spans_hold_what_began_in_them(acme: Tenant) -> None:
    ledger.post([event(acme, NOON + timedelta(minutes=20 * step)) for step in range(6)])
    counts = [
        list(model.objects.order_by("starts_at").values_list("requests", flat=True)) for model in (MinuteRollup, HourRollup)
    ]
    assert counts == [[1] * 6, [3, 3]]
    assert DayRollup.objects.get().requests == 6


def test_histograms_add_up_over_batches(acme: Tenant) -> None:
    for duration_ms in (50, 51, 5000):
        ledger.post([event(acme, NOON, duration_ms=duration_ms, first_token_ms=40)])
    day = DayRollup.objects.get()
    assert (day.durations[bucket(50)], day.durations[bucket(5000)], sum(day.durations)) == (2, 1, 3)
    assert (day.first_tokens[bucket(40)], sum(day.first_tokens)) == (3, 3)


def test_odd_names_reach_their_own_row(acme: Tenant) -> None:
    names = ["a\tb", "a\\b", "a\\tb", "\\N", "日本"]
    ledger.post([event(acme, NOON, alias=name, backend=name) for name in names])
    assert set(DayRollup.objects.values_list("alias", "backend")) == {(name, name) for name in names}


def test_days_follow_a_tenant_to_its_new_zone(acme: Tenant, globex: Tenant) -> None:
    for tenant in (acme, globex):
        ledger.post([event(tenant, NOON + timedelta(hours=2 * step), duration_ms=100 * step) for step in range(24)])
    before = list(DayRollup.objects.filter(tenant_id=globex.pk).values())
    acme.time_zone = "America/New_York"
    acme.save()

    assert rollups.realign() == 1
    assert rollups.realign() == 0
    assert ReportingZone.objects.get(tenant_id=acme.pk).time_zone == "America/New_York"
    days = DayRollup.objects.filter(tenant_id=acme.pk).order_by("starts_at")
    assert [(day.starts_at.hour, day.requests) for day in days] == [(5, 9), (5, 12), (5, 3)]
    hours = HourRollup.objects.filter(tenant_id=acme.pk)
    for name in ("durations", "first_tokens"):
        summed = [sum(column) for column in zip(*(getattr(day, name) for day in days), strict=True)]
        assert summed == [sum(column) for column in zip(*(getattr(hour, name) for hour in hours), strict=True)]
    assert list(DayRollup.objects.filter(tenant_id=globex.pk).values()) == before

    ledger.post([event(acme, NOON + timedelta(hours=46))])
    assert list(days.values_list("requests", flat=True)) == [9, 12, 4]


def test_a_zone_without_rollups_is_followed_too(acme: Tenant) -> None:
    ledger.post([event(acme, NOON)])
    HourRollup.objects.all().delete()
    Tenant.objects.filter(pk=acme.pk).update(time_zone="UTC")
    assert rollups.realign() == 1
    assert not DayRollup.objects.exists()


def test_a_name_that_is_no_zone_is_utc(acme: Tenant) -> None:
    Tenant.objects.filter(pk=acme.pk).update(time_zone="Mars/Olympus")
    assert ledger.post([event(acme, NOON)]) == 1
    assert DayRollup.objects.get().starts_at == datetime(2026, 11, 20, tzinfo=UTC)


def test_rollup_rows_are_updated_in_place(acme: Tenant) -> None:
    """No index holds what a posting changes, and the pages have room: otherwise the tables would swell with every second."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT reloptions FROM pg_class WHERE relname = ANY(%s)", [list(rollups.TABLES.values())])
        assert {options[0] for (options,) in cursor.fetchall()} == {"fillfactor=60"}

        def updates() -> tuple[int, ...]:
            """All of this transaction, and those of them in place."""
            cursor.execute(
                "SELECT pg_stat_get_xact_tuples_updated('usage_dayrollup'::regclass), "
                "pg_stat_get_xact_tuples_hot_updated('usage_dayrollup'::regclass)"
            )
            return cursor.fetchone() or ()

        cursor.execute("TRUNCATE usage_dayrollup")  # else the row may come to a page that earlier tests have filled
        before = updates()
        for _ in range(10):
            ledger.post([event(acme, NOON)])
        assert [after - count for after, count in zip(updates(), before, strict=True)] == [9, 9]


def test_calls_of_one_status_are_told_apart_by_their_ending(acme: Tenant) -> None:
    lost = event(acme, NOON, outcome="lost")
    ledger.post([
        event(acme, NOON),
        lost,
        event(acme, NOON, request_id=lost.request_id, part=1, prompt_tokens=5, completion_tokens=1),
        event(acme, NOON, outcome="client_left", error_code="client_left"),
        event(acme, NOON, outcome="completed", error_code="content_blocked"),
        event(acme, NOON, outcome="timeout"),
    ])  # fmt: skip
    for model in (MinuteRollup, HourRollup, DayRollup):
        rows = {row.ending: (row.requests, row.completion_tokens) for row in model.objects.all()}
        assert rows == {"completed": (1, 20), "client_left": (1, 20), "failed": (2, 41), "blocked": (1, 20)}


def test_streamed_answers_are_told_apart_from_whole_ones(acme: Tenant) -> None:
    ledger.post([event(acme, NOON), event(acme, NOON), event(acme, NOON, stream=False)])
    for model in (MinuteRollup, HourRollup, DayRollup):
        assert {row.stream: row.requests for row in model.objects.all()} == {"yes": 2, "no": 1}


def test_calls_that_run_count_in_every_minute_they_run_in(acme: Tenant) -> None:
    """And once: the calls of part 0, however long; a day's edge is one like any other."""
    edge = datetime(2026, 11, 20, 15, tzinfo=UTC)  # midnight in Tokyo
    ledger.post([
        event(acme, edge - timedelta(seconds=90), duration_ms=130_000), event(acme, edge - timedelta(seconds=90), part=1),
        event(acme, edge - timedelta(seconds=1), duration_ms=1000),
    ])  # fmt: skip
    minutes = {row.starts_at: row.busy_ms for row in MinuteRollup.objects.filter(busy_ms__gt=0, ending="completed")}
    assert minutes == {
        edge - timedelta(minutes=2): 30_000, edge - timedelta(minutes=1): 61_000, edge: 40_000,
    }  # fmt: skip
    for model in (HourRollup, DayRollup):
        days = list(model.objects.filter(ending="completed").order_by("starts_at").values_list("busy_ms", "requests"))
        assert days == [(91_000, 2), (40_000, 0)]
    assert sum(MinuteRollup.objects.values_list("busy_ms", flat=True)) == 131_000
