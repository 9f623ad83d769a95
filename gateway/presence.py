"""Presence: each worker of the gateway tells Redis that it lives, of which release it is and how its own work stands.

    sekisho:gateway:workers     hash: worker -> JSON of its Presence
    sekisho:gateway:told        when any of them last did, by the clock of Redis; outlives them all

For operators alone: nothing here decides over a call. With Redis out it is not told, and the field grows old.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson
import redis

from usage.store import RedisError

KEY: Final = "sekisho:gateway:workers"
TOLD: Final = "sekisho:gateway:told"
EVERY_S: Final = 5.0
STALE_S: Final = 15.0
GONE_S: Final = 300.0  # after which a dead worker's field is taken away
KEPT_S: Final = 3600


@dataclass(frozen=True, slots=True)
class Presence:
    """at_s: by the clock of Redis. begun_s: Unix seconds. snapshot_age_s: since it last missed no change; None: it never did.

    pending: ended calls in its spool that Redis has not confirmed; lost: those that neither disk nor memory could hold.
    """

    at_s: float
    begun_s: float
    version: str
    snapshot_age_s: float | None
    pending: int
    lost: int
    is_spool_writable: bool


def tell(client: redis.Redis, worker: str, presence: Presence) -> None:
    """Raises RedisError."""
    pipe = client.pipeline(transaction=False)
    pipe.hset(KEY, worker, orjson.dumps(asdict(presence)))
    pipe.expire(KEY, KEPT_S)
    pipe.set(TOLD, repr(presence.at_s))
    pipe.hgetall(KEY)
    *_, told = pipe.execute()
    gone = [name for name, body in told.items() if presence.at_s - _at_s(body) > GONE_S]
    if gone:
        client.hdel(KEY, *gone)


def keep_telling(client: redis.Redis, worker: str, now: Callable[[], Presence]) -> None:
    """The body of a greenlet."""
    while True:
        with suppress(RedisError):
            tell(client, worker, now())
        time.sleep(EVERY_S)


def leave(client: redis.Redis, worker: str) -> None:
    """The worker ends."""
    with suppress(RedisError):
        client.hdel(KEY, worker)


def present(client: redis.Redis, *, now_s: float) -> dict[str, Presence]:
    """Those that live, by worker; what another release wrote in another form is left out. Raises RedisError."""
    told: Any = client.hgetall(KEY)
    found = {}
    for worker, body in told.items():
        with suppress(ValueError, TypeError):
            presence = Presence(**orjson.loads(body))
            if abs(now_s - presence.at_s) <= STALE_S:
                found[worker.decode()] = presence
    return found


def told_s(client: redis.Redis) -> tuple[float, float] | None:
    """Now, and when any worker last told of itself; None: none ever did, as far as Redis knows. Raises RedisError."""
    pipe = client.pipeline(transaction=False)
    pipe.time()
    pipe.get(TOLD)
    (seconds, microseconds), told = pipe.execute()
    try:
        return seconds + microseconds / 1e6, float(told)
    except (TypeError, ValueError):
        return None


def _at_s(body: bytes) -> float:
    try:
        return float(orjson.loads(body)["at_s"])
    except (ValueError, KeyError, TypeError):
        return float("-inf")
