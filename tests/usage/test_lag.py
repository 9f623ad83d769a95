"""How far the ledger is behind, and how long the journal can bear it."""

from math import inf
from pathlib import Path

import pytest
import redis

from usage.lag import JOURNAL_MAX, Lag, dead_key, journal_lag
from usage.partitions import journal_key


def test_nothing_waits(valkey: redis.Redis) -> None:
    assert journal_lag(valkey, now_s=1000.0) == Lag(0, 0.0, 0, inf)


def test_how_much_waits_and_for_how_long(valkey: redis.Redis) -> None:
    valkey.xadd(journal_key(3), {"event": b"x"}, id="900000-0")
    valkey.xadd(journal_key(5), {"event": b"x"}, id="950000-0")
    valkey.xadd(dead_key(journal_key(5)), {"event": b"x"})
    lag = journal_lag(valkey, now_s=1000.0)
    assert (lag.entries, lag.oldest_s, lag.dead) == (2, 100.0, 1)


@pytest.mark.parametrize(("seconds", "is_late"), [(60.0, False), (60.1, True)])
def test_a_minute_is_late(valkey: redis.Redis, seconds: float, is_late: bool) -> None:
    valkey.xadd(journal_key(0), {"event": b"x"}, id="900000-0")
    assert journal_lag(valkey, now_s=900 + seconds).is_late is is_late


def test_the_partition_that_fills_first_says_when(valkey: redis.Redis) -> None:
    for number in range(100):  # ten a second
        valkey.xadd(journal_key(7), {"event": b"x"}, id=f"{990_000 + number * 100}-0")
    valkey.xadd(journal_key(8), {"event": b"x"}, id="990000-0")
    assert journal_lag(valkey, now_s=1000.0).full_in_s == (JOURNAL_MAX - 100) / 10


def test_the_bound_is_the_scripts_own() -> None:
    posting = Path(__file__).parents[2] / "usage/lua/posting.lua"
    assert f"local JOURNAL_MAX = {JOURNAL_MAX} " in posting.read_text()
