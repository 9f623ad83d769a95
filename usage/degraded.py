"""Limits while Redis is out: each worker enforces its share of them by itself, for a while. Pure; no I/O.

For tenants whose `store_out` is `degraded`. Answers as usage/quota.py does, so that the caller need not tell them apart.
To this worker the shares of the others count as used; so does what Redis last told was used, as long as that lasts.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from usage.events import EndedCall
from usage.limits import PERIODIC, TOKEN_NAMES, WIDTHS_S, WINDOW_BUCKETS, Bound, BoundLimit, period
from usage.reservation import NO_STATES, LimitState, LimitStates, Refusal, Reservation, fits_tokens
from usage.store import StoreUnavailable

LEASE_S: Final = 30.0
RETRY_S: Final = 1.0  # where only live calls are in the way: nobody knows when they end
SEEN_MAX: Final = 50_000  # limits of which the last state is remembered, about 10 MB
RESENT_WITHIN_S: Final = 60.0  # after Redis is back, what was used meanwhile is in its counters by then

_Id = tuple[str, str, str, str]  # tenant, subject, subject id, limit's name


class _Counter:
    """What this worker counted for one limit: a window of buckets, a calendar period, or slots, which are never used."""

    __slots__ = ("buckets", "name", "period_ends_s", "period_id", "reserved", "used")

    def __init__(self, name: str) -> None:
        self.name = name
        self.reserved = 0
        self.used = 0
        self.buckets: deque[list[int]] = deque()  # [index, amount], oldest first
        self.period_id = ""
        self.period_ends_s = 0.0

    def roll(self, now_s: float, time_zone: str) -> None:
        """Let go of what has left the window or the period. A clock that went back counts with the latest moment seen."""
        if self.name in PERIODIC:
            found, ends_s = period(self.name, now_s, time_zone)
            if found > self.period_id:
                self.period_id, self.period_ends_s, self.used = found, ends_s, 0
        elif self.name in WIDTHS_S:
            oldest = self._index(now_s) - WINDOW_BUCKETS + 1
            while self.buckets and self.buckets[0][0] < oldest:
                self.used -= self.buckets.popleft()[1]

    def use(self, amount: int, now_s: float) -> int:
        """Count `amount` as used now; call roll() first. Returns the bucket, for give_back()."""
        self.used += amount
        if self.name not in WIDTHS_S:
            return 0
        index = self._index(now_s)
        if not self.buckets or self.buckets[-1][0] != index:
            self.buckets.append([index, 0])
        self.buckets[-1][1] += amount
        return index

    def give_back(self, index: int) -> None:
        """Take one out of the bucket again, if that is still in the window."""
        for bucket in self.buckets:
            if bucket[0] == index and bucket[1] > 0:
                bucket[1] -= 1
                self.used -= 1

    def wait_s(self, need: int, now_s: float) -> float | None:
        """Until `need` of what is used has left by itself; None when all of it is less."""
        if self.name in PERIODIC:
            return self.period_ends_s - now_s if need <= self.used else None
        for index, amount in self.buckets:
            need -= amount
            if need <= 0:
                return (index + WINDOW_BUCKETS) * WIDTHS_S[self.name] - now_s
        return None

    def reset_s(self, now_s: float) -> float:
        if self.name in PERIODIC:
            return max(0.0, self.period_ends_s - now_s)
        last = next((index for index, amount in reversed(self.buckets) if amount > 0), None)
        return 0.0 if last is None else (last + WINDOW_BUCKETS) * WIDTHS_S[self.name] - now_s

    def _index(self, now_s: float) -> int:
        index = int(now_s // WIDTHS_S[self.name])
        return max(index, self.buckets[-1][0]) if self.buckets else index


@dataclass(frozen=True, slots=True)
class _Seen:
    """What Redis told of a limit, and until when that may still count."""

    used: int
    until_s: float


class LocalLimiter:
    """One a worker, for its whole life. share: how many workers there are; each allows limit // share.

    max_s: how long calls are admitted on these counts alone, from the first that had to be.
    """

    def __init__(self, share: int, *, max_s: float) -> None:
        self._share = max(1, share)
        self._max_s = max_s
        self._counters: dict[_Id, _Counter] = {}
        self._held: dict[str, tuple[Reservation, dict[_Id, int]]] = {}
        self._seen: dict[_Id, _Seen] = {}
        self._told_of: set[str] = set()  # tenants that _seen or _slots may know of
        self._slots: Counter[_Id] = Counter()  # of live calls of this worker that Redis admitted
        self._ends_s: float | None = None  # of the outage's allowance; None while Redis is there
        self._back_s: float | None = None

    def saw(self, reservation: Reservation, *, now_s: float) -> None:
        """Redis admitted a call: it is there, and this is how the limits stand."""
        if self._ends_s is not None:
            self._ends_s, self._back_s = None, now_s
        if len(self._seen) > SEEN_MAX:
            self._seen.clear()  # of the many most have not been near their limits: cheaper than an order of use
            self._told_of = {tenant_id for tenant_id, *_ in self._slots}
        self._told_of.add(reservation.tenant_id)
        for state in reservation.states:
            name = state.bound.limit.name
            lasts_s = LEASE_S if name == "concurrent_requests" else state.reset_s
            if name in WIDTHS_S:
                lasts_s = WINDOW_BUCKETS * WIDTHS_S[name]  # what is reserved will be used later than what is used
            at = _id(reservation.tenant_id, state.bound)
            self._seen[at] = _Seen(state.used + state.reserved, now_s + lasts_s)
            if name == "concurrent_requests":
                self._slots[at] += 1

    def reserve(  # noqa: PLR0913 - as Quota.reserve
        self,
        request_id: str,
        tenant_id: str,
        limits: Sequence[BoundLimit],
        *,
        prompt_tokens: int,
        output_tokens: int,
        cost_nano: int,
        time_zone: str,
        now_s: float,
        meta: bytes,
    ) -> Reservation | Refusal:
        """Hold the call in every limit, or in none that enforces. What each argument is: Quota.reserve.

        The states it answers with are of the limits as configured; what other workers may use counts as used.
        Refusal.retry_after_s ends with the time for which calls are admitted so: by then Redis is back, or they are not.
        Raises StoreUnavailable when Redis has been out for longer than `max_s`.
        """
        ends_s = self._begin(now_s)
        if request_id in self._held:
            return self._held[request_id][0]
        tokens = prompt_tokens + output_tokens
        asked = Reservation(
            request_id,
            tenant_id,
            time_zone,
            Bound.of(limits),
            prompt_tokens,
            tokens,
            cost_nano,
            meta,
            NO_STATES,
            now_s + LEASE_S,
        )
        for bound in limits:
            self._counter(tenant_id, bound).roll(now_s, time_zone)
        states = self._states(asked, now_s)
        refusing = tuple(
            state
            for state in states
            if state.bound.limit.is_enforced
            and state.used + state.reserved + _amount(state.bound, asked) > state.bound.limit.max
        )
        if refusing:
            waits = [(self._wait_s(state, asked, now_s, ends_s), state) for state in refusing]
            wait_s, by = max(waits, key=lambda wait: float("inf") if wait[0] is None else wait[0])
            return Refusal(by, wait_s, refusing, states, fits_tokens(states, refusing, asked))
        buckets = {}
        for bound in limits:
            counter = self._counter(tenant_id, bound)
            if bound.limit.name == "requests_per_minute":
                buckets[_id(tenant_id, bound)] = counter.use(1, now_s)
            else:
                counter.reserved += _amount(bound, asked)
        asked.states = self._states(asked, now_s)
        self._held[request_id] = (asked, buckets)
        return asked

    def holds(self, request_id: str) -> bool:
        """Was the call admitted here, and has not ended?"""
        return request_id in self._held

    def settle(self, reservation: Reservation, event: EndedCall, *, now_s: float) -> bool:
        """Count what the call used and end what it holds here. False: it holds nothing here, or not any more.

        A call whose usage_source is none gives its request back too. The event is the caller's to keep.
        """
        if reservation.request_id not in self._held:
            if reservation.tenant_id in self._told_of:  # else none of its limits would be enforced here
                self._ended(reservation, event)
            return False
        self._end(reservation.request_id, event, now_s)
        return True

    def release(self, request_id: str, *, now_s: float) -> None:
        """Of a call that is held here: it will not be."""
        self._end(request_id, None, now_s)

    def _end(self, request_id: str, event: EndedCall | None, now_s: float) -> None:
        held, buckets = self._held.pop(request_id)
        for bound in held.limits:
            counter = self._counter(held.tenant_id, bound)
            counter.roll(now_s, held.time_zone)
            name = bound.limit.name
            if name == "requests_per_minute":
                if event is None or event.usage_source == "none":
                    counter.give_back(buckets[_id(held.tenant_id, bound)])
                continue
            counter.reserved -= _amount(bound, held)
            if event is not None and name != "concurrent_requests":
                counter.use(_used(name, event), now_s)

    def _ended(self, reservation: Reservation, event: EndedCall) -> None:
        """A call that Redis admitted: what it told last holds all that was reserved, and too little would be left."""
        for bound in reservation.limits:
            at, name = _id(reservation.tenant_id, bound), bound.limit.name
            seen = self._seen.get(at)
            if seen is not None and name != "requests_per_minute":
                used = seen.used + _used(name, event) - _amount(bound, reservation)
                self._seen[at] = replace(seen, used=max(0, used))
            if name == "concurrent_requests":
                self._slots[at] -= 1
                if self._slots[at] <= 0:
                    del self._slots[at]

    def _begin(self, now_s: float) -> float:
        """Note that Redis is out. Returns until when calls are admitted without it; raises StoreUnavailable after that."""
        if self._ends_s is None:
            self._ends_s = now_s + self._max_s
            if self._back_s is not None and now_s - self._back_s > RESENT_WITHIN_S:
                self._counters = {at: counter for at, counter in self._counters.items() if counter.reserved}
        if now_s > self._ends_s:
            raise StoreUnavailable("Redis has been out for longer than limits may be enforced without it")
        return self._ends_s

    def _counter(self, tenant_id: str, bound: BoundLimit) -> _Counter:
        at = _id(tenant_id, bound)
        found = self._counters.get(at)
        if found is None:
            found = self._counters[at] = _Counter(bound.limit.name)
        return found

    def _states(self, asked: Reservation, now_s: float) -> LimitStates:
        counters = [self._counter(asked.tenant_id, bound) for bound in asked.limits]
        used = [
            bound.limit.max - self._allowed(asked.tenant_id, bound, now_s) + counter.used
            for bound, counter in zip(asked.limits, counters, strict=True)
        ]
        reset_at_ms = [(now_s + counter.reset_s(now_s)) * 1000 for counter in counters]
        return LimitStates(asked.limits, used, [counter.reserved for counter in counters], reset_at_ms, now_s * 1000)

    def _allowed(self, tenant_id: str, bound: BoundLimit, now_s: float) -> int:
        """This worker's share of the limit, or of what Redis last said was left of it."""
        at = _id(tenant_id, bound)
        seen = self._seen.get(at)
        used = seen.used if seen is not None and now_s < seen.until_s else 0
        left, share = (bound.limit.max - used) // self._share, bound.limit.max // self._share
        return max(0, min(left, share - self._slots[at]))

    def _wait_s(self, state: LimitState, asked: Reservation, now_s: float, ends_s: float) -> float | None:
        """Until the call fits the limit here, or is judged by Redis or not at all; None: it never will fit, with or without."""
        bound, amount = state.bound, _amount(state.bound, asked)
        if amount > bound.limit.max:
            return None
        left_s = ends_s - now_s
        if amount > self._allowed(asked.tenant_id, bound, now_s):
            return left_s
        need = state.used + state.reserved + amount - bound.limit.max
        wait_s = None
        if state.used + amount > bound.limit.max:
            wait_s = self._counter(asked.tenant_id, bound).wait_s(need, now_s)
        return min(left_s, RETRY_S if wait_s is None else wait_s)


def _id(tenant_id: str, bound: BoundLimit) -> _Id:
    return tenant_id, bound.subject, bound.subject_id, bound.limit.name


def _used(name: str, event: EndedCall) -> int:
    if name in TOKEN_NAMES:
        return event.prompt_tokens + event.completion_tokens
    return event.cost_nano if name == "money_per_month" else 0


def _amount(bound: BoundLimit, asked: Reservation) -> int:
    name = bound.limit.name
    if name in TOKEN_NAMES:
        return asked.tokens
    return asked.cost_nano if name == "money_per_month" else 1


__all__ = ["LocalLimiter"]
