"""How many calls each worker has open at each backend, as the workers tell each other through Redis.

A hash of one field a worker: {"at": Unix seconds, "backends": {name: calls}}. `at` is by the clock of Redis (its TIME), for
the clocks of machines differ. A worker that died leaves its field behind: it stops counting after STALE_S.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, cast

import orjson
import redis

KEY: Final = "sekisho:backends:in_flight"
STALE_S: Final = 3.0


def encode(calls: Mapping[str, int], *, at_s: float) -> bytes:
    """What a worker writes into its field. calls: backend's name -> calls open there."""
    return orjson.dumps({"at": at_s, "backends": calls})


def totals(entries: Mapping[bytes, bytes], *, now_s: float, without: str | None = None) -> Counter[str]:
    """Backend's name -> calls open there. without: the worker whose own are left out, for it knows them better.

    What is older than STALE_S, and what cannot be read, does not count.
    """
    counted: Counter[str] = Counter()
    for worker, body in entries.items():
        if without is None or worker != without.encode():
            counted.update(_fresh(body, now_s))
    return counted


def read(client: redis.Redis) -> Counter[str]:
    """Of all workers, now. Raises RedisError."""
    pipe = client.pipeline(transaction=False)
    pipe.time()
    pipe.hgetall(KEY)
    (seconds, microseconds), entries = pipe.execute()
    return totals(entries, now_s=seconds + microseconds / 1e6)


def _fresh(body: bytes, now_s: float) -> Mapping[str, int]:
    try:
        entry: Any = orjson.loads(body)
        is_fresh = abs(now_s - entry["at"]) <= STALE_S
        return cast("Mapping[str, int]", entry["backends"]) if is_fresh else {}
    except (ValueError, KeyError, TypeError):  # of another release
        return {}
