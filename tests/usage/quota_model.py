"""What the quota's scripts should do, in plain Python and by definition: nothing is kept that can be counted anew.

No running sums: a counter is the list of what was used when, and of the reservations that hold it. Times in ms.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from usage.limits import PERIODIC, BoundLimit, period

BUCKETS: Final = 61
LEASE_MS: Final = 30_000
WIDTH_MS: Final = {"requests_per_minute": 1000, "tokens_per_hour": 60_000}
PRICE: Final = {"prompt": 1_500_371, "cached": 150_037, "completion": 2_999_999}  # pico a token; sums need rounding up

Subject = tuple[str, str, str]  # tenant, subject, subject id


def cost_nano(prompt: int, completion: int) -> int:
    return -(-(prompt * PRICE["prompt"] + completion * PRICE["completion"]) // 1000)


@dataclass
class Call:
    """A call as it was asked for, and how far it has come. holds: the limits it is held in, none before and after."""

    request_id: str
    tenant_id: str
    zone: str
    limits: tuple[BoundLimit, ...]
    prompt: int
    output: int
    known_prompt: int = 0
    completion: int = 0
    bucket: int = 0
    lease_ends_ms: int = 0
    holds: tuple[BoundLimit, ...] = ()
    is_live: bool = False

    def held(self, name: str) -> int:
        """What it holds of a limit of this name."""
        amounts = {"requests_per_minute": 0, "concurrent_requests": 1, "money_per_month": cost_nano(self.prompt, self.output)}
        return amounts.get(name, self.prompt + self.output)

    def asks(self, name: str) -> int:
        return 1 if name == "requests_per_minute" else self.held(name)

    def subjects(self, limits: Iterable[BoundLimit]) -> set[Subject]:
        return {(self.tenant_id, bound.subject, bound.subject_id) for bound in limits}


@dataclass
class Posted:
    """What was posted of a call: prompt, cached, completion tokens and cost, in so many parts."""

    amounts: tuple[int, int, int, int] = (0, 0, 0, 0)
    parts: int = 0
    is_settled: bool = False


@dataclass
class Used:
    """What was used of one limit of one subject: amounts by bucket or period, the latest of these seen, the period's end."""

    amounts: dict[str | int, int] = field(default_factory=dict)
    latest: str | int | None = None
    ends_ms: int = 0


@dataclass
class Wait:
    """When a call would fit. at_ms None: never. is_exact: not only a bound. stays: reservations were taken to stay."""

    at_ms: int | None
    is_exact: bool = True
    stays: bool = False


