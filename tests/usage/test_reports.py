"""Reports: in the tenant's own days, by its own groups, of its own calls only."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from accounts.models import ApiKey, Tenant
from tests.usage.made import KEY_ID, OTHER_KEY_ID, event
from usage import ledger, rollups
from usage.events import UsageEvent
from usage.models import UsageRecord
from usage.reports import ReportTooLarge, latency_report, policy_report, request_report, units, usage_report

pytestmark = pytest.mark.django_db
MORNING = datetime.fromisoformat("2026-11-21T08:30:00+09:00")


def counts(report: dict[str, Any], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in (*names, "requests")) for row in report["data"]]


def test_body_is_that_of_the_contract(acme: Tenant) -> None:
    ledger.post([
        event(acme, MORNING, cost_nano=1_500_000_000),
        event(acme, MORNING, outcome="failed", status=502, prompt_tokens=0, cached_tokens=0, completion_tokens=0, cost_nano=0),
    ])  # fmt: skip
    sums = {
        "requests": 2, "prompt_tokens": 100, "cached_tokens": 40, "completion_tokens": 20, "total_tokens": 120,
        "errors": 1, "refused": 0, "blocked": 0, "cost": "1.5",
    }  # fmt: skip
    assert usage_report(acme, now=MORNING + timedelta(minutes=5)) == {
        "object": "usage",
        "time_zone": "Asia/Tokyo",
        "data": [{"start": "2026-11-21T08:00:00+09:00", "end": "2026-11-21T09:00:00+09:00", **sums}],
        "total": sums,
    }


def test_nothing_used_is_an_empty_list_and_zeros(acme: Tenant) -> None:
    report = usage_report(acme, now=MORNING)
    assert report["data"] == []
    assert report["total"]["requests"] == 0
    assert report["total"]["cost"] == "0"


def test_default_is_the_last_24_hours_by_hour(acme: Tenant) -> None:
    ledger.post([event(acme, MORNING - timedelta(hours=hours)) for hours in (0, 1, 23, 24, 25, 26)])
    assert len(usage_report(acme, now=MORNING)["data"]) == 4


def test_half_past_eight_in_tokyo_is_today_there(acme: Tenant) -> None:
    """By UTC it is still yesterday."""
    ledger.post([event(acme, MORNING), event(acme, MORNING - timedelta(hours=9))])
    midnight = MORNING.replace(hour=0, minute=0)
    today = usage_report(acme, midnight, MORNING, bucket="day")
    assert [row["start"] for row in today["data"]] == ["2026-11-21T00:00:00+09:00"]
    assert today["total"]["requests"] == 1


def test_times_without_a_zone_are_the_tenants(acme: Tenant) -> None:
    ledger.post([event(acme, MORNING)])
    day = usage_report(acme, datetime(2026, 11, 21), datetime(2026, 11, 22), bucket="day")  # noqa: DTZ001 - the case
    assert counts(day, "end") == [("2026-11-22T00:00:00+09:00", 1)]


def test_range_is_widened_to_whole_buckets(acme: Tenant) -> None:
    ledger.post([event(acme, MORNING - timedelta(minutes=20)), event(acme, MORNING + timedelta(minutes=20))])
    assert usage_report(acme, MORNING, MORNING + timedelta(seconds=1))["total"]["requests"] == 2
    assert usage_report(acme, MORNING, MORNING + timedelta(seconds=1), bucket="minute")["total"]["requests"] == 0


def test_end_is_not_in_the_range(acme: Tenant) -> None:
    ledger.post([event(acme, MORNING.replace(hour=9, minute=0))])
    assert usage_report(acme, MORNING, MORNING.replace(hour=9, minute=0))["data"] == []


@pytest.mark.parametrize(("day", "hours"), [("2026-03-08", 23), ("2026-11-01", 25)])
def test_days_of_summer_time_hold_all_their_hours(acme: Tenant, day: str, hours: int) -> None:
    Tenant.objects.filter(pk=acme.pk).update(time_zone="America/New_York")
    acme.refresh_from_db()
    start = datetime.fromisoformat(f"{day}T00:00-0{4 if hours == 25 else 5}:00")
    ledger.post([event(acme, start + timedelta(hours=n, minutes=30)) for n in range(-1, hours + 1)])
    by_hour = usage_report(acme, start, start + timedelta(hours=hours))
    by_day = usage_report(acme, start, start + timedelta(hours=hours), bucket="day")
    assert len({(row["start"], row["end"]) for row in by_hour["data"]}) == hours
    assert counts(by_day) == [(hours,)]
    assert by_hour["total"] == by_day["total"]


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "Asia/Kathmandu"])
def test_hours_and_days_of_odd_zones_are_theirs(acme: Tenant, zone: str) -> None:
    Tenant.objects.filter(pk=acme.pk).update(time_zone=zone)
    acme.refresh_from_db()
    midnight = datetime.fromisoformat("2026-11-21T00:00+05:30" if zone == "Asia/Kolkata" else "2026-11-21T00:00+05:45")
    ledger.post(
        [event(acme, midnight - timedelta(minutes=1)), event(acme, midnight), event(acme, midnight + timedelta(minutes=59))]
    )
    span = (midnight - timedelta(days=1), midnight + timedelta(days=1))
    for bucket, expected in (("hour", [1, 2]), ("day", [1, 2]), ("month", [3])):
        report = usage_report(acme, *span, bucket=bucket)  # type: ignore[arg-type]
        assert [row["requests"] for row in report["data"]] == expected
        assert all(
            row["start"].endswith(midnight.strftime("%z")[:3] + ":" + midnight.strftime("%z")[3:]) for row in report["data"]
        )


def test_months_are_the_tenants(acme: Tenant) -> None:
    edge = datetime.fromisoformat("2026-11-01T00:00+09:00")
    ledger.post([event(acme, edge - timedelta(seconds=1)), event(acme, edge), event(acme, MORNING)])
    report = usage_report(acme, edge - timedelta(days=1), MORNING, bucket="month")
    assert counts(report, "start") == [("2026-10-01T00:00:00+09:00", 1), ("2026-11-01T00:00:00+09:00", 2)]


def test_groups_in_any_combination(acme: Tenant, acme_key: tuple[ApiKey, str]) -> None:
    key_id = str(acme_key[0].pk)
    ledger.post([
        event(acme, MORNING, key_id=key_id),
        event(acme, MORNING, key_id=key_id, alias="code"),
        event(acme, MORNING, key_id=OTHER_KEY_ID, status=429, outcome="refused"),
    ])  # fmt: skip
    span = (MORNING, MORNING + timedelta(minutes=1))
    assert sorted(counts(usage_report(acme, *span, group_by=["alias"]), "alias")) == [("code", 1), ("general", 2)]
    assert sorted(counts(usage_report(acme, *span, group_by=["status"]), "status")) == [(200, 2), (429, 1)]
    by_key = usage_report(acme, *span, group_by=["key"])
    assert set(counts(by_key, "key", "key_name")) == {(key_id, "ci", 2), (OTHER_KEY_ID, None, 1)}
    by_all = usage_report(acme, *span, group_by=["status", "key", "alias"])
    assert len(by_all["data"]) == 3
    assert by_all["total"] == by_key["total"]
    assert [name for name in by_all["data"][0] if name in ("alias", "key", "status")] == ["alias", "key", "status"]


def test_stranger_and_other_keys_see_nothing_of_it(acme: Tenant, globex: Tenant) -> None:
    mine = event(acme, MORNING)
    ledger.post([mine, event(acme, MORNING, key_id=OTHER_KEY_ID)])
    assert usage_report(globex, now=MORNING)["data"] == []
    assert usage_report(acme, now=MORNING, key_id=OTHER_KEY_ID)["total"]["requests"] == 1
    assert request_report(mine.request_id, globex) is None
    assert request_report(mine.request_id, acme, key_id=OTHER_KEY_ID) is None
    assert request_report(mine.request_id, acme, key_id=KEY_ID) is not None
    assert latency_report(globex, now=MORNING) == []


def test_reports_agree_with_the_zone_the_rollups_are_cut_in(acme: Tenant) -> None:
    """Between the change of a tenant's zone and the worker's next second, both are the old one's."""
    ledger.post([event(acme, MORNING)])
    acme.time_zone = "America/New_York"
    acme.save()
    span = (MORNING - timedelta(days=1), MORNING + timedelta(days=1))
    before = usage_report(acme, *span, bucket="day")
    rollups.realign()
    after = usage_report(acme, *span, bucket="day")
    assert (before["time_zone"], counts(before, "start")) == ("Asia/Tokyo", [("2026-11-21T00:00:00+09:00", 1)])
    assert (after["time_zone"], counts(after, "start")) == ("America/New_York", [("2026-11-20T00:00:00-05:00", 1)])


