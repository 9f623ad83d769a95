"""One round trip to a real Redis: what is told, heard, and kept."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
import redis

from gateway.routing import in_flight
from gateway.routing.board import News
from gateway.routing.ejection import By, Ejection, eject
from gateway.routing.exchange import EJECTIONS, GONE_S, LEASE_S, Exchange, prober_key, trial_key
from usage.store import StoreUnavailable, connect

GPU = "gpu-1"
NOTHING = News(in_flight={}, verdicts={}, ejections={}, ended_trials=frozenset())


Exchanger = Callable[[str], Exchange]


@pytest.fixture
def exchange(redis_apart: str, store: redis.Redis) -> Exchanger:
    """exchange("a"): that of a worker of this name, on `store`."""
    return lambda worker: Exchange(connect(redis_apart), worker)


def now(store: redis.Redis) -> float:
    seconds, microseconds = store.time()
    return float(seconds + microseconds / 1e6)


def trip(one: Exchange, store: redis.Redis, news: News = NOTHING, **roles: Any) -> Any:
    return one.trip(news, now_s=now(store), **({"held": [], "wanted": [], "released": []} | roles))


def ejection(at_s: float) -> Ejection:
    return eject(None, by=By.CALLS, reason="cut", text="3 calls in a row failed", now_s=at_s)


def telling(record: Ejection) -> News:
    return News(in_flight={}, verdicts={}, ejections={GPU: record}, ended_trials=frozenset())


def test_clock_is_that_of_redis(exchange: Exchanger, store: redis.Redis) -> None:
    assert trip(exchange("a"), store).now_s == pytest.approx(now(store), abs=1)


def test_lease_is_had_by_one_and_renewed_by_it(exchange: Exchanger, store: redis.Redis) -> None:
    first, second = exchange("a"), exchange("b")
    assert trip(first, store, wanted=[GPU]).probers == {GPU: "a"}
    assert trip(second, store, wanted=[GPU]).probers == {GPU: "a"}
    store.pexpire(prober_key(GPU), 500)
    trip(first, store, held=[GPU])
    assert 500 < store.pttl(prober_key(GPU)) <= LEASE_S * 1000
    trip(first, store, released=[GPU])
    assert trip(second, store, wanted=[GPU]).probers == {GPU: "b"}


def test_lease_that_was_lost_is_noticed(exchange: Exchanger, store: redis.Redis) -> None:
    store.set(prober_key(GPU), "b")
    assert trip(exchange("a"), store, held=[GPU]).probers == {GPU: "b"}


def test_workers_that_live_are_counted_and_their_calls_heard(exchange: Exchanger, store: redis.Redis) -> None:
    first, second = exchange("a"), exchange("b")
    trip(first, store, News({GPU: 3}, {}, {}, frozenset()))
    told = trip(second, store, News({GPU: 5}, {}, {}, frozenset()))
    assert (told.workers, told.in_flight) == (2, {GPU: 3})
    first.leave([])
    assert trip(second, store).workers == 1


def test_worker_that_died_long_ago_is_swept_away(exchange: Exchanger, store: redis.Redis) -> None:
    for worker, age_s in (("dead", GONE_S + 1), ("silent", GONE_S / 2)):
        store.hset(in_flight.KEY, worker, in_flight.encode({GPU: 1}, at_s=now(store) - age_s))
    one = exchange("a")
    assert trip(one, store).workers == 1
    trip(one, store)
    assert sorted(store.hkeys(in_flight.KEY)) == [b"a", b"silent"]


def test_older_change_never_lies_over_a_newer_one(exchange: Exchanger, store: redis.Redis) -> None:
    newer, older = ejection(2000.25), ejection(1000.5)
    assert trip(exchange("a"), store, telling(newer)).ejections == {GPU: newer}
    assert trip(exchange("b"), store, telling(older)).ejections == {GPU: newer}
    assert trip(exchange("b"), store, telling(newer.readmitted(2001.0))).ejections[GPU].readmitted_at_s == 2001.0


@pytest.mark.parametrize("odd", [b"", b"[", b"null", b"7", b"{}", b'{"changed_s": "x"}'])
def test_record_that_cannot_be_read_is_written_over(exchange: Exchanger, store: redis.Redis, odd: bytes) -> None:
    store.hset(EJECTIONS, GPU, odd)
    one = ejection(1000.0)
    assert trip(exchange("a"), store, telling(one)).ejections == {GPU: one}
    assert orjson.loads(store.hget(EJECTIONS, GPU) or b"")["changed_s"] == 1000.0


def test_trial_is_claimed_by_one_until_it_ends(exchange: Exchanger, store: redis.Redis) -> None:
    first, second = exchange("a"), exchange("b")
    assert first.claim_trial(GPU)
    assert not second.claim_trial(GPU)
    assert 29_000 < store.pttl(trial_key(GPU)) <= 30_000
    trip(first, store, News({}, {}, {}, frozenset({GPU})))
    assert second.claim_trial(GPU)


def test_worker_that_leaves_gives_back_what_it_held(exchange: Exchanger, store: redis.Redis) -> None:
    one = exchange("a")
    trip(one, store, wanted=[GPU])
    one.leave([GPU])
    assert store.keys("sekisho:backends:*") == []


def test_frozen_redis_is_left_in_time(exchange: Exchanger, store: redis.Redis) -> None:
    one = exchange("a")
    trip(one, store)
    store.client_pause(3000)
    with pytest.raises(StoreUnavailable):
        trip_blind(one)
    with pytest.raises(StoreUnavailable):
        one.claim_trial(GPU)
    one.leave([GPU])
    store.client_unpause()


def trip_blind(one: Exchange) -> None:
    one.trip(NOTHING, now_s=0.0, held=[], wanted=[], released=[])