class Model:
    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}
        self.posted: dict[str, Posted] = {}
        self.used: dict[tuple[Subject, str], Used] = {}
        self.journal: list[tuple[str, int, int, int, int, int, bool]] = []  # id, part, amounts, was lost

    def reserve(self, call: Call, now_ms: int, *, limits: tuple[BoundLimit, ...] | None = None, enforces: bool = True) -> bool:
        """limits: what to hold, if not all."""
        limits = call.limits if limits is None else limits
        subjects = call.subjects(limits)
        if enforces:
            self._reap(lambda dead: bool(subjects & dead.subjects(dead.holds)), now_ms)
        if call.is_live:
            return True
        if call.request_id in self.posted and self.posted[call.request_id].is_settled:
            return False
        if enforces and not all(self.fits(call, bound, now_ms) for bound in limits if bound.limit.is_enforced):
            return False
        self.calls[call.request_id] = call
        call.is_live, call.holds, call.lease_ends_ms = True, limits, now_ms + LEASE_MS
        call.known_prompt, call.completion, call.bucket = call.prompt, 0, now_ms // 1000
        for bound in limits:
            self._use(call, bound, 1 if bound.limit.name == "requests_per_minute" else 0, now_ms)
        return True

    def settle(self, call: Call, amounts: tuple[int, int, int, int], now_ms: int) -> bool:
        return self._post(call, amounts, now_ms, is_final=True)

    def renew(self, call: Call, completion: int, prompt: int | None, now_ms: int) -> None:
        if not call.is_live:
            held = tuple(bound for bound in call.limits if bound.limit.name != "requests_per_minute")
            if not self.reserve(call, now_ms, limits=held, enforces=False):
                return
        call.lease_ends_ms = max(call.lease_ends_ms, now_ms + LEASE_MS)
        call.completion = completion
        if prompt is not None:
            call.known_prompt = prompt

    def reap(self, tenants: set[str], now_ms: int) -> list[str]:
        return self._reap(lambda dead: dead.tenant_id in tenants, now_ms)

    def state(self, call: Call, bound: BoundLimit, now_ms: int) -> tuple[int, int]:
        """(used, reserved) of a limit that `call` must keep."""
        name = bound.limit.name
        holders = self._holders(call, bound)
        if name == "concurrent_requests":
            return 0, sum(holder.lease_ends_ms > now_ms for holder in holders)  # the dead wait for their reaper only
        return self._used_at(call, bound, now_ms), sum(holder.held(name) for holder in holders)

    def fits(self, call: Call, bound: BoundLimit, now_ms: int) -> bool:
        return sum(self.state(call, bound, now_ms)) + call.asks(bound.limit.name) <= bound.limit.max

    def wait(self, call: Call, bound: BoundLimit, now_ms: int) -> Wait:
        """When `call` would fit the limit: tried at every moment at which anything could change."""
        limit = bound.limit
        asked = call.asks(limit.name)
        if self.fits(call, bound, now_ms):
            return Wait(now_ms)
        if asked > limit.max:
            return Wait(None)
        departures = list(self._departures(call, bound, now_ms))
        ends = [max(now_ms, holder.lease_ends_ms) for holder in self._holders(call, bound)]
        if self.state(call, bound, now_ms)[0] + asked > limit.max:
            for at_ms in sorted(departures):
                if self._total(call, bound, at_ms, ends=False) + asked <= limit.max:
                    return Wait(at_ms, stays=True)
        moments = sorted(departures + ends)
        for at_ms in moments:
            if self._total(call, bound, at_ms, ends=True) + asked <= limit.max:
                return Wait(at_ms)
        return Wait(moments[-1], is_exact=False)

    def _total(self, call: Call, bound: BoundLimit, at_ms: int, *, ends: bool) -> int:
        """Used and reserved at `at_ms`, if nothing happens until then. ends: leases run out, else they are renewed."""
        total = self._used_at(call, bound, at_ms)
        for holder in self._holders(call, bound):
            is_dead = ends and holder.lease_ends_ms <= at_ms
            total += self._still_to_post(holder, bound.limit.name) if is_dead else holder.held(bound.limit.name)
        return total

    def _still_to_post(self, holder: Call, name: str) -> int:
        """What would be posted of a live call if its lease ran out: a call that was given up and went on has a part posted."""
        posted = self.posted.get(holder.request_id, Posted())
        if posted.is_settled or name in ("requests_per_minute", "concurrent_requests"):
            return 0
        prompt, _, completion, cost = posted.amounts
        if name == "money_per_month":
            return max(0, cost_nano(holder.known_prompt, holder.completion) - cost)
        return max(0, holder.known_prompt - prompt) + max(0, holder.completion - completion)

    def _holders(self, call: Call, bound: BoundLimit) -> list[Call]:
        """Who holds the limit; a slot is held by everyone who holds anything of the subject."""
        subject = (call.tenant_id, bound.subject, bound.subject_id)
        name = bound.limit.name
        return [
            other
            for other in self.calls.values()
            if other.is_live
            and subject in other.subjects(other.holds)
            and (
                name == "concurrent_requests"
                or any((b.subject, b.subject_id, b.limit.name) == (*subject[1:], name) for b in other.holds)
            )
        ]

    def _counter(self, call: Call, bound: BoundLimit) -> Used:
        return self.used.setdefault(((call.tenant_id, bound.subject, bound.subject_id), bound.limit.name), Used())

    def _place(self, call: Call, bound: BoundLimit, at_ms: int) -> tuple[str | int, int]:
        """The bucket or period of a moment, and when it ends. It is never before the latest one seen."""
        counter, name = self._counter(call, bound), bound.limit.name
        here: str | int
        if name in PERIODIC:
            here, ends_s = period(name, at_ms / 1000, call.zone)
            ends_ms = round(ends_s * 1000)
        else:
            here, ends_ms = at_ms // WIDTH_MS[name], 0
        if counter.latest is not None and counter.latest > here:
            return counter.latest, counter.ends_ms
        return here, ends_ms

    def _used_at(self, call: Call, bound: BoundLimit, at_ms: int) -> int:
        if bound.limit.name == "concurrent_requests":
            return 0
        here, _ = self._place(call, bound, at_ms)
        amounts = self._counter(call, bound).amounts
        if isinstance(here, str):
            return amounts.get(here, 0)
        return sum(amount for bucket, amount in amounts.items() if here - BUCKETS < int(bucket) <= here)

    def _departures(self, call: Call, bound: BoundLimit, now_ms: int) -> Iterator[int]:
        """When what is used now leaves the window or the period."""
        name = bound.limit.name
        if name == "concurrent_requests":
            return
        here, ends_ms = self._place(call, bound, now_ms)
        if isinstance(here, str):
            yield ends_ms
            return
        for bucket, amount in self._counter(call, bound).amounts.items():
            if amount and here - BUCKETS < int(bucket) <= here:
                yield (int(bucket) + BUCKETS) * WIDTH_MS[name]

    def _use(self, call: Call, bound: BoundLimit, amount: int, now_ms: int) -> None:
        if bound.limit.name == "concurrent_requests":
            return
        counter = self._counter(call, bound)
        counter.latest, counter.ends_ms = self._place(call, bound, now_ms)
        counter.amounts[counter.latest] = counter.amounts.get(counter.latest, 0) + amount

    def _give_back(self, call: Call, bound: BoundLimit, now_ms: int) -> None:
        here, _ = self._place(call, bound, now_ms)
        counter = self._counter(call, bound)
        if call.bucket > int(here) - BUCKETS and counter.amounts.get(call.bucket, 0) > 0:
            counter.amounts[call.bucket] -= 1
            counter.latest = here

    def _reap(self, concerns: Callable[[Call], bool], now_ms: int) -> list[str]:
        dead = [call for call in self.calls.values() if call.is_live and call.lease_ends_ms <= now_ms and concerns(call)]
        for call in dead:
            amounts = (call.known_prompt, 0, call.completion, cost_nano(call.known_prompt, call.completion))
            self._post(call, amounts, now_ms, is_final=False)
        return [call.request_id for call in dead]

    def _post(self, call: Call, amounts: tuple[int, int, int, int], now_ms: int, *, is_final: bool) -> bool:
        before = self.posted.setdefault(call.request_id, Posted())
        due = tuple(max(0, amount - posted) for amount, posted in zip(amounts, before.amounts, strict=True))
        if before.is_settled:
            due = (0, 0, 0, 0)
        holds = call.holds if call.is_live else call.limits
        for bound in () if before.is_settled and not call.is_live else holds:
            name = bound.limit.name
            if name == "requests_per_minute":
                if is_final and call.is_live and not any(amounts):
                    self._give_back(call, bound, now_ms)
            else:
                self._use(call, bound, due[3] if name == "money_per_month" else due[0] + due[2], now_ms)
        call.is_live, call.holds = False, ()
        if before.is_settled:
            return False
        if is_final or not before.parts or any((due[0], due[2], due[3])):
            self.journal.append((call.request_id, before.parts, *due, not is_final))
            added = tuple(posted + amount for posted, amount in zip(before.amounts, due, strict=True))
            self.posted[call.request_id] = replace(before, amounts=added, parts=before.parts + 1, is_settled=is_final)
        return True