@pytest.mark.parametrize(
    ("start", "end", "bucket", "error"),
    [
        (MORNING, MORNING, "hour", ValueError),
        (MORNING, MORNING - timedelta(hours=1), "hour", ValueError),
        (MORNING - timedelta(days=365), MORNING, "minute", ReportTooLarge),
        (datetime(1, 1, 1, tzinfo=UTC), MORNING, "hour", ReportTooLarge),
        (datetime(9999, 12, 31, tzinfo=UTC), datetime(9999, 12, 31, 23, tzinfo=UTC), "month", ValueError),
    ],
)
def test_ranges_nobody_can_mean_are_refused(
    acme: Tenant, start: datetime, end: datetime, bucket: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        usage_report(acme, start, end, bucket=bucket)


def test_percentiles_merge_over_minutes_keys_and_backends(acme: Tenant) -> None:
    calls = [
        event(acme, MORNING + timedelta(seconds=n), duration_ms=100 * (n + 1), first_token_ms=n + 1, backend=f"gpu-{n % 3}",
              key_id=(KEY_ID, OTHER_KEY_ID)[n % 2])
        for n in range(100)
    ]  # fmt: skip
    ledger.post([*calls, event(acme, MORNING, outcome="refused", status=429, duration_ms=1, first_token_ms=None)])
    (row,) = latency_report(acme, now=MORNING, bucket="day", fractions=(0.5, 0.99))
    assert row["duration_ms"] == [pytest.approx(5000, rel=0.1), pytest.approx(9900, rel=0.1)]
    assert row["first_token_ms"] == [pytest.approx(50, rel=0.1), pytest.approx(99, rel=0.1)]
    refused = [r for r in latency_report(acme, now=MORNING, group_by=["status"]) if r["status"] == 429]
    assert [r["duration_ms"] for r in refused] == [[None, None, None]]


def test_request_is_told_as_it_went(acme: Tenant) -> None:
    seen = [{"subject": "key", "name": "ci", "limit": "tokens_per_hour", "used": 1, "reserved": 2, "max": 3, "mode": "enforce"}]
    call = event(acme, MORNING, limits=seen, queue_ms=7)
    ledger.post([call])
    assert request_report(call.request_id, acme) == {
        "object": "request", "id": call.request_id, "created": int(call.created_s), "alias": "general", "status": 200,
        "outcome": "completed", "error_code": None, "stream": True,
        "usage": {"prompt_tokens": 100, "cached_tokens": 40, "completion_tokens": 20, "total_tokens": 120, "source": "backend"},
        "cost": "0.0015", "queue_ms": 7, "first_token_ms": 200, "duration_ms": 1500, "limits": seen,
        "policy": [], "policy_more": 0,
    }  # fmt: skip


def decision(rule: str = "1", action: str = "flag", **more: Any) -> dict[str, Any]:
    policy = {"policy": "no-secrets", "version": 2, "rule": rule, "kind": "keywords", "action": action, "surface": "input.user"}
    return policy | more


def test_request_tells_what_policies_decided(acme: Tenant) -> None:
    call = event(acme, MORNING, policy=[decision(start=3, end=9), decision("2", "block"), {"more": 41}])
    ledger.post([call])
    report = request_report(call.request_id, acme)
    assert report is not None
    assert report["policy"] == [decision(start=3, end=9), decision("2", "block", start=None, end=None)]
    assert report["policy_more"] == 41


def test_policies_are_reported_by_rule_and_action(acme: Tenant, globex: Tenant) -> None:
    lost = event(acme, MORNING, outcome="lost", policy=[decision()])
    ledger.post([
        event(acme, MORNING - timedelta(days=1), policy=[decision()]),
        event(acme, MORNING, policy=[decision(), decision(), decision("2", "block"), {"more": 3}]),
        event(acme, MORNING, policy=[decision(version=3)]),
        lost,
        event(acme, MORNING, request_id=lost.request_id, part=1, policy=[decision(), decision("2", "block")]),
        event(acme, MORNING),
        event(globex, MORNING, policy=[decision()]),
    ])  # fmt: skip
    rows = policy_report(acme, MORNING - timedelta(days=1), MORNING + timedelta(minutes=1))
    assert [
        (row["start"][:10], row["rule"], row["version"], row["action"], row["decisions"], row["calls"]) for row in rows
    ] == [
        ("2026-11-20", "1", 2, "flag", 1, 1),
        ("2026-11-21", "1", 2, "flag", 3, 2),
        ("2026-11-21", "2", 2, "block", 2, 2),
        ("2026-11-21", "1", 3, "flag", 1, 1),
    ]
    assert {(row["policy"], row["kind"]) for row in rows} == {("no-secrets", "keywords")}


def test_policies_of_one_name_are_told_apart_by_whose_they_are(acme: Tenant, globex: Tenant) -> None:
    ledger.post([
        event(acme, MORNING, policy=[decision(holder="tenant"), decision(holder="tenant"), decision(holder="platform")]),
        event(globex, MORNING, policy=[decision(holder="platform"), decision(holder="platform")]),
    ])  # fmt: skip
    start, end = MORNING - timedelta(days=1), MORNING + timedelta(minutes=1)

    def found(tenant: Tenant | None) -> list[tuple[int, int]]:
        rows = policy_report(tenant, start, end, policy="no-secrets", besides=[globex.pk])
        return [(row["decisions"], row["calls"]) for row in rows]

    assert found(acme) == [(2, 1)]
    assert found(None) == [(3, 2)]  # also of a tenant that has one of its own by now


def test_calls_that_do_not_tell_whose_policy_it_was_count_for_both(acme: Tenant) -> None:
    """As events were posted before they told it."""
    ledger.post([UsageEvent.from_dict(event(acme, MORNING, policy=[decision()]).to_dict() | {"version": 1})])
    start, end = MORNING - timedelta(days=1), MORNING + timedelta(minutes=1)
    for tenant in (acme, None):
        assert [row["decisions"] for row in policy_report(tenant, start, end, policy="no-secrets")] == [1]


def test_a_policy_of_the_platform_is_reported_over_all_tenants_but_those_that_mean_another(
    acme: Tenant, globex: Tenant
) -> None:
    ledger.post([
        event(acme, MORNING, policy=[decision(), decision() | {"policy": "another"}]),
        event(globex, MORNING, policy=[decision()]),
    ])  # fmt: skip
    start, end = MORNING - timedelta(days=1), MORNING + timedelta(minutes=1)
    everybody = policy_report(None, start, end, policy="no-secrets")
    assert [(row["start"], row["decisions"], row["calls"]) for row in everybody] == [("2026-11-20T00:00:00+00:00", 2, 2)]
    assert [row["decisions"] for row in policy_report(None, start, end, policy="no-secrets", besides=[globex.pk])] == [1]
    assert policy_report(acme, start, end, policy="nothing-like-it") == []


def test_request_that_was_lost_and_found_is_told_by_its_true_end(acme: Tenant) -> None:
    lost: UsageEvent = event(acme, MORNING, outcome="lost", usage_source="estimated", completion_tokens=5)
    found = event(acme, MORNING, request_id=lost.request_id, part=1, prompt_tokens=0, cached_tokens=0, completion_tokens=37)
    ledger.post([found, lost])
    report = request_report(lost.request_id, acme)
    assert report is not None
    assert (report["outcome"], report["usage"]["completion_tokens"], report["usage"]["source"]) == ("completed", 42, "backend")
    assert UsageRecord.objects.count() == 2


@pytest.mark.parametrize("request_id", ["", "nonsense", "0198c0de-0000-7000-8000-000000000001"])
def test_request_nobody_made_is_none(acme: Tenant, request_id: str) -> None:
    assert request_report(request_id, acme) is None


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "0"),
        (1, "0.000000001"),
        (1_500_000_000, "1.5"),
        (100 * 10**9, "100"),
        (12_345_678_901_234_567_890, "12345678901.23456789"),
        (-2_500_000_000, "-2.5"),
    ],
)
def test_cost_is_exact_decimal_text(nano: int, text: str) -> None:
    assert units(nano) == text
