"""From the journal to the ledger: read a batch, post it, and only then take it off the journal.

One consumer name for all who read: what was handed to a reader that was killed, or could not post, is handed out again
to the next one before anything new. Two at once do no harm, for the ledger inserts once; the lock only spares the work.
"""

import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson
import redis
from django.conf import settings
from django.db import DataError, IntegrityError
from redis.exceptions import LockError, ResponseError

from usage import ledger, rollups
from usage.events import UsageEvent
from usage.lag import dead_key
from usage.partitions import PARTITIONS, journal_key
from usage.store import connect

GROUP: Final = "ledger"
BATCH_EVENTS: Final = 5000
LOCK: Final = "sekisho:journal:posting"
LOCK_S: Final = 10.0  # a reader that was killed holds up the next one no longer than this
DEAD_MOST: Final = 300_000  # of a partition; as long as the journal itself may get
FUTURE_MOST_S: Final = 2 * 86400.0
PAST_MOST_S: Final = 10 * 366 * 86400.0

_log = logging.getLogger(__name__)
_Unpostable = (ValueError, TypeError, AttributeError, OverflowError, DataError, IntegrityError)


@dataclass(frozen=True, slots=True)
class _Entry:
    stream: str
    id: bytes
    raw: bytes


def post_journal(*, max_s: float) -> int:
    """Post for at most about `max_s`, unless another is at it; how many events were new to the ledger.

    Raises RedisError, or OperationalError or InterfaceError when PostgreSQL is out; whatever was not posted then stays.
    """
    with _client() as client:
        lock = client.lock(LOCK, timeout=LOCK_S, blocking=False, thread_local=False)
        if not lock.acquire():
            return 0
        try:
            rollups.realign()
            return _post(client, ("0", ">"), until=time.monotonic() + max_s, between=lock.reacquire)
        finally:
            with suppress(LockError):
                lock.release()


def drain_journal(partitions: Iterable[int] = range(PARTITIONS)) -> int:
    """Post everything that is on the journal now, also what another reader holds at this moment; how many were new.

    When it returns, every event that was journaled before it was called is in the ledger. Raises as post_journal.
    """
    with _client() as client:
        rollups.realign()
        # At last what other readers took meanwhile: to post it again is to wait for their commit.
        return _post(client, ("0", ">", "0"), until=None, between=lambda: None, partitions=partitions)


def _client() -> redis.Redis:
    return connect(settings.REDIS_URL, max_connections=2, timeout_s=5)


def _post(
    client: redis.Redis,
    order: Sequence[str],
    *,
    until: float | None,
    between: Callable[[], Any],
    partitions: Iterable[int] = range(PARTITIONS),
) -> int:
    """order: "0" for what was handed out and never acknowledged, ">" for what is new.

    until: monotonic seconds; None: until what was there at first is posted, for where calls go on the journal never ends.
    """
    posted = 0
    streams = deque(map(journal_key, partitions))
    for after in order:
        is_all = False
        while not is_all and (until is None or time.monotonic() < until) and (entries := _read(client, streams, after)):
            is_all = until is None and len(entries) < BATCH_EVENTS  # then each stream was read to its end
            dead: list[tuple[_Entry, str]] = []
            posted += _post_entries(entries, dead)
            _take_off(client, entries, dead)
            between()
            streams.rotate(-1)  # so that a tenant of many calls cannot keep the others waiting
    return posted


def _read(client: redis.Redis, streams: Sequence[str], after: str) -> list[_Entry]:
    entries: list[_Entry] = []
    for stream in streams:
        count = BATCH_EVENTS - len(entries)
        if count == 0:
            break
        entries += [
            _Entry(stream, entry_id, fields.get(b"event", b""))
            for entry_id, fields in _group_read(client, stream, after, count)
        ]
    return entries


def _group_read(client: redis.Redis, stream: str, after: str, count: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
    try:
        reply: Any = client.xreadgroup(GROUP, GROUP, {stream: after}, count=count)
    except ResponseError as error:
        if not str(error).startswith("NOGROUP"):
            raise
        _make_group(client, stream)
        return _group_read(client, stream, after, count)
    return [(entry_id, fields or {}) for _, entries in reply for entry_id, fields in entries]


def _make_group(client: redis.Redis, stream: str) -> None:
    """The first time, and after Redis was emptied. Another reader may be faster."""
    try:
        client.xgroup_create(stream, GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if not str(error).startswith("BUSYGROUP"):
            raise


def _post_entries(entries: Sequence[_Entry], dead: list[tuple[_Entry, str]]) -> int:
    """Post them; what cannot be stored is found by halving and put on `dead`, with the reason, so that it holds up nobody."""
    try:
        return ledger.post([_event(entry.raw) for entry in entries])
    except _Unpostable as error:
        if len(entries) == 1:
            dead.append((entries[0], type(error).__name__))
            return 0
    middle = len(entries) // 2
    return _post_entries(entries[:middle], dead) + _post_entries(entries[middle:], dead)


def _event(raw: bytes) -> UsageEvent:
    """Raises ValueError, TypeError or AttributeError for what is no event."""
    event = UsageEvent.from_dict(orjson.loads(raw))
    if not -FUTURE_MOST_S < time.time() - event.created_s < PAST_MOST_S:
        raise ValueError("an event of another time")  # it would have a partition made for a month that nobody looks for
    return event


def _take_off(client: redis.Redis, entries: Sequence[_Entry], dead: Sequence[tuple[_Entry, str]]) -> None:
    """Acknowledge and delete; should this be lost, they are posted again, to no effect."""
    for entry, reason in dead:
        _log.error("An entry of the journal cannot be posted: %s of %s, %s", entry.id.decode(), entry.stream, reason)
        client.xadd(dead_key(entry.stream), {"event": entry.raw, "reason": reason}, maxlen=DEAD_MOST, approximate=True)
    ids: dict[str, list[bytes]] = defaultdict(list)
    for entry in entries:
        ids[entry.stream].append(entry.id)
    for stream, taken in ids.items():
        with client.pipeline(transaction=True) as pipe:
            pipe.xack(stream, GROUP, *taken)
            pipe.xdel(stream, *taken)
            pipe.execute()
