"""Layout: how the limits of a call are told to the scripts of lua/, and how their answers tell where these stand. Pure.

The scripts go by subject: all counters of one are one string (lua/counters.lua), and that string is the answer too.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from operator import itemgetter
from struct import Struct, pack
from typing import Final

from usage.limits import WIDTHS_S, WINDOW_BUCKETS, Bound, BoundLimit, Limit
from usage.partitions import alive_key, partition, subject_key
from usage.reservation import LimitStates

# The letters by which the scripts know the limits. Counters are packed in this order; slots have none.
CODES: Final = {
    "requests_per_minute": "m",
    "tokens_per_hour": "h",
    "tokens_per_day": "d",
    "tokens_per_month": "M",
    "concurrent_requests": "c",
    "money_per_month": "$",
}
WIDTHS_MS: Final = {name: width_s * 1000 for name, width_s in WIDTHS_S.items()}
_SLOTS: Final = "concurrent_requests"
_COUNTED: Final = tuple(name for name in CODES if name != _SLOTS)
_RESERVED, _USED, _AT, _LAST = range(4)  # of each of these, in a subject's string; after it in an answer: how many slots
_NUMBERS: Final = 4 * len(_COUNTED)
_PACKED: Final = Struct(f"<{_NUMBERS}q")
# In an answer, before the numbers of the subjects: what it came to; what no slot has used.
_NONE, _FIRST = 1, 2

_Row = tuple[int, ...]
_Subjects = dict[tuple[str, str], list[Limit]]


@dataclass(frozen=True, slots=True)
class Layout:
    """Of the limits of one kind of call: the same for each of its calls, so found once.

    keys: KEYS of the scripts. codes: of each subject its limits. maxima: of all limits, packed. holds: one line a subject, in
    which the scripts find what a call holds: its codes and what its keys begin with; c, as each subject has its line of slots.
    """

    keys: tuple[str, ...]
    codes: tuple[str, ...]
    maxima: bytes
    holds: bytes
    _answer: Struct
    _used: Callable[[_Row], _Row]
    _reserved: Callable[[_Row], _Row]
    _last: tuple[tuple[int, int], ...]  # and the width of the bucket that it counts, ms: 0 of a period, whose end it is
    _moments: Struct
    _order: Callable[[_Row], _Row]  # of what is told by subject, that of the limits

    def read(self, answer: bytes, limits: Bound, now_ms: int) -> tuple[int, LimitStates]:
        """What it came to, and how the limits stand."""
        numbers = self._answer.unpack_from(answer)
        used = self._used(numbers)
        resets = _Resets(self._last, numbers, used, now_ms)
        return numbers[0], LimitStates(limits, used, self._reserved(numbers), resets, now_ms)

    def moments_ms(self, answer: bytes) -> _Row:
        """When a refused call would fit each limit, as reserve.lua tells it."""
        return self._order(self._moments.unpack_from(answer, self._answer.size))


class _Resets:
    """When all that is used of each limit will be gone, Unix ms. Worked out when asked: of most calls, for two of 18."""

    __slots__ = ("_last", "_now_ms", "_numbers", "_used")

    def __init__(self, last: tuple[tuple[int, int], ...], numbers: _Row, used: _Row, now_ms: int) -> None:
        self._last = last
        self._numbers = numbers
        self._used = used
        self._now_ms = now_ms

    def __getitem__(self, at: int) -> int:
        place, width_ms = self._last[at]
        if not width_ms:
            return self._numbers[place] if place else self._now_ms
        return (self._numbers[place] + WINDOW_BUCKETS) * width_ms if self._used[at] else self._now_ms


def layout_of(tenant_id: str, limits: Iterable[BoundLimit]) -> Layout:
    """Raises ValueError for two limits of one name on one subject."""
    bound = list(limits)
    subjects = _by_subject(bound)
    keys = [subject_key(tenant_id, *subject) for subject in subjects]
    codes = tuple("".join(CODES[limit.name] for limit in its) for its in subjects.values())
    places = [_place(one, list(subjects)) for one in bound]
    told = [(*subject, limit.name) for subject, its in subjects.items() for limit in its]
    maxima = [limit.max if limit.is_enforced else inf for its in subjects.values() for limit in its]
    return Layout(
        keys=(alive_key(partition(tenant_id)), *(f"{key}counters" for key in keys), *(f"{key}live" for key in keys)),
        codes=codes,
        maxima=_packed(maxima),
        holds="".join(f"{its.replace('c', '')}c {key}\n" for its, key in zip(codes, keys, strict=True)).encode(),
        _answer=Struct(f"<{_FIRST + len(subjects) * (_NUMBERS + 1)}q"),
        _used=_picked([_NONE if one.limit.name == _SLOTS else at + _USED for one, at in zip(bound, places, strict=True)]),
        _reserved=_picked(places),
        _last=tuple(
            (0, 0) if one.limit.name == _SLOTS else (at + _LAST, WIDTHS_MS.get(one.limit.name, 0))
            for one, at in zip(bound, places, strict=True)
        ),
        _moments=Struct(f"<{len(bound)}q"),
        _order=_picked([told.index((one.subject, one.subject_id, one.limit.name)) for one in bound]),
    )


def boundless(layout: Layout) -> bytes:
    """Maxima under which nothing is refused."""
    return _packed([inf] * (len(layout.maxima) // 8))


def counted(packed: bytes) -> set[str]:
    """The names of the limits that have a counter in a subject's string."""
    newest = _PACKED.unpack(packed)[_AT::4]
    return {name for name, at in zip(_COUNTED, newest, strict=True) if at}


def _by_subject(limits: Iterable[BoundLimit]) -> _Subjects:
    found: _Subjects = {}
    for bound in limits:
        its = found.setdefault((bound.subject, bound.subject_id), [])
        if any(limit.name == bound.limit.name for limit in its):
            raise ValueError(f"{bound.subject} {bound.subject_id} has two limits {bound.limit.name}")
        its.append(bound.limit)
    return found


def _place(bound: BoundLimit, subjects: Sequence[tuple[str, str]]) -> int:
    """Where in an answer a limit's numbers begin."""
    first = _FIRST + subjects.index((bound.subject, bound.subject_id)) * (_NUMBERS + 1)
    return first + (_NUMBERS if bound.limit.name == _SLOTS else 4 * _COUNTED.index(bound.limit.name) + _RESERVED)


def _picked(places: Sequence[int]) -> Callable[[_Row], _Row]:
    """Of a row, what stands at these places."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda row: tuple([row[place] for place in places])


def _packed(numbers: Sequence[float]) -> bytes:
    return pack(f"<{len(numbers)}d", *numbers)
