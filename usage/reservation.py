"""What quota.py answers with: limits as they stand, what a call holds, why it was refused. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import orjson

from usage.events import UsageEvent
from usage.limits import CLAMPABLE, BoundLimit

# Of an event's fields, what the scripts write: they know what was posted of the call before, and how a lost one ended.
COUNTED: Final = frozenset({"part", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_nano"})
OF_THE_END: Final = frozenset({"outcome", "usage_source", "duration_ms"})


class LimitState(NamedTuple):
    """A limit at one moment. Slots in use are `reserved`. reset_s: until all that is used now is gone; 0 when nothing is.

    A tuple, as every call makes one for each of its limits: a frozen dataclass takes four times as long.
    """

    bound: BoundLimit
    used: int
    reserved: int
    reset_s: float

    @property
    def remaining(self) -> int:
        return max(0, self.bound.limit.max - self.used - self.reserved)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a call holds. tokens: prompt and output. states: each of `limits`, this reservation counted."""

    request_id: str
    tenant_id: str
    time_zone: str
    limits: tuple[BoundLimit, ...]
    prompt_tokens: int
    tokens: int
    cost_nano: int
    meta: bytes = field(repr=False)
    states: tuple[LimitState, ...]
    lease_ends_s: float


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
    states: tuple[LimitState, ...]
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
    return event_without(event, COUNTED | OF_THE_END)


def event_without(event: UsageEvent, names: frozenset[str]) -> bytes:
    """The event as JSON, without the fields that a script will write."""
    return orjson.dumps({name: value for name, value in event.to_dict().items() if name not in names})


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
