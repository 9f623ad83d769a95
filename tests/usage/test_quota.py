"""Reserve, settle, renew, reap: each promise of the quota by itself, on a real server. Time is passed in."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from redis.crc import key_slot

from portal import embedded
from tests.usage.quota_calls import ACME, KEY, NOW_S, TOKYO, admitted, ask, event, limit, refused, whole_quota
from tests.usage.quota_model import PRICE, cost_nano
from usage.events import UsageEvent
from usage.limits import MAX, Bound, BoundLimit
from usage.partitions import alive_key, base, journal_key, partition
from usage.quota import LEASE_S, CountersLost, Progress, Quota
from usage.reservation import NO_STATES, Counter, Refusal, Reservation, skeleton
from usage.store import StoreUnavailable, connect

NUMBER = partition(ACME)
EVERY = (
    limit("requests_per_minute", 60),
    limit("tokens_per_hour", 10_000),
    limit("concurrent_requests", 4),
    limit("tokens_per_day", 20_000, subject="alias", subject_id="org/chat:7b"),
    limit("requests_per_minute", 600, subject="alias", subject_id="org/chat:7b"),
    limit("tokens_per_month", 100_000, subject="tenant", subject_id=ACME),
    limit("money_per_month", 10**9, subject="tenant", subject_id=ACME),
    limit("concurrent_requests", 40, subject="tenant", subject_id=ACME),
)


@pytest.fixture
def quota(valkey: redis.Redis) -> Quota:
    return whole_quota(valkey)


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def journaled(client: redis.Redis) -> list[UsageEvent]:
    return [UsageEvent.from_dict(orjson.loads(fields[b"event"])) for _, fields in client.xrange(journal_key(NUMBER))]


def standing(quota: Quota, limits: tuple[BoundLimit, ...], now_s: float, time_zone: str = TOKYO) -> list[tuple[int, int]]:
    """(used, reserved) of each."""
    return [(s.used, s.reserved) for s in quota.state(ACME, limits, time_zone=time_zone, now_s=now_s)]


def everything(client: redis.Redis) -> dict[bytes, bytes | None]:
    return {key: client.dump(key) for key in client.keys("*")}


# Reserve


def test_a_call_is_held_in_every_limit(quota: Quota) -> None:
    reservation = admitted(ask(quota, "one", EVERY, prompt=100, output=500))
    cost = cost_nano(100, 500)
    assert [(s.used, s.reserved) for s in reservation.states] == [
        (1, 0), (0, 600), (0, 1), (0, 600), (1, 0), (0, 600), (0, cost), (0, 1),
    ]  # fmt: skip
    assert [s.remaining for s in reservation.states] == [59, 9400, 3, 19_400, 599, 99_400, 10**9 - cost, 39]
    assert standing(quota, EVERY, NOW_S) == [(s.used, s.reserved) for s in reservation.states]
    assert reservation.lease_ends_s == NOW_S + LEASE_S


def test_limits_are_told_in_the_order_they_were_asked_in_whosever_they_are(quota: Quota) -> None:
    mixed = (
        limit("tokens_per_month", 5000, subject="tenant", subject_id=ACME),
        limit("concurrent_requests", 7),
        limit("tokens_per_hour", 3000, subject="tenant", subject_id=ACME),
        limit("tokens_per_hour", 700),
    )
    held = admitted(ask(quota, "one", mixed))
    assert [state.bound for state in held.states] == list(mixed)
    assert [(state.used, state.reserved) for state in held.states] == [(0, 600), (0, 1), (0, 600), (0, 600)]
    refusal = refused(ask(quota, "two", mixed))
    assert refusal.by.bound == mixed[3]
    quota.settle(held, event("one", 100, 200), now_s=NOW_S)
    assert standing(quota, mixed, NOW_S) == [(300, 0), (0, 0), (300, 0), (300, 0)]


@pytest.mark.parametrize("refuser", range(len(EVERY)))
def test_a_call_that_one_limit_refuses_is_held_in_none(quota: Quota, valkey: redis.Redis, refuser: int) -> None:
    ask(quota, "one", EVERY)
    tight = [*EVERY]
    tight[refuser] = replace(EVERY[refuser], limit=replace(EVERY[refuser].limit, max=1))
    before = everything(valkey)
    refusal = refused(ask(quota, "two", tuple(tight), now_s=NOW_S + 7))
    assert [state.bound for state in refusal.refusing] == [tight[refuser]]
    assert refusal.by.bound == tight[refuser]
    assert everything(valkey) == before


def test_a_refused_call_is_told_how_every_limit_stands(quota: Quota) -> None:
    ask(quota, "one", EVERY)
    refusal = refused(ask(quota, "two", EVERY, output=9_900))
    assert [(s.used, s.reserved) for s in refusal.states] == standing(quota, EVERY, NOW_S)


def test_a_shadow_limit_counts_and_refuses_nothing(quota: Quota) -> None:
    shadow = (limit("tokens_per_hour", 100, mode="shadow"), limit("tokens_per_day", 10_000))
    reservation = admitted(ask(quota, "one", shadow, prompt=100, output=500))
    assert reservation.states[0].reserved == 600
    assert reservation.states[0].remaining == 0
    refusal = refused(ask(quota, "two", shadow, output=9_999))
    assert [state.bound for state in refusal.refusing] == [shadow[1]]


@pytest.mark.parametrize(
    "limits",
    [EVERY, (limit("tokens_per_hour", 600), limit("requests_per_minute", 1), limit("concurrent_requests", 1))],
    ids=["roomy", "full by itself"],
)
def test_asking_again_for_what_is_held_changes_nothing(
    quota: Quota, valkey: redis.Redis, limits: tuple[BoundLimit, ...]
) -> None:
    """As redis-py does when the connection breaks before the answer."""
    first = admitted(ask(quota, "one", limits))
    before = everything(valkey)
    again = admitted(ask(quota, "one", limits, now_s=NOW_S + 1))
    assert [(s.used, s.reserved) for s in again.states] == [(s.used, s.reserved) for s in first.states]
    assert everything(valkey) == before


def test_a_settled_call_is_not_held_again(quota: Quota) -> None:
    quota.settle(admitted(ask(quota, "one", EVERY)), event("one", 10, 20), now_s=NOW_S)
    with pytest.raises(ValueError, match="settled"):
        ask(quota, "one", EVERY)


def test_tenants_share_nothing(quota: Quota) -> None:
    globex = "0198c0de-0000-7000-8000-000000000029"
    assert partition(globex) == NUMBER  # even in the same partition, with the same names
    tight = (limit("tokens_per_hour", 600), limit("concurrent_requests", 1))
    admitted(ask(quota, "one", tight))
    admitted(ask(quota, "two", tight, tenant_id=globex))


# Settle


def test_settling_counts_what_was_used_and_frees_the_rest(quota: Quota, valkey: redis.Redis) -> None:
    reservation = admitted(ask(quota, "one", EVERY, prompt=100, output=500))
    ended = event("one", 90, 20, cached_tokens=64, metadata={"team": "検証"}, end_user="u", limits=[{"name": "x"}])
    assert quota.settle(reservation, ended, now_s=NOW_S + 2)
    cost = cost_nano(90, 20)
    assert standing(quota, EVERY, NOW_S + 2) == [(1, 0), (110, 0), (0, 0), (110, 0), (1, 0), (110, 0), (cost, 0), (0, 0)]
    assert journaled(valkey) == [ended]


def test_settling_twice_counts_once(quota: Quota, valkey: redis.Redis) -> None:
    reservation = admitted(ask(quota, "one", EVERY))
    assert quota.settle(reservation, event("one", 90, 20), now_s=NOW_S)
    before = everything(valkey)
    assert not quota.settle(reservation, event("one", 90, 20), now_s=NOW_S + 120)
    assert not quota.settle(None, event("one", 90, 20), now_s=NOW_S + 120)
    assert everything(valkey) == before


def test_a_call_without_limits_is_journaled_once(quota: Quota, valkey: redis.Redis) -> None:
    assert quota.settle(None, event("one", 10, 20), now_s=NOW_S)
    assert not quota.settle(None, event("one", 10, 20), now_s=NOW_S)
    assert len(journaled(valkey)) == 1


def test_what_a_call_holds_is_found_by_its_id_alone(quota: Quota) -> None:
    """As when the spool sends it again, or a reservation was made though its answer came too late."""
    ask(quota, "one", EVERY)
    assert quota.settle(None, event("one", 90, 20), now_s=NOW_S)
    assert [reserved for _, reserved in standing(quota, EVERY, NOW_S)] == [0] * len(EVERY)
    assert standing(quota, EVERY, NOW_S)[5] == (110, 0)


def test_a_call_that_used_nothing_costs_nothing(quota: Quota) -> None:
    before = standing(quota, EVERY, NOW_S)
    quota.settle(admitted(ask(quota, "one", EVERY)), event("one"), now_s=NOW_S + 40)
    assert standing(quota, EVERY, NOW_S + 40) == before


def test_a_request_is_given_back_to_the_second_it_was_taken_from(quota: Quota) -> None:
    rate = (limit("requests_per_minute", 10),)
    kept, given = admitted(ask(quota, "one", rate)), admitted(ask(quota, "two", rate, now_s=NOW_S + 30))
    quota.settle(given, event("two"), now_s=NOW_S + 50)
    assert standing(quota, rate, NOW_S + 60) == [(1, 0)]
    assert standing(quota, rate, NOW_S + 61) == [(0, 0)]
    quota.settle(kept, event("one"), now_s=NOW_S + 70)  # it had left the window by itself
    assert standing(quota, rate, NOW_S + 70) == [(0, 0)]


def test_a_request_that_has_left_is_not_given_back_from_the_second_that_took_its_place(quota: Quota) -> None:
    rate = (limit("requests_per_minute", 10),)
    old = admitted(ask(quota, "one", rate))
    ask(quota, "two", rate, now_s=NOW_S + 61)  # in the same place of the ring
    quota.settle(old, event("one"), now_s=NOW_S + 62)
    assert standing(quota, rate, NOW_S + 62) == [(1, 0)]


def test_a_request_counted_in_a_later_second_by_a_clock_that_stepped_back_is_not_given_back(quota: Quota) -> None:
    rate = (limit("requests_per_minute", 10),)
    ask(quota, "one", rate, now_s=NOW_S + 5)
    quota.settle(admitted(ask(quota, "two", rate, now_s=NOW_S)), event("two"), now_s=NOW_S + 6)
    assert standing(quota, rate, NOW_S + 6) == [(2, 0)]


def test_a_long_stream_counts_as_a_request_for_a_minute_only(quota: Quota) -> None:
    rate = (limit("requests_per_minute", 1),)
    reservation = admitted(ask(quota, "one", rate))
    quota.renew([Progress(reservation, 5)], now_s=NOW_S + 20)
    refused(ask(quota, "two", rate, now_s=NOW_S + 60))
    admitted(ask(quota, "two", rate, now_s=NOW_S + 61))


# Windows, days and months


@pytest.mark.parametrize(("name", "width_s"), [("tokens_per_hour", 60), ("requests_per_minute", 1)])
def test_no_window_anywhere_holds_more_than_the_limit(quota: Quota, name: str, width_s: int) -> None:
    """61 buckets: what was used at the end of a bucket counts until 60 whole ones have passed."""
    start_s = 1_790_000_000 // width_s * width_s
    of_one = (limit(name, 110 if name == "tokens_per_hour" else 1),)
    first_s = start_s + width_s - 0.001
    quota.settle(
        admitted(ask(quota, "one", of_one, prompt=100, output=10, now_s=first_s)), event("one", 100, 10), now_s=first_s
    )
    refusal = refused(ask(quota, "two", of_one, prompt=100, output=10, now_s=start_s + 61 * width_s - 0.001))
    assert refusal.retry_after_s == 0.001
    assert refusal.by.reset_s == 0.001
    admitted(ask(quota, "two", of_one, prompt=100, output=10, now_s=start_s + 61 * width_s))


@pytest.mark.parametrize(
    ("name", "time_zone", "before", "after"),
    [
        ("tokens_per_day", TOKYO, "2026-12-31T14:59:59Z", "2026-12-31T15:00:00Z"),
        ("tokens_per_month", TOKYO, "2026-12-31T14:59:59Z", "2026-12-31T15:00:00Z"),
        ("money_per_month", "America/New_York", "2026-12-01T04:59:59.5Z", "2026-12-01T05:00Z"),
        ("tokens_per_day", "America/New_York", "2026-03-09T03:59:59Z", "2026-03-09T04:00Z"),  # of 23 hours
        ("tokens_per_day", "America/New_York", "2026-11-02T04:59:59Z", "2026-11-02T05:00Z"),  # of 25 hours
    ],
)
def test_a_new_period_begins_at_midnight_of_the_tenant(
    quota: Quota, name: str, time_zone: str, before: str, after: str
) -> None:
    of_all = (limit(name, cost_nano(100, 500) if name == "money_per_month" else 600),)
    before_s, after_s = at(before), at(after)
    first = admitted(ask(quota, "one", of_all, now_s=before_s - 5, time_zone=time_zone))
    quota.settle(first, event("one", 100, 500), now_s=before_s - 1)
    refusal = refused(ask(quota, "two", of_all, now_s=before_s, time_zone=time_zone))
    assert refusal.retry_after_s == after_s - before_s
    assert refusal.by.reset_s == after_s - before_s
    admitted(ask(quota, "two", of_all, now_s=after_s, time_zone=time_zone))


def test_a_call_over_midnight_is_held_in_both_days_and_used_in_the_second(quota: Quota) -> None:
    day = (limit("tokens_per_day", 1000),)
    first = admitted(ask(quota, "one", day, prompt=100, output=500, now_s=at("2026-12-31T14:59:50Z")))
    new_year_s = at("2026-12-31T15:00:05Z")
    assert standing(quota, day, new_year_s) == [(0, 600)]
    refused(ask(quota, "two", day, prompt=100, output=500, now_s=new_year_s))
    quota.settle(first, event("one", 100, 300), now_s=new_year_s)
    assert standing(quota, day, new_year_s) == [(400, 0)]


def test_a_clock_that_steps_back_over_midnight_opens_no_period_again(quota: Quota) -> None:
    limits = (limit("tokens_per_month", 1000), limit("tokens_per_hour", 1000), limit("requests_per_minute", 5))
    new_year_s = at("2026-12-31T15:00:00Z")
    quota.settle(admitted(ask(quota, "one", limits, now_s=new_year_s - 1)), event("one", 100, 500), now_s=new_year_s - 1)
    quota.settle(admitted(ask(quota, "two", limits, output=200, now_s=new_year_s)), event("two", 100, 200), now_s=new_year_s)
    assert standing(quota, limits, new_year_s) == [(300, 0), (900, 0), (2, 0)]
    third = admitted(ask(quota, "three", limits, prompt=10, output=20, now_s=new_year_s - 3))
    assert [state.used for state in third.states] == [300, 900, 3]
    assert third.states[0].reset_s == 31 * 86400 + 3
    quota.settle(third, event("three", 10, 20), now_s=new_year_s - 2)
    assert standing(quota, limits, new_year_s + 1) == [(330, 0), (930, 0), (3, 0)]


def test_a_tenant_that_moves_to_another_time_zone_keeps_its_month(quota: Quota) -> None:
    month = (limit("tokens_per_month", 600),)
    noon_s = at("2026-11-20T03:00Z")
    quota.settle(admitted(ask(quota, "one", month, now_s=noon_s)), event("one", 100, 500), now_s=noon_s)
    refusal = refused(ask(quota, "two", month, now_s=noon_s, time_zone="America/New_York"))
    assert refusal.retry_after_s == at("2026-12-01T05:00Z") - noon_s


# Refusals


def test_the_longest_wait_of_several_is_told(quota: Quota) -> None:
    limits = (limit("requests_per_minute", 1), limit("tokens_per_hour", 1000), limit("concurrent_requests", 1))
    quota.settle(admitted(ask(quota, "one", limits)), event("one", 100, 500), now_s=NOW_S)
    ask(quota, "two", limits[2:])
    refusal = refused(ask(quota, "three", limits, now_s=NOW_S + 1))
    assert [state.bound for state in refusal.refusing] == [*limits]
    assert refusal.by.bound == limits[1]
    assert refusal.retry_after_s == 61 * 60 - NOW_S % 60 - 1


def test_a_call_larger_than_a_limit_never_fits(quota: Quota) -> None:
    refusal = refused(ask(quota, "one", (limit("requests_per_minute", 0), limit("tokens_per_day", 599))))
    assert refusal.retry_after_s is None
    assert refusal.fits_tokens == 0  # a shorter output would not help: no request is allowed


def test_only_as_many_buckets_as_needed_are_waited_for(quota: Quota) -> None:
    hour = (limit("tokens_per_hour", 1000),)
    for i, tokens in enumerate((300, 400, 200)):
        moment_s = NOW_S + 600 * i
        quota.settle(
            admitted(ask(quota, str(i), hour, prompt=1, output=tokens - 1, now_s=moment_s)),
            event(str(i), 1, tokens - 1),
            now_s=moment_s,
        )
    now_s = NOW_S + 1300
    starts_s = NOW_S // 60 * 60
    for tokens, leaves in ((400, 0), (800, 1), (801, 2), (1000, 2)):
        refusal = refused(ask(quota, "new", hour, prompt=1, output=tokens - 1, now_s=now_s))
        assert refusal.retry_after_s == starts_s + 600 * leaves + 61 * 60 - now_s


def test_slots_are_free_again_when_the_leases_end(quota: Quota) -> None:
    slots = (limit("concurrent_requests", 3),)
    for i in range(3):
        ask(quota, str(i), slots, now_s=NOW_S + i)
    assert refused(ask(quota, "new", slots, now_s=NOW_S + 5)).retry_after_s == LEASE_S - 5
    lowered = (limit("concurrent_requests", 2),)
    assert refused(ask(quota, "new", lowered, now_s=NOW_S + 5)).retry_after_s == LEASE_S - 4


def test_where_only_a_reservation_is_in_the_way_its_lease_bounds_the_wait(quota: Quota) -> None:
    day = (limit("tokens_per_day", 1000),)
    held = admitted(ask(quota, "one", day, prompt=100, output=500))
    quota.renew([Progress(held, 50, 80)], now_s=NOW_S + 3)
    refusal = refused(ask(quota, "two", day, prompt=100, output=400, now_s=NOW_S + 4))
    assert refusal.retry_after_s == LEASE_S - 1
    second = admitted(ask(quota, "two", day, prompt=100, output=400, now_s=NOW_S + 3 + LEASE_S))
    assert [(s.used, s.reserved) for s in second.states] == [(130, 500)]


@pytest.mark.parametrize(
    "of_one",
    [limit("tokens_per_day", 950), limit("money_per_month", cost_nano(100, 0) + cost_nano(100, 750))],
    ids=["tokens", "money"],
)
def test_what_is_posted_of_a_call_that_goes_on_is_not_awaited_again(quota: Quota, of_one: BoundLimit) -> None:
    """It had been given up, its prompt posted; where it dies once more, nothing is added."""
    held = admitted(ask(quota, "one", (of_one,)))
    quota.reap(NUMBER, now_s=NOW_S + LEASE_S)
    quota.renew([Progress(held, 0, None)], now_s=NOW_S + LEASE_S + 1)
    now_s = NOW_S + LEASE_S + 2
    assert refused(ask(quota, "two", (of_one,), prompt=100, output=750, now_s=now_s)).retry_after_s == LEASE_S - 1
    admitted(ask(quota, "two", (of_one,), prompt=100, output=750, now_s=now_s + LEASE_S - 1))


def test_live_reservations_are_taken_to_stay_while_used_tokens_are_in_the_way(quota: Quota) -> None:
    hour = (limit("tokens_per_hour", 1000),)
    quota.settle(admitted(ask(quota, "one", hour)), event("one", 100, 500), now_s=NOW_S)
    ask(quota, "two", hour, prompt=100, output=100, now_s=NOW_S + 60)
    leaves_s = NOW_S // 60 * 60 + 61 * 60
    refusal = refused(ask(quota, "three", hour, prompt=100, output=500, now_s=NOW_S + 70))
    assert refusal.retry_after_s == leaves_s - NOW_S - 70


@pytest.mark.parametrize(
    ("limits", "fits"),
    [
        ((limit("tokens_per_hour", 1000, clamps=True),), 300),
        ((limit("tokens_per_hour", 1000), limit("tokens_per_day", 900)), 200),
        ((limit("tokens_per_hour", 1000), limit("tokens_per_day", 900, mode="shadow")), 300),
        ((limit("tokens_per_hour", 700),), 0),  # the prompt alone fills it
        ((limit("tokens_per_hour", 1000), limit("concurrent_requests", 1)), 0),
        ((limit("money_per_month", cost_nano(100, 500) + cost_nano(100, 321)),), 321),
        ((limit("money_per_month", cost_nano(100, 500) + cost_nano(100, 321) - 1),), 320),
    ],
)
def test_the_largest_output_that_fits_is_told(quota: Quota, limits: tuple[BoundLimit, ...], fits: int) -> None:
    ask(quota, "one", limits, prompt=100, output=500)
    assert refused(ask(quota, "two", limits, prompt=100, output=600)).fits_tokens == fits
    if fits:
        refused(ask(quota, "two", limits, prompt=100, output=fits + 1))
        admitted(ask(quota, "two", limits, prompt=100, output=fits))


# Leases


def test_a_renewed_call_keeps_what_it_holds(quota: Quota) -> None:
    reservation = admitted(ask(quota, "one", EVERY))
    before = standing(quota, EVERY[1:4], NOW_S)
    for i in range(1, 10):
        quota.renew([Progress(reservation, 10 * i)], now_s=NOW_S + 10 * i)
        assert quota.reap(NUMBER, now_s=NOW_S + 10 * i) == []
    assert standing(quota, EVERY[1:4], NOW_S + 90) == before


def test_a_call_whose_worker_died_is_posted_with_its_last_count(quota: Quota, valkey: redis.Redis) -> None:
    reservation = admitted(ask(quota, "one", EVERY, prompt=100, output=500))
    quota.renew([Progress(reservation, 70, 95)], now_s=NOW_S + 10)
    assert quota.reap(NUMBER, now_s=NOW_S + 10 + LEASE_S - 0.001) == []
    dead_s = NOW_S + 10 + LEASE_S
    (lost,) = quota.reap(NUMBER, now_s=dead_s)
    expected = event("one", 95, 70, outcome="lost", usage_source="estimated", duration_ms=40_000)
    assert lost == expected
    assert journaled(valkey) == [lost]
    cost = cost_nano(95, 70)
    assert standing(quota, EVERY, dead_s) == [(1, 0), (165, 0), (0, 0), (165, 0), (1, 0), (165, 0), (cost, 0), (0, 0)]
    assert quota.reap(NUMBER, now_s=dead_s + 60) == []


def test_a_call_that_told_nothing_is_posted_with_its_prompt(quota: Quota) -> None:
    ask(quota, "one", (), prompt=100, output=500)
    (lost,) = quota.reap(NUMBER, now_s=NOW_S + LEASE_S)
    assert (lost.prompt_tokens, lost.completion_tokens, lost.cost_nano) == (100, 0, cost_nano(100, 0))


def test_a_lost_call_without_prices_costs_nothing(quota: Quota) -> None:
    ask(quota, "one", EVERY, meta=skeleton(event("one", price=None)))
    (lost,) = quota.reap(NUMBER, now_s=NOW_S + LEASE_S)
    assert (lost.prompt_tokens, lost.cost_nano, lost.price) == (100, 0, None)


def test_the_next_call_ends_the_dead_ones_in_its_way(quota: Quota, valkey: redis.Redis) -> None:
    slots = (limit("concurrent_requests", 2), limit("tokens_per_hour", 1300))
    for i in range(2):
        ask(quota, str(i), slots, prompt=10, output=500)
    refused(ask(quota, "new", slots, prompt=100, output=500, now_s=NOW_S + LEASE_S - 0.001))
    reservation = admitted(ask(quota, "new", slots, prompt=100, output=500, now_s=NOW_S + LEASE_S))
    assert [(s.used, s.reserved) for s in reservation.states] == [(0, 1), (20, 600)]
    assert [lost.outcome for lost in journaled(valkey)] == ["lost", "lost"]


def test_many_dead_calls_are_ended_a_bounded_number_at_a_time(quota: Quota, valkey: redis.Redis) -> None:
    slots = (limit("concurrent_requests", 130), limit("tokens_per_hour", 130_000))
    for i in range(130):
        ask(quota, str(i), slots, prompt=10, output=900)
    refusal = refused(ask(quota, "new", slots, prompt=100, output=129_000, now_s=NOW_S + LEASE_S))
    assert (len(journaled(valkey)), refusal.retry_after_s) == (50, 0.0)
    assert len(quota.reap(NUMBER, now_s=NOW_S + LEASE_S)) == 80
    admitted(ask(quota, "new", slots, prompt=100, output=128_000, now_s=NOW_S + LEASE_S))


def test_a_call_that_ends_after_it_was_given_up_adds_the_difference(quota: Quota, valkey: redis.Redis) -> None:
    reservation = admitted(ask(quota, "one", EVERY, prompt=100, output=500))
    quota.renew([Progress(reservation, 70, 95)], now_s=NOW_S + 10)
    quota.reap(NUMBER, now_s=NOW_S + 40)
    ended = event("one", 95, 300, cached_tokens=64)
    assert quota.settle(reservation, ended, now_s=NOW_S + 45)
    difference = cost_nano(95, 300) - cost_nano(95, 70)
    assert journaled(valkey)[1] == replace(
        ended, part=1, prompt_tokens=0, cached_tokens=64, completion_tokens=230, cost_nano=difference
    )
    assert standing(quota, EVERY, NOW_S + 45)[1] == (395, 0)
    assert standing(quota, EVERY, NOW_S + 45)[6] == (cost_nano(95, 300), 0)
    assert not quota.settle(reservation, ended, now_s=NOW_S + 46)


def test_a_difference_is_never_negative(quota: Quota, valkey: redis.Redis) -> None:
    reservation = admitted(ask(quota, "one", EVERY, prompt=100, output=500))
    quota.reap(NUMBER, now_s=NOW_S + 30)
    assert quota.settle(reservation, event("one", 60, 10), now_s=NOW_S + 31)
    lost, rest = journaled(valkey)
    assert (lost.prompt_tokens, rest.prompt_tokens, rest.completion_tokens, rest.cost_nano) == (100, 0, 10, 0)
    assert standing(quota, EVERY, NOW_S + 31)[1] == (110, 0)


def test_a_call_that_was_given_up_and_lives_is_held_again(quota: Quota, valkey: redis.Redis) -> None:
    """Its worker had stalled: the tokens are being generated, whether or not there still is room for them."""
    tight = (limit("tokens_per_hour", 700), limit("concurrent_requests", 1), limit("requests_per_minute", 1))
    reservation = admitted(ask(quota, "one", tight, prompt=100, output=500))
    assert len(quota.reap(NUMBER, now_s=NOW_S + 30)) == 1
    other = admitted(ask(quota, "two", tight[:2], prompt=100, output=500, now_s=NOW_S + 31))
    quota.renew([Progress(reservation, 200), Progress(other, 1)], now_s=NOW_S + 35)
    assert standing(quota, tight, NOW_S + 35) == [(100, 1200), (0, 2), (1, 0)]
    quota.settle(other, event("two", 100, 1), now_s=NOW_S + 36)
    quota.reap(NUMBER, now_s=NOW_S + 65)  # it stalls once more
    quota.settle(reservation, event("one", 100, 450), now_s=NOW_S + 66)
    assert [(e.part, e.outcome, e.prompt_tokens, e.completion_tokens) for e in journaled(valkey) if e.request_id == "one"] == [
        (0, "lost", 100, 0),
        (1, "lost", 0, 200),
        (2, "completed", 0, 250),
    ]
    assert standing(quota, tight[:2], NOW_S + 66) == [(651, 0), (0, 0)]


def test_renewing_an_ended_call_changes_nothing(quota: Quota, valkey: redis.Redis) -> None:
    reservation = admitted(ask(quota, "one", EVERY))
    quota.settle(reservation, event("one", 1, 1), now_s=NOW_S)
    before = everything(valkey)
    quota.renew([Progress(reservation, 5)], now_s=NOW_S + 1)
    assert everything(valkey) == before


def test_an_older_renewal_shortens_no_lease(quota: Quota) -> None:
    reservation = admitted(ask(quota, "one", EVERY))
    quota.renew([Progress(reservation, 5)], now_s=NOW_S + 20)
    quota.renew([Progress(reservation, 5)], now_s=NOW_S + 15)
    assert quota.reap(NUMBER, now_s=NOW_S + 49) == []


# Redis lost, emptied, full


def test_no_call_with_limits_passes_while_the_counters_are_gone(valkey: redis.Redis) -> None:
    quota = Quota(valkey)
    assert not quota.is_alive(NUMBER)
    with pytest.raises(CountersLost):
        ask(quota, "one", EVERY)
    with pytest.raises(CountersLost):
        quota.state(ACME, EVERY, time_zone=TOKYO, now_s=NOW_S)
    admitted(ask(quota, "two", ()))
    assert quota.settle(None, event("two", 5, 6), now_s=NOW_S)


def test_after_redis_was_emptied_no_limit_is_forgotten(quota: Quota, valkey: redis.Redis) -> None:
    limits = (
        limit("tokens_per_hour", 1000), limit("tokens_per_month", 5000), limit("concurrent_requests", 2),
        limit("requests_per_minute", 9),
    )  # fmt: skip
    living, ending = admitted(ask(quota, "living", limits, output=100)), admitted(ask(quota, "ending", limits, output=100))
    valkey.flushdb()
    assert quota.settle(ending, event("ending", 90, 50), now_s=NOW_S + 1)  # only journaled: nobody could count it right
    seen = quota.journal_end(NUMBER)
    assert quota.settle(None, event("late", 1, 1), now_s=NOW_S + 2)
    of_ledger = [
        Counter("key", KEY, "tokens_per_hour", 300, NOW_S - 3500),
        Counter("key", KEY, "tokens_per_hour", 140, NOW_S),
        Counter("key", KEY, "tokens_per_hour", 9999, NOW_S - 3700),  # has left the window
        Counter("key", KEY, "tokens_per_month", 3140, NOW_S),
        Counter("key", KEY, "requests_per_minute", 2, NOW_S),
    ]
    assert quota.restore(ACME, of_ledger, time_zone=TOKYO, now_s=NOW_S + 2) == 3
    assert not quota.mark_alive(NUMBER, journal_end=seen, now_s=NOW_S + 2)  # the late one came meanwhile: count again
    again = [*of_ledger[:3], Counter("key", KEY, "tokens_per_month", 3142, NOW_S), of_ledger[4]]
    assert quota.restore(ACME, again, time_zone=TOKYO, now_s=NOW_S + 2) == 3
    assert quota.mark_alive(NUMBER, journal_end=quota.journal_end(NUMBER), now_s=NOW_S + 2)
    assert standing(quota, limits, NOW_S + 3) == [(440, 0), (3142, 0), (0, 0), (2, 0)]
    quota.renew([Progress(living, 5)], now_s=NOW_S + 10)
    assert standing(quota, limits, NOW_S + 10) == [(440, 200), (3142, 200), (0, 1), (2, 0)]
    quota.settle(living, event("living", 90, 60), now_s=NOW_S + 11)
    assert standing(quota, limits, NOW_S + 11) == [(590, 0), (3292, 0), (0, 0), (2, 0)]
    assert standing(quota, limits[:1], (NOW_S // 60 + 3) * 60) == [(290, 0)]  # the older bucket left in its own time


def test_a_call_that_redis_forgot_is_counted_whole_when_it_ends(quota: Quota, valkey: redis.Redis) -> None:
    """As when Redis came back a second behind."""
    reservation = admitted(ask(quota, "one", EVERY))
    valkey.flushdb()
    whole_quota(valkey)
    quota.settle(reservation, event("one", 90, 20), now_s=NOW_S)
    assert standing(quota, EVERY, NOW_S)[1:4] == [(110, 0), (0, 0), (110, 0)]


SEEN = [{"subject": "key", "name": KEY, "limit": "tokens_per_hour", "used": 0, "reserved": 0, "max": 1000, "mode": "enforce"}]


@pytest.mark.parametrize(
    ("changes", "stays"),
    [({"limits": SEEN}, False), ({}, True), ({"limits": SEEN, "usage_source": "none"}, True)],
    ids=["with limits", "without", "used nothing"],
)
def test_what_redis_cannot_count_has_its_counters_restored(quota: Quota, changes: dict[str, Any], stays: bool) -> None:
    """As when a worker that is gone by now served the call without Redis, or Redis came back a second behind."""
    assert quota.settle(None, event("one", 5, 6, **changes), now_s=NOW_S)
    assert quota.is_alive(NUMBER) == stays


def test_what_redis_has_counted_may_be_sent_again(quota: Quota) -> None:
    ended = event("one", 90, 50, limits=SEEN)
    quota.settle(admitted(ask(quota, "one", EVERY)), ended, now_s=NOW_S)
    held = admitted(ask(quota, "two", EVERY))
    assert quota.settle_again([(None, ended), (None, replace(ended, request_id="two"))], now_s=NOW_S) == [True, True]
    assert quota.is_alive(NUMBER)
    assert standing(quota, EVERY, NOW_S)[0] == (2, 0)
    assert standing(quota, held.limits, NOW_S)[1:4] == [(280, 0), (0, 0), (280, 0)]


def test_while_counters_are_restored_the_journal_stands_still(quota: Quota, valkey: redis.Redis) -> None:
    quota.begin_counting(NUMBER)  # somebody who thought they were gone
    held = admitted(ask(quota, "one", EVERY))
    quota.settle(admitted(ask(quota, "two", EVERY)), event("two", 1, 1), now_s=NOW_S)
    valkey.delete(alive_key(NUMBER))
    for reservation in (held, None):
        with pytest.raises(CountersLost):
            quota.settle(reservation, event("one", 90, 50), now_s=NOW_S)
    assert quota.settle_again([(held, event("one", 90, 50))], now_s=NOW_S) == [False]
    assert quota.reap(NUMBER, now_s=NOW_S + LEASE_S) == []
    assert [one.request_id for one in journaled(valkey)] == ["two"]
    assert quota.mark_alive(NUMBER, journal_end=quota.journal_end(NUMBER), now_s=NOW_S)
    assert quota.settle(held, event("one", 90, 50), now_s=NOW_S)
    assert standing(quota, EVERY, NOW_S)[1] == (142, 0)


def test_live_calls_are_held_before_the_counters_are_restored(quota: Quota, valkey: redis.Redis) -> None:
    """Else whoever calls in the moment after gets what they still use."""
    limits = (limit("tokens_per_hour", 1000), limit("requests_per_minute", 9), limit("concurrent_requests", 2))
    living = admitted(ask(quota, "living", limits, output=100))
    ask(quota, "of another worker", limits, output=100)
    valkey.flushdb()
    quota.renew([Progress(living, 5)], now_s=NOW_S + 1)
    with pytest.raises(CountersLost):
        ask(quota, "new", limits)
    ended = [Counter("key", KEY, "tokens_per_hour", 300, NOW_S), Counter("key", KEY, "requests_per_minute", 3, NOW_S)]
    assert quota.restore(ACME, ended, time_zone=TOKYO, now_s=NOW_S + 2) == 2
    assert quota.mark_alive(NUMBER, journal_end="0-0", now_s=NOW_S + 2)
    assert standing(quota, limits, NOW_S + 2) == [(300, 200), (4, 0), (0, 1)]


def test_a_call_that_redis_did_not_admit_is_held_unchecked_and_counted_once(quota: Quota) -> None:
    limits = (limit("tokens_per_hour", 10), limit("requests_per_minute", 1), limit("concurrent_requests", 1))
    admitted(ask(quota, "one", (limit("concurrent_requests", 2),)))
    asked = Reservation("two", ACME, TOKYO, Bound(limits), 100, 600, 0, skeleton(event("two")), NO_STATES, NOW_S + LEASE_S)
    for _ in range(2):
        quota.hold(asked, now_s=NOW_S)
    assert standing(quota, limits, NOW_S) == [(0, 600), (1, 0), (0, 2)]
    quota.settle(asked, event("two", 90, 50), now_s=NOW_S)
    assert standing(quota, limits, NOW_S) == [(140, 0), (1, 0), (0, 1)]


@pytest.mark.parametrize(("age_s", "requests"), [(0, 1), (60, 1), (61, 0)])
def test_the_request_of_a_call_that_ended_without_redis_counts_when_it_began(quota: Quota, age_s: int, requests: int) -> None:
    limits = (limit("tokens_per_hour", 1000), limit("requests_per_minute", 9))
    asked = Reservation("one", ACME, TOKYO, Bound(limits), 100, 600, 0, b"", NO_STATES, 0)
    assert quota.settle(asked, event("one", 90, 50, created_s=NOW_S - age_s), now_s=NOW_S)
    assert standing(quota, limits, NOW_S) == [(140, 0), (requests, 0)]
    assert standing(quota, limits, NOW_S + 61 - age_s) == [(140, 0), (0, 0)]
    quota.settle(replace(asked, request_id="two"), event("two"), now_s=NOW_S + 61)  # used nothing
    assert standing(quota, limits, NOW_S + 61) == [(140, 0), (0, 0)]


def test_restoring_leaves_living_counters_alone(quota: Quota) -> None:
    hour = (limit("tokens_per_hour", 1000), limit("tokens_per_day", 1000))
    quota.settle(admitted(ask(quota, "one", hour)), event("one", 100, 20), now_s=NOW_S)
    of_ledger = [Counter("key", KEY, name, 500, NOW_S) for name in ("tokens_per_hour", "tokens_per_day", "tokens_per_month")]
    assert quota.restore(ACME, of_ledger, time_zone=TOKYO, now_s=NOW_S) == 1
    assert standing(quota, (*hour, limit("tokens_per_month", 1000)), NOW_S) == [(120, 0), (120, 0), (500, 0)]


def test_what_was_used_in_another_period_is_not_restored(quota: Quota) -> None:
    used = [Counter("key", KEY, "tokens_per_day", 500, NOW_S - 86400), Counter("key", KEY, "tokens_per_day", 7, NOW_S)]
    quota.restore(ACME, used, time_zone=TOKYO, now_s=NOW_S)
    assert standing(quota, (limit("tokens_per_day", 1000),), NOW_S) == [(7, 0)]


def test_every_verb_survives_a_server_that_forgot_the_scripts(quota: Quota, valkey: redis.Redis) -> None:
    valkey.script_flush()
    reservation = admitted(ask(quota, "one", EVERY))
    valkey.script_flush()
    quota.renew([Progress(reservation, 5)], now_s=NOW_S)
    valkey.script_flush()
    assert quota.settle(reservation, event("one", 90, 20), now_s=NOW_S)
    ask(quota, "two", EVERY)
    valkey.script_flush()
    assert len(quota.reap(NUMBER, now_s=NOW_S + LEASE_S)) == 1
    valkey.script_flush()
    assert standing(quota, EVERY, NOW_S + LEASE_S)[1] == (210, 0)


def test_reserve_and_settle_are_one_command_each(own_server: redis.Redis) -> None:
    """On a server of its own: other tests make theirs forget its scripts."""
    quota = whole_quota(own_server)
    quota.settle(admitted(ask(quota, "warm", EVERY)), event("warm", 1, 1), now_s=NOW_S)
    path = own_server.connection_pool.connection_kwargs["path"]
    with redis.Redis(unix_socket_path=path) as watcher, watcher.monitor() as monitor:
        quota.settle(admitted(ask(quota, "one", EVERY)), event("one", 1, 1), now_s=NOW_S)
        own_server.echo("the end")
        sent = []
        for command in monitor.listen():
            if command["client_type"] != "lua":
                sent.append(command["command"].split()[0])
            if command["command"] == "ECHO the end":
                break
    assert sent == ["EVALSHA", "EVALSHA", "ECHO"]


def test_every_key_is_in_the_slot_of_its_partition(quota: Quota, valkey: redis.Redis) -> None:
    quota.settle(admitted(ask(quota, "one", EVERY)), event("one", 1, 1), now_s=NOW_S)
    ask(quota, "two", EVERY)
    keys = [key for key in valkey.keys("*") if key not in {alive_key(n).encode() for n in range(16)}]
    assert len(keys) > 8
    assert {key_slot(key) for key in keys} == {key_slot(base(NUMBER).encode())}


def test_keys_of_ended_calls_go_away_by_themselves(quota: Quota, valkey: redis.Redis) -> None:
    quota.settle(admitted(ask(quota, "one", EVERY)), event("one", 1, 1), now_s=NOW_S)
    kept = {key for key in valkey.keys("*") if valkey.ttl(key) < 0}
    assert kept == {journal_key(NUMBER).encode(), *(alive_key(n).encode() for n in range(16))}


def test_a_server_that_is_out_is_told_as_such() -> None:
    quota = Quota(connect("unix:///nowhere/at/all.sock"))
    with pytest.raises(StoreUnavailable):
        ask(quota, "one", EVERY)
    with pytest.raises(StoreUnavailable):
        quota.settle(None, event("one", 1, 1), now_s=NOW_S)
    with pytest.raises(StoreUnavailable):
        quota.reap(NUMBER, now_s=NOW_S)
    with pytest.raises(StoreUnavailable):
        quota.state(ACME, EVERY, time_zone=TOKYO, now_s=NOW_S)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[redis.Redis]:
    """A server of this test's own."""
    store = embedded.start_valkey(tmp_path, durable=False)
    with redis.Redis.from_url(store.url) as client:
        yield client
    store.stop()


