"""What the workers tell each other of their open calls, as it stands in Redis."""

import pytest
import redis

from gateway.routing import in_flight
from gateway.routing.in_flight import KEY, encode, read, totals

NOW_S = 1_800_000_000.0


def test_calls_of_all_workers_are_added_up() -> None:
    entries = {b"w1": encode({"a": 2, "b": 1}, at_s=NOW_S), b"w2": encode({"a": 3}, at_s=NOW_S - 1)}
    assert totals(entries, now_s=NOW_S) == {"a": 5, "b": 1}
    assert totals(entries, now_s=NOW_S, without="w1") == {"a": 3}
    assert totals(entries, now_s=NOW_S)["c"] == 0


@pytest.mark.parametrize("age_s", [in_flight.STALE_S + 0.01, 3600, -3600])
def test_worker_that_told_nothing_lately_does_not_count(age_s: float) -> None:
    entries = {b"dead": encode({"a": 7}, at_s=NOW_S - age_s), b"live": encode({"a": 1}, at_s=NOW_S)}
    assert totals(entries, now_s=NOW_S) == {"a": 1}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"{}", b'{"at": "now", "backends": {}}', b'{"at": 1800000000}'])
def test_entry_that_cannot_be_read_is_passed_over(body: bytes) -> None:
    assert totals({b"odd": body, b"live": encode({"a": 1}, at_s=NOW_S)}, now_s=NOW_S) == {"a": 1}


def test_age_is_told_by_the_clock_of_redis(valkey: redis.Redis) -> None:
    seconds, microseconds = valkey.time()
    now_s = seconds + microseconds / 1e6
    valkey.hset(KEY, mapping={"live": encode({"a": 2}, at_s=now_s), "dead": encode({"a": 5}, at_s=now_s - 60)})
    assert read(valkey) == {"a": 2}


def test_nobody_has_told_anything_yet(valkey: redis.Redis) -> None:
    assert read(valkey) == {}
