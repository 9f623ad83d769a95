"""While Redis is out the workers together stay within every limit, each by itself, and answer as Redis would."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from usage.degraded import RESENT_WITHIN_S, RETRY_S, LocalLimiter
from usage.events import UsageEvent, UsageSource
from usage.limits import NAMES, BoundLimit, Limit
from usage.partitions import PARTITIONS
from usage.quota import Progress, Quota
from usage.reservation import LimitState, Refusal, Reservation
from usage.store import StoreUnavailable

START_S = 1_900_000_000.0  # 2030-03-18 02:46:40 in Tokyo
WINDOWS_S = {"requests_per_minute": 60, "tokens_per_hour": 3600}
ZONE = "Asia/Tokyo"


def bound(name: str, most: int, *, shadow: bool = False, clamps: bool = False) -> BoundLimit:
    return BoundLimit("tenant", "t1", Limit(name, most, "shadow" if shadow else "enforce", clamps))


def event(reservation: Reservation, prompt: int, completion: int, *, source: UsageSource = "backend") -> UsageEvent:
    return UsageEvent(
        request_id=reservation.request_id,
        created_s=START_S,
        tenant="acme",
        tenant_id="t1",
        key_id="k1",
        key_name="ci",
        alias="general",
        deployment=None,
        backend=None,
        status=200,
        outcome="completed",
        error_code=None,
        stream=False,
        prompt_tokens=prompt,
        cached_tokens=0,
        completion_tokens=completion,
        usage_source=source,
        first_token_ms=None,
        duration_ms=1,
        attempts=1,
        cost_nano=prompt + completion,
    )


def ask(
    limiter: LocalLimiter | Quota, request_id: str, limits: list[BoundLimit], tokens: int, now_s: float, prompt: int = 0
) -> Reservation | Refusal:
    return limiter.reserve(
        request_id,
        "t1",
        limits,
        prompt_tokens=prompt,
        output_tokens=tokens - prompt,
        cost_nano=tokens,
        time_zone=ZONE,
        now_s=now_s,
        meta=b'{"created_s":1900000000}',
    )


def admitted(answer: Reservation | Refusal) -> Reservation:
    assert isinstance(answer, Reservation), answer
    return answer


def refused(answer: Reservation | Refusal) -> Refusal:
    assert isinstance(answer, Refusal), answer
    return answer


# What each step does: worker, tokens asked for, share of them used, seconds that pass, which live call ends.
STEPS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(1, 60),
        st.floats(0, 1),
        st.sampled_from([0.0, 0.3, 1.0, 7.0, 59.9, 61.0, 900.0, 3601.0, 40_000.0]),
        st.one_of(st.none(), st.integers(0, 9)),
    ),
    max_size=60,
)


@given(STEPS, st.sampled_from(NAMES), st.integers(0, 200))
@settings(deadline=None)
def test_the_workers_together_never_pass_a_limit(
    steps: list[tuple[int, int, float, float, int | None]], name: str, most: int
) -> None:
    workers = [LocalLimiter(4, max_s=1e9) for _ in range(4)]
    live: list[tuple[LocalLimiter, Reservation]] = []
    used: list[tuple[float, int]] = []
    now_s = START_S
    for number, (worker, tokens, share, pause_s, ends) in enumerate(steps):
        now_s += pause_s
        answer = ask(workers[worker], str(number), [bound(name, most)], tokens, now_s)
        if isinstance(answer, Reservation):
            live.append((workers[worker], answer))
            if name == "requests_per_minute":
                used.append((now_s, 1))
        if ends is not None and ends < len(live):
            limiter, reservation = live.pop(ends)
            spent = int(reservation.tokens * share)
            assert limiter.settle(reservation, event(reservation, 0, spent), now_s=now_s)
            if name not in ("requests_per_minute", "concurrent_requests"):
                used.append((now_s, spent))
        held = sum(1 if name == "concurrent_requests" else reservation.tokens for _, reservation in live)
        if name == "requests_per_minute":
            held = 0
        assert held + sum(amount for at_s, amount in used if at_s >= counts_from_s(name, now_s)) <= most


def counts_from_s(name: str, now_s: float) -> float:
    """Since when uses count towards the limit."""
    if name in WINDOWS_S:
        return now_s - WINDOWS_S[name]
    day = datetime.fromtimestamp(now_s, ZoneInfo(ZONE)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (day if name == "tokens_per_day" else day.replace(day=1)).timestamp()


@given(STEPS, st.sets(st.sampled_from(NAMES), min_size=1), st.booleans())
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_worker_alone_answers_as_redis_does(
    valkey: redis.Redis, steps: list[tuple[int, int, float, float, int | None]], names: set[str], gives_back: bool
) -> None:
    valkey.flushdb()
    quota, local = Quota(valkey), LocalLimiter(1, max_s=1e9)
    for number in range(PARTITIONS):
        quota.mark_alive(number, journal_end="0-0", now_s=START_S)
    limits = [bound(name, 4 if name in ("concurrent_requests", "requests_per_minute") else 150) for name in sorted(names)]
    now_s, live = START_S, []
    for number, (_, tokens, share, pause_s, ends) in enumerate(steps):
        now_s += pause_s
        quota.renew([Progress(reservation, 0) for reservation, _ in live], now_s=now_s)
        theirs = ask(quota, str(number), limits, tokens, now_s, prompt=tokens // 3)
        ours = ask(local, str(number), limits, tokens, now_s, prompt=tokens // 3)
        assert type(ours) is type(theirs)
        assert_same(ours.states, theirs.states)
        if isinstance(ours, Reservation) and isinstance(theirs, Reservation):
            live.append((theirs, ours))
        elif isinstance(ours, Refusal) and isinstance(theirs, Refusal):
            assert ours.fits_tokens == theirs.fits_tokens
            assert_same(ours.refusing, theirs.refusing)
            if ours.retry_after_s != RETRY_S and ours.by.bound == theirs.by.bound:
                assert ours.retry_after_s is not None
                assert theirs.retry_after_s is not None
                assert abs(ours.retry_after_s - theirs.retry_after_s) < 0.002
        if ends is not None and ends < len(live):
            theirs, ours = live.pop(ends)
            spent = 0 if gives_back else int(ours.tokens * share)
            ended = event(ours, 0, spent, source="none" if gives_back else "backend")
            quota.settle(theirs, ended, now_s=now_s)
            local.settle(ours, ended, now_s=now_s)


def assert_same(ours: tuple[LimitState, ...], theirs: tuple[LimitState, ...]) -> None:
    assert [figures(state) for state in ours] == [figures(state) for state in theirs]
    assert [state.reset_s for state in ours] == pytest.approx([state.reset_s for state in theirs], abs=0.002)


def figures(state: LimitState) -> tuple[str, int, int]:
    return state.bound.limit.name, state.used, state.reserved


def test_shadow_limits_count_and_refuse_nothing() -> None:
    local = LocalLimiter(1, max_s=60)
    limits = [bound("tokens_per_day", 10, shadow=True)]
    admitted(ask(local, "1", limits, 8, START_S))
    (state,) = admitted(ask(local, "2", limits, 8, START_S)).states
    assert (state.reserved, state.remaining) == (16, 0)


def test_the_shares_of_others_count_as_used() -> None:
    (state,) = admitted(ask(LocalLimiter(4, max_s=60), "1", [bound("tokens_per_hour", 1000)], 50, START_S)).states
    assert (state.used, state.reserved, state.remaining) == (750, 50, 200)


def test_what_redis_told_was_used_still_counts() -> None:
    limits = [bound("tokens_per_hour", 1000), bound("concurrent_requests", 8)]
    states = (LimitState(limits[0], 500, 100, 3000.0), LimitState(limits[1], 0, 6, 0.0))
    told = Reservation("0", "t1", ZONE, tuple(limits), 0, 100, 0, b"", states, START_S + 30)
    local = LocalLimiter(2, max_s=1e6)
    local.saw(told, now_s=START_S)
    refusal = refused(ask(local, "1", limits, 250, START_S + 1))
    assert refusal.fits_tokens == 200
    admitted(ask(local, "2", limits, 200, START_S + 1))
    assert refused(ask(local, "3", limits, 0, START_S + 1)).by.bound == limits[1]
    admitted(ask(local, "4", limits, 0, START_S + 30))  # by then the leases it told of have ended
    admitted(ask(local, "5", limits, 300, START_S + 3660))


def test_what_ends_of_the_calls_that_redis_admitted_comes_free() -> None:
    limits = [bound("tokens_per_hour", 1000), bound("concurrent_requests", 4)]
    states = (LimitState(limits[0], 100, 900, 3000.0), LimitState(limits[1], 0, 4, 0.0))
    own = [Reservation(str(number), "t1", ZONE, tuple(limits), 0, 300, 0, b"", states, START_S + 30) for number in range(2)]
    local = LocalLimiter(2, max_s=60)
    for reservation in own:
        local.saw(reservation, now_s=START_S)
    assert refused(ask(local, "2", limits, 1, START_S)).refusing != ()
    for reservation in own:
        assert not local.settle(reservation, event(reservation, 10, 40), now_s=START_S)
    refusal = refused(ask(local, "3", limits, 251, START_S))  # half of what they left unused: 2 * 250 tokens, 2 slots
    assert [(state.bound, state.remaining) for state in refusal.states] == [(limits[0], 250), (limits[1], 1)]
    admitted(ask(local, "4", limits, 250, START_S))
    assert refused(ask(local, "5", limits[1:], 0, START_S)).by.bound == limits[1]


def test_live_calls_that_redis_admitted_keep_their_slots_for_as_long_as_they_live() -> None:
    limits = [bound("concurrent_requests", 8)]
    own = [
        Reservation(str(number), "t1", ZONE, tuple(limits), 0, 0, 0, b"", (LimitState(limits[0], 0, number, 0.0),), START_S)
        for number in range(3)
    ]
    local = LocalLimiter(2, max_s=600)
    for reservation in own:
        local.saw(reservation, now_s=START_S)
    admitted(ask(local, "a", limits, 0, START_S + 100))
    refused(ask(local, "b", limits, 0, START_S + 100))
    local.settle(own[0], event(own[0], 0, 0), now_s=START_S + 100)
    admitted(ask(local, "b", limits, 0, START_S + 100))
    refused(ask(local, "c", limits, 0, START_S + 100))


def test_a_call_that_is_released_was_never_there() -> None:
    local = LocalLimiter(1, max_s=60)
    limits = [bound("tokens_per_day", 100), bound("requests_per_minute", 1), bound("concurrent_requests", 1)]
    before = admitted(ask(local, "1", limits, 40, START_S))
    assert local.holds("1")
    local.release("1", now_s=START_S)
    assert not local.holds("1")
    assert admitted(ask(local, "2", limits, 40, START_S)).states == before.states


def test_a_call_larger_than_the_share_waits_for_redis_and_one_larger_than_the_limit_never_fits() -> None:
    local = LocalLimiter(4, max_s=60)
    limits = [bound("tokens_per_hour", 1000, clamps=True)]
    refusal = refused(ask(local, "1", limits, 251, START_S, prompt=50))
    assert (refusal.retry_after_s, refusal.fits_tokens) == (60, 200)
    assert refused(ask(local, "2", limits, 251, START_S + 20)).retry_after_s == 40
    assert refused(ask(local, "3", limits, 1001, START_S)).retry_after_s is None
    admitted(ask(local, "4", limits, 250, START_S))


def test_without_redis_for_too_long_nothing_is_admitted_until_it_is_back() -> None:
    local = LocalLimiter(2, max_s=60)
    reservation = admitted(ask(local, "1", [], 10, START_S))
    admitted(ask(local, "2", [], 10, START_S + 60))
    with pytest.raises(StoreUnavailable):
        ask(local, "3", [], 10, START_S + 61)
    local.saw(reservation, now_s=START_S + 70)
    admitted(ask(local, "4", [], 10, START_S + 100))


def test_a_short_return_of_redis_forgets_nothing_and_a_longer_one_counts_nothing_twice() -> None:
    local = LocalLimiter(2, max_s=600)
    limits = [bound("tokens_per_month", 1000)]
    told = Reservation("0", "t1", ZONE, (), 0, 0, 0, b"", (), START_S)
    reservation = admitted(ask(local, "1", limits, 500, START_S))
    local.settle(reservation, event(reservation, 100, 400), now_s=START_S)
    local.saw(told, now_s=START_S + 1)
    refused(ask(local, "2", limits, 1, START_S + 2))
    local.saw(told, now_s=START_S + 3)
    admitted(ask(local, "3", limits, 1, START_S + 4 + RESENT_WITHIN_S))


def test_asking_again_and_settling_again_change_nothing() -> None:
    local = LocalLimiter(1, max_s=60)
    limits = [bound("tokens_per_day", 100), bound("requests_per_minute", 2), bound("concurrent_requests", 1)]
    first = admitted(ask(local, "1", limits, 40, START_S))
    assert admitted(ask(local, "1", limits, 40, START_S)) == first
    assert local.settle(first, event(first, 0, 30), now_s=START_S)
    assert not local.settle(first, event(first, 0, 30), now_s=START_S)
    states = admitted(ask(local, "2", limits, 40, START_S)).states
    assert [(state.used, state.reserved) for state in states] == [(30, 40), (2, 0), (0, 1)]


def test_a_reservation_of_redis_is_not_settled_here() -> None:
    local = LocalLimiter(1, max_s=60)
    theirs = admitted(ask(LocalLimiter(1, max_s=60), "1", [bound("tokens_per_day", 100)], 40, START_S))
    assert not local.settle(theirs, event(theirs, 0, 40), now_s=START_S)