def test_a_full_server_does_a_verb_whole_or_not_at_all(own_server: redis.Redis) -> None:
    quota = whole_quota(own_server)
    reservation = admitted(ask(quota, "one", EVERY))
    before = everything(own_server)
    own_server.config_set("maxmemory", 1)
    for verb in (
        lambda: ask(quota, "two", EVERY),
        lambda: quota.settle(reservation, event("one", 1, 1), now_s=NOW_S),
        lambda: quota.renew([Progress(reservation, 5)], now_s=NOW_S + 1),
        lambda: quota.reap(NUMBER, now_s=NOW_S + LEASE_S),
    ):
        with pytest.raises(StoreUnavailable):
            verb()
    assert everything(own_server) == before
    own_server.config_set("maxmemory", 0)
    assert quota.settle(reservation, event("one", 1, 1), now_s=NOW_S)


# Numbers


def test_the_largest_numbers_are_counted_exactly(quota: Quota, valkey: redis.Redis) -> None:
    month = (limit("money_per_month", MAX), limit("tokens_per_month", MAX))
    large = MAX - 3

    def reserve(request_id: str, tokens: int) -> Reservation | Refusal:
        return quota.reserve(
            request_id,
            ACME,
            month,
            prompt_tokens=tokens,
            output_tokens=0,
            cost_nano=tokens,
            time_zone=TOKYO,
            now_s=NOW_S,
            meta=skeleton(event(request_id)),
        )

    assert quota.settle(admitted(reserve("one", large)), event("one", large, 0, cost_nano=large), now_s=NOW_S)
    assert standing(quota, month, NOW_S) == [(large, 0), (large, 0)]
    assert journaled(valkey)[0].cost_nano == journaled(valkey)[0].prompt_tokens == large
    told = refused(reserve("four", 4)).states
    assert [(state.used, state.reserved) for state in told] == [(large, 0), (large, 0)]
    told = admitted(reserve("three", 3)).states
    assert [(state.used, state.reserved) for state in told] == standing(quota, month, NOW_S) == [(large, 3), (large, 3)]
    assert [*told] == quota.state(ACME, month, time_zone=TOKYO, now_s=NOW_S)


@pytest.mark.parametrize("price", [PRICE, {"prompt": 10**12, "cached": 0, "completion": 999_999_999_999}])
def test_the_cost_of_a_lost_call_is_what_python_makes_it(quota: Quota, price: dict[str, int]) -> None:
    ask(quota, "one", (), prompt=8_191, output=800_000, meta=skeleton(event("one", price=price)))
    quota.renew([Progress(admitted(ask(quota, "one", (), prompt=8_191)), 777_777)], now_s=NOW_S)
    (lost,) = quota.reap(NUMBER, now_s=NOW_S + LEASE_S)
    assert lost.cost_nano == -(-(8_191 * price["prompt"] + 777_777 * price["completion"]) // 1000)
