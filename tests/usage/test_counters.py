"""What counters of limits are restored to is what Redis itself had counted."""

import random
from datetime import datetime, timedelta

import pytest
import redis
from django.utils import timezone

from accounts.models import Tenant
from tests.usage.made import KEY_ID, OTHER_KEY_ID, event
from usage import ledger
from usage.counters import quota_counters
from usage.events import UsageEvent
from usage.limits import NAMES, BoundLimit, Limit, period_start_s
from usage.partitions import partition
from usage.posting import drain_journal
from usage.quota import Quota, Refusal, Reservation, skeleton

pytestmark = pytest.mark.django_db
NOW = timezone.now().replace(microsecond=0)
NOW_S = NOW.timestamp()


def bounds(tenant: Tenant, name: str) -> list[BoundLimit]:
    subjects = [("key", KEY_ID), ("key", OTHER_KEY_ID), ("alias", "general"), ("alias", "code"), ("tenant", str(tenant.pk))]
    return [BoundLimit(subject, subject_id, Limit(name, 10**15)) for subject, subject_id in subjects]


def used(tenant: Tenant, name: str) -> dict[tuple[str, str], int]:
    sums: dict[tuple[str, str], int] = {}
    for counter in quota_counters(str(tenant.pk), tenant.time_zone, bounds(tenant, name), now_s=NOW_S):
        sums[counter.subject, counter.subject_id] = sums.get((counter.subject, counter.subject_id), 0) + counter.used
    return sums


def test_each_subject_has_its_own(acme: Tenant, globex: Tenant) -> None:
    ledger.post([
        event(acme, NOW, duration_ms=0),
        event(acme, NOW, duration_ms=0, key_id=OTHER_KEY_ID),
        event(acme, NOW, duration_ms=0, alias="code"),
        event(globex, NOW, duration_ms=0),
    ])  # fmt: skip
    tenant_id = str(acme.pk)
    expected = {
        ("key", KEY_ID): 2,
        ("key", OTHER_KEY_ID): 1,
        ("alias", "general"): 2,
        ("alias", "code"): 1,
        ("tenant", tenant_id): 3,
    }
    assert used(acme, "requests_per_minute") == expected
    for name in ("tokens_per_hour", "tokens_per_day", "tokens_per_month"):
        assert used(acme, name) == {subject: 120 * count for subject, count in expected.items()}
    assert used(acme, "money_per_month") == {subject: 1_500_000 * count for subject, count in expected.items()}
    assert used(acme, "concurrent_requests") == {}


def test_refused_calls_and_corrections_are_no_requests(acme: Tenant) -> None:
    call = event(acme, NOW, outcome="lost")
    refused = event(acme, NOW, outcome="refused", status=429, usage_source="none")
    failed = event(acme, NOW, outcome="failed", status=503, usage_source="none")  # gave its request back
    ledger.post([call, event(acme, NOW, request_id=call.request_id, part=1), refused, failed])
    assert used(acme, "requests_per_minute")["tenant", str(acme.pk)] == 1


def test_windows_forget_what_is_older(acme: Tenant) -> None:
    ledger.post([event(acme, NOW - timedelta(seconds=seconds), duration_ms=0) for seconds in (0, 60, 61, 3600, 3661)])
    assert used(acme, "requests_per_minute")["tenant", str(acme.pk)] == 2
    assert used(acme, "tokens_per_hour")["tenant", str(acme.pk)] == 120 * 4


def test_tokens_count_when_their_call_is_settled(acme: Tenant) -> None:
    """A call of half an hour that ended now fills the hour that begins now, and the day and month in which it ended."""
    start = datetime.fromtimestamp(period_start_s("tokens_per_day", NOW_S, acme.time_zone), NOW.tzinfo)
    long_ms = 1_500_000
    ledger.post(
        [
            event(acme, NOW - timedelta(minutes=80), duration_ms=long_ms),
            event(acme, NOW - timedelta(minutes=90), duration_ms=long_ms),
        ]
    )
    assert used(acme, "tokens_per_hour")["tenant", str(acme.pk)] == 120
    before = used(acme, "tokens_per_day")["tenant", str(acme.pk)]
    ledger.post(
        [
            event(acme, start - timedelta(minutes=5), duration_ms=400_000),
            event(acme, start - timedelta(minutes=5), duration_ms=1),
        ]
    )
    assert used(acme, "tokens_per_day")["tenant", str(acme.pk)] == before + 120


def test_restored_counters_stand_as_they_stood(valkey: redis.Redis, acme: Tenant) -> None:
    quota, dice = Quota(valkey), random.Random(7)
    number = partition(str(acme.pk))
    assert quota.mark_alive(number, journal_end="0-0", now_s=NOW_S - 9000)
    limits = [bound for name in NAMES for bound in bounds(acme, name) if bound.subject_id != OTHER_KEY_ID]
    moments: list[tuple[float, UsageEvent]] = []
    for _ in range(60):
        age_s = dice.randrange(7000)
        duration_ms = dice.randrange(1, min(age_s * 1000, 1_700_000) + 2)
        call = event(
            acme, NOW - timedelta(seconds=age_s), alias=dice.choice(("general", "code")), duration_ms=duration_ms,
            prompt_tokens=dice.randrange(1000), completion_tokens=dice.randrange(1000), cost_nano=dice.randrange(10**9),
        )  # fmt: skip
        moments += [(call.created_s, call), (call.created_s + duration_ms / 1000, call)]
    held: dict[str, Reservation | Refusal] = {}
    for now_s, call in sorted(moments, key=lambda moment: moment[0]):
        if call.request_id in held:
            reservation = held[call.request_id]
            assert isinstance(reservation, Reservation)
            assert quota.settle(reservation, call, now_s=now_s)
            continue
        mine = [bound for bound in limits if bound.subject != "alias" or bound.subject_id == call.alias]
        held[call.request_id] = quota.reserve(
            call.request_id, str(acme.pk), mine,
            prompt_tokens=1000, output_tokens=1000, cost_nano=10**9, time_zone=acme.time_zone, now_s=now_s, meta=skeleton(call),
        )  # fmt: skip
    drain_journal()

    def stand() -> dict[tuple[str, str, str], tuple[int, int]]:
        states = quota.state(str(acme.pk), limits, time_zone=acme.time_zone, now_s=NOW_S)
        return {(s.bound.subject, s.bound.subject_id, s.bound.limit.name): (s.used, s.reserved) for s in states}

    stood = stand()
    valkey.flushdb()
    quota.restore(
        str(acme.pk), quota_counters(str(acme.pk), acme.time_zone, limits, now_s=NOW_S), time_zone=acme.time_zone, now_s=NOW_S
    )
    assert quota.mark_alive(number, journal_end="0-0", now_s=NOW_S)
    assert stand() == stood
