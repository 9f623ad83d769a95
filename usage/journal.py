"""The journal: usage events that are not yet posted, on a Redis stream. Append does no I/O; a flusher writes in batches."""

import threading
import time
from collections import deque
from itertools import islice
from typing import Final

import orjson
import redis
import structlog

from usage.events import UsageEvent
from usage.store import RedisError

STREAM: Final = "sekisho:journal"
STREAM_MAX_EVENTS: Final = 5_000_000  # about 2 GB: a bound for the day on which nobody reads
PENDING_MAX_EVENTS: Final = 200_000  # about 100 MB in the worker while Redis is out
BATCH_EVENTS: Final = 500
RETRY_S: Final = 0.5

_log = structlog.get_logger("usage")


class Journal:
    """One a process. Events leave in the order they were appended, each once unless Redis answered too late.

    While Redis is out they wait here; beyond PENDING_MAX_EVENTS the oldest are dropped and counted in `dropped`.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._pending: deque[bytes] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._writing = threading.Lock()
        self.dropped = 0

    def append(self, event: UsageEvent) -> None:
        if len(self._pending) >= PENDING_MAX_EVENTS:
            self._pending.popleft()
            self.dropped += 1
        self._pending.append(orjson.dumps(event.to_dict()))
        self._wake.set()

    def run(self) -> None:
        """Write what is appended, until stop(): the body of a greenlet or thread."""
        while not self._stopping:
            self._wake.wait(timeout=1)
            self._wake.clear()
            if not self.flush():
                time.sleep(RETRY_S)
                self._wake.set()

    def flush(self) -> bool:
        """Write everything pending. False when Redis did not take it; then nothing is lost and it may be tried again."""
        with self._writing:
            while batch := list(islice(self._pending, BATCH_EVENTS)):
                try:
                    with self._client.pipeline(transaction=False) as pipe:
                        for line in batch:
                            pipe.xadd(STREAM, {"event": line}, maxlen=STREAM_MAX_EVENTS, approximate=True)
                        pipe.execute()
                except RedisError as error:
                    _log.warning("journal_unreachable", error_class=type(error).__name__, pending=len(self._pending))
                    return False
                for _ in batch:
                    self._pending.popleft()
        return True

    def stop(self, *, timeout_s: float = 5.0) -> int:
        """Flush and end. Returns how many events could not be written in time."""
        self._stopping = True
        deadline = time.monotonic() + timeout_s
        while not self.flush() and time.monotonic() < deadline:
            time.sleep(0.1)
        return len(self._pending)
