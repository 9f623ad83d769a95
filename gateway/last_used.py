"""When keys were last used: marked in Redis at most once a minute a key and worker; tasks.py takes the marks to the table."""

from collections.abc import Sequence
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


def marks_s(client: Any, lookup_ids: Sequence[str]) -> dict[str, int]:
    """When keys were used, in Unix seconds, as far as the table may not say yet. Empty when Redis is out."""
    if not lookup_ids:
        return {}
    try:
        with client.pipeline(transaction=False) as pipe:
            taken, marked = pipe.hmget(TAKEN, lookup_ids).hmget(MARKS, lookup_ids).execute()
    except RedisError:
        return {}
    pairs = [*zip(lookup_ids, taken, strict=True), *zip(lookup_ids, marked, strict=True)]  # the later ones win
    return {lookup_id: int(mark) for lookup_id, mark in pairs if mark is not None}
