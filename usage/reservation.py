"""What quota.py answers with: limits as they stand, what a call holds, why it was refused. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, NamedTuple, Protocol, overload

import orjson

from usage.events import COUNTED, UsageEvent
from usage.limits import CLAMPABLE, NO_LIMITS, Bound, BoundLimit

# Of an event's fields, what the scripts write of a call that was lost: they know how it ended.
OF_THE_END: Final = frozenset({"outcome", "usage_source", "duration_ms"})


class LimitState(NamedTuple):
    """A limit at one moment. Slots in use are `reserved`. reset_s: until all that is used now is gone; 0 when nothing is."""

    bound: BoundLimit
    used: int
    reserved: int
    reset_s: float

    @property
    def remaining(self) -> int:
        return max(0, self.bound.limit.max - self.used - self.reserved)


class Moments(Protocol):
    """One a limit, Unix ms."""

    def __getitem__(self, at: int, /) -> float: ...


class LimitStates(Sequence[LimitState]):
    """How all limits of a call stand, column by column as the scripts tell it: most calls ask for less than a row of each.

    used, reserved: one number a limit. reset_at_ms: see LimitState.reset_s, as moments.
    """

    __slots__ = ("_now_ms", "_reserved", "_reset_at_ms", "_used", "limits")

    def __init__(
        self, limits: Bound, used: Sequence[int], reserved: Sequence[int], reset_at_ms: Moments, now_ms: float
    ) -> None:
        self.limits = limits
        self._used = used
        self._reserved = reserved
        self._reset_at_ms = reset_at_ms
        self._now_ms = now_ms

    @overload
    def __getitem__(self, at: int) -> LimitState: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[LimitState]: ...
    def __getitem__(self, at: int | slice) -> LimitState | Sequence[LimitState]:
        if isinstance(at, slice):
            return [self[one] for one in range(*at.indices(len(self)))]
        reset_s = max(0, self._reset_at_ms[at] - self._now_ms) / 1000
        return LimitState(self.limits[at], self._used[at], self._reserved[at], reset_s)

    def __len__(self) -> int:
        return len(self.limits)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LimitStates) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # compared by tests alone

    def tightest(self, places: Iterable[tuple[int, int]]) -> tuple[int, int, float] | None:
        """Of the limits at `places`, the one with the smallest share left: its maximum, what remains of it, and its reset_s.

        places: as Bound.of_tokens has them. Each answer tells of two: as states they took it ten functions more (2026-11).
        """
        used, reserved = self._used, self._reserved
        tightest, least = None, inf
        for at, most in places:
            share = (most - used[at] - reserved[at]) / most if most else 0.0
            if share < 0:
                share = 0.0
            if share < least:
                tightest, least = (at, most), share
        if tightest is None:
            return None
        at, most = tightest
        reset_ms = self._reset_at_ms[at] - self._now_ms
        return most, max(0, most - used[at] - reserved[at]), reset_ms / 1000 if reset_ms > 0 else 0.0

    def columns(self) -> dict[str, Any]:
        """For a call's record, to be dumped by orjson; usage.events.limits_of makes of it what a UsageEvent has.

        As columns, and what is the same of every call made JSON once: written out by %, 18 limits took 8 us (2026-11), so 1.
        """
        return {"of": self.limits.told, "used": self._used, "reserved": self._reserved}


NO_STATES: Final = LimitStates(NO_LIMITS, (), (), (), 0)


@dataclass(slots=True)
class Reservation:
    """What a call holds. tokens: prompt and output. states: each of `limits`, this reservation counted.

    has_much_room: of every limit that refuses, many further calls like it may come before one is refused.

    Not frozen, as every call makes one: that takes four times as long. Nobody changes it.
    """

    request_id: str
    tenant_id: str
    time_zone: str
    limits: Bound
    prompt_tokens: int
    tokens: int
    cost_nano: int
    meta: bytes = field(repr=False)
    states: LimitStates
    lease_ends_s: float
    has_much_room: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nothing is held, no counter was changed. by: of the limits in the way, the one with the longest wait.

    retry_after_s: from now until the call fits them all; None: it never will. Exact while nobody else calls and live
    reservations stay; where nothing but reservations is in the way, it is when the leases of enough of them end.
    refusing: all the limits in the way. fits_tokens: the largest output that would be admitted now; 0 when none would.
    """

    by: LimitState
    retry_after_s: float | None
    refusing: tuple[LimitState, ...]
    states: LimitStates
    fits_tokens: int


class Progress(NamedTuple):
    """How far a live call has come. prompt_tokens: the backend's count, None until it is known."""

    reservation: Reservation
    completion_tokens: int
    prompt_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Counter:
    """What a counter should hold, by the ledger: of a window one for each second or minute, of a period one in all.

    at_s: a moment of that second, minute, day or month.
    """

    subject: str
    subject_id: str
    name: str
    used: int
    at_s: float


def skeleton(event: UsageEvent) -> bytes:
    """The `meta` of a reservation, from its call's event as far as it is known: what the reaper posts if the worker dies."""
    return event.json_without(COUNTED | OF_THE_END)


def fits_tokens(states: Iterable[LimitState], refusing: Iterable[LimitState], asked: Reservation) -> int:
    """The largest output that every enforced limit has room for beside the prompt; 0 when a shorter one does not help."""
    if any(state.bound.limit.name not in CLAMPABLE for state in refusing):
        return 0
    fits = asked.tokens - asked.prompt_tokens
    for state in states:
        limit, room = state.bound.limit, state.bound.limit.max - state.used - state.reserved
        if not limit.is_enforced or limit.name not in CLAMPABLE:
            continue
        if limit.name != "money_per_month":
            fits = min(fits, room - asked.prompt_tokens)
        elif asked.cost_nano > room:
            fits = min(fits, _fits_nano(room, asked))
    return max(0, fits)


def _fits_nano(room_nano: int, asked: Reservation) -> int:
    """The largest output for `room_nano`. Costs are rounded up: one fits when its pico-units fit into those of the room."""
    price = orjson.loads(asked.meta).get("price")
    if not price or not price["completion"]:
        return 0
    return int((room_nano * 1000 - asked.prompt_tokens * price["prompt"]) // price["completion"])
