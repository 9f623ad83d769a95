"""How far the ledger is behind: asked of Redis alone, for it must be told when the worker or PostgreSQL is out."""

from dataclasses import dataclass
from math import inf
from typing import Any, Final

import redis

from usage.partitions import PARTITIONS, journal_key

JOURNAL_MAX: Final = 312_500  # of a partition, as in lua/posting.lua: beyond it the oldest make room, unposted
LATE_S: Final = 60.0  # the worker posts every second, and a turn of it takes 20 s at most


@dataclass(frozen=True, slots=True)
class Lag:
    """What is on the journal and not in the ledger. oldest_s: for how long the oldest has been waiting. dead: unreadable.

    full_in_s: until the fullest partition is full, should calls go on as they did; infinite when nothing waits.
    """

    entries: int
    oldest_s: float
    dead: int
    full_in_s: float

    @property
    def is_late(self) -> bool:
        return self.oldest_s > LATE_S


def journal_lag(client: redis.Redis, *, now_s: float) -> Lag:
    """One round trip. Raises RedisError."""
    keys = [journal_key(number) for number in range(PARTITIONS)]
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.xlen(key)
            pipe.xlen(dead_key(key))
            pipe.xrange(key, count=1)
        answers: list[Any] = pipe.execute()
    waiting = [
        (entries, max(0.001, now_s - int(first[0][0].partition(b"-")[0]) / 1000))
        for entries, first in zip(answers[0::3], answers[2::3], strict=True)
        if first
    ]
    return Lag(
        entries=sum(answers[0::3]),
        oldest_s=max((waits_s for _, waits_s in waiting), default=0.0),
        dead=sum(answers[1::3]),
        full_in_s=min((max(0, JOURNAL_MAX - entries) * waits_s / entries for entries, waits_s in waiting), default=inf),
    )


def dead_key(stream: str) -> str:
    """The stream that keeps what `stream` held and nobody can post: for people to look at."""
    return f"{stream}:dead"
