"""When keys were last used: marked in Redis at most once a minute a key and worker; tasks.py takes the marks to the table."""

from contextlib import suppress
from typing import Any, Final

from usage.store import RedisError

MARKS: Final = "sekisho:keys:last_used"  # hash: lookup id -> Unix seconds
TAKEN: Final = f"{MARKS}:taken"  # the same, on its way to the table


class _Minute:
    """Which keys this worker has marked in the minute that runs. Bounded: it starts empty each minute."""

    __slots__ = ("marked", "number")

    def __init__(self) -> None:
        self.number = 0
        self.marked: set[str] = set()


_minute = _Minute()


def is_due(lookup_id: str, now_s: float) -> bool:
    """Has this worker not yet marked the key in the minute of now_s (Unix seconds)? No I/O."""
    number = int(now_s // 60)
    if number != _minute.number:
        _minute.number, _minute.marked = number, set()
    return lookup_id not in _minute.marked


def note(client: Any, lookup_id: str, now_s: float) -> None:
    """Mark a key as used now. client: Redis, or a pipeline that sends it along with other commands.

    Most calls find the key marked, and cost nothing. A Redis that is out loses the mark, not the call.
    """
    if not is_due(lookup_id, now_s):
        return
    _minute.marked.add(lookup_id)
    with suppress(RedisError):
        client.hset(MARKS, lookup_id, int(now_s))


def marked_s(client: Any, lookup_id: str) -> int | None:
    """When the key was used, in Unix seconds, as far as the table may not say yet; None: no mark, or Redis is out."""
    try:
        with client.pipeline(transaction=False) as pipe:
            marks = pipe.hget(MARKS, lookup_id).hget(TAKEN, lookup_id).execute()
    except RedisError:
        return None
    return max((int(mark) for mark in marks if mark), default=None)
