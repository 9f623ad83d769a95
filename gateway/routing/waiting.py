"""FairQueue: who holds a place under a deployment's ceilings, and who is next, by start-time fair queueing. Pure; no I/O.

Each tenant has a line, and a tag: the sum of the tokens that it was served. The line with the lowest tag is served next, and
its tag grows by what its call reserves. A tenant that comes to wait anew starts at the tag served last: it is owed nothing
for its silence. What it owes, having been served more, is its tag; but of nobody else's line more than the first call goes
before its own. So a flood only lengthens the flooder's own line, whatever was reserved before it.

The same in Lua (lua/queue.lua) is what all workers share; this one serves a worker alone while Redis is out.
"""

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass
from math import exp, inf
from typing import Final

WAITING_MAX: Final = 1000
# As in lua/queue.lua: the rate at which calls end is a mean over about so long; so long to wait where none has ended.
RATE_S: Final = 60.0
UNKNOWN_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Pool:
    """What there is to hand out now. ceiling: of the deployment; None: only its members have any.

    members: names of the backends that may be given out, each with its own ceiling; empty where no backend has one: places
    are then at "". waiting_max: calls that may wait.
    """

    ceiling: int | None
    members: tuple[tuple[str, int | None], ...] = ()
    waiting_max: int = WAITING_MAX


@dataclass(frozen=True, slots=True)
class Ticket:
    """A call that asks for a place. tokens: what it reserves; 0: it was served before, and goes first.

    wishes: the backends that will do, best first; any where the pool names none.
    """

    id: str
    tenant_id: str
    tokens: int
    wishes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Granted:
    id: str
    member: str


@dataclass(frozen=True, slots=True)
class Refused:
    """retry_after_s: until those who wait now will have been served, at the rate at which calls have ended lately."""

    id: str
    retry_after_s: float


Answer = Granted | Refused


class FairQueue:
    """The places of one deployment, in one worker. Every verb returns the answers it brings about, others' too."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._held: dict[str, str] = {}  # id -> member
        self._lines: dict[str, list[tuple[int, str, Ticket]]] = {}  # of those who wait, in the order they came
        self._waiting: dict[str, Ticket] = {}
        self._tags: dict[str, int] = {}
        self._served = 0  # the tag served last
        self._arrivals = 0
        self._rate = Rate()

    @property
    def held(self) -> dict[str, str]:
        return dict(self._held)

    def knows(self, id_: str) -> bool:
        return id_ in self._held or id_ in self._waiting

    def hold(self, id_: str, member: str) -> None:
        """It holds a place already, whatever the ceilings say."""
        self._held[id_] = member

    def take(self, ticket: Ticket, pool: Pool, *, instead_of: str = "") -> list[Answer]:
        """Give `ticket` a place, or a place in its tenant's line. instead_of: the place of the same call that is given back.

        When too many wait, the longest line loses its newest call.
        """
        self._held.pop(instead_of, None)
        if ticket.tenant_id not in self._lines:
            self._tags[ticket.tenant_id] = self._start(ticket.tenant_id)
        self._arrivals += 1
        line = self._lines.setdefault(ticket.tenant_id, [])
        insort(line, (self._arrivals if ticket.tokens else 0, ticket.id, ticket))
        self._waiting[ticket.id] = ticket
        answers = self._serve(pool)
        if len(self._waiting) > pool.waiting_max:
            longest = max(self._lines, key=lambda tenant: (len(self._lines[tenant]), tenant))
            last = self._lines[longest][-1][2]
            self._remove(last)
            answers.append(Refused(last.id, self._retry_after_s(last.tenant_id)))
        return answers

    def release(self, id_: str, pool: Pool) -> list[Answer]:
        """The call has ended, or does not want to wait any more."""
        if self._held.pop(id_, None) is not None:
            self._rate.note_end(self._clock())
        elif id_ in self._waiting:
            self._remove(self._waiting[id_])
        return self._serve(pool)

    def give_up(self, id_: str) -> Answer:
        """Its time is over: the place that it got at the last moment, or why there is none."""
        if id_ in self._held:
            return Granted(id_, self._held[id_])
        ticket = self._waiting.get(id_)
        if ticket is None:
            return Refused(id_, UNKNOWN_S)
        self._remove(ticket)
        return Refused(id_, self._retry_after_s(ticket.tenant_id))

    def _serve(self, pool: Pool) -> list[Answer]:
        free = inf if pool.ceiling is None else pool.ceiling - len(self._held)
        room = self._room(pool)
        answers: list[Answer] = []
        passed_over: set[str] = set()  # nobody in these lines can use what is free
        while free > 0 and room:
            tenants = [tenant for tenant in self._lines if tenant not in passed_over]
            if not tenants:
                break
            tenant = min(tenants, key=lambda name: (self._tag(name), name))
            found = next(((t, at) for _, _, t in self._lines[tenant] if (at := _first(t.wishes, room)) is not None), None)
            if found is None:
                passed_over.add(tenant)
                continue
            ticket, member = found
            self._give(ticket, member)
            answers.append(Granted(ticket.id, member))
            free -= 1
            room[member] -= 1
            if room[member] <= 0:
                del room[member]
        self._rate.note_full(free <= 0 or not room, self._clock())
        return answers

    def _room(self, pool: Pool) -> dict[str, float]:
        """The members that have any, and how much."""
        if not pool.members:
            return {"": inf}
        used = list(self._held.values())
        rooms = {name: inf if most is None else most - used.count(name) for name, most in pool.members}
        return {name: room for name, room in rooms.items() if room > 0}

    def _give(self, ticket: Ticket, member: str) -> None:
        if ticket.tokens:
            self._served = max(self._served, self._tags[ticket.tenant_id])
            self._tags[ticket.tenant_id] += ticket.tokens
        self._remove(ticket)
        self._held[ticket.id] = member

    def _start(self, tenant_id: str) -> int:
        """The tag of a tenant that comes to wait anew: where others wait, before the second call of who is next."""
        latest = self._served
        if self._lines:
            first = min(self._lines, key=lambda name: (self._tag(name), name))
            latest = self._tag(first) + self._lines[first][0][2].tokens - 1
        return max(self._served, min(latest, self._tags.get(tenant_id, 0)))

    def _tag(self, tenant_id: str) -> int:
        """A line whose first call was served before goes before all others."""
        return self._tags[tenant_id] if self._lines[tenant_id][0][2].tokens else 0

    def _remove(self, ticket: Ticket) -> None:
        del self._waiting[ticket.id]
        line = [entry for entry in self._lines.pop(ticket.tenant_id) if entry[1] != ticket.id]
        if line:
            self._lines[ticket.tenant_id] = line

    def _retry_after_s(self, tenant_id: str) -> float:
        """Until a call that joins the tenant's line now would be served, all calls counted alike."""
        place = len(self._lines.get(tenant_id, ())) + 1
        ahead = sum(min(len(line), place) for line in self._lines.values())
        rate = self._rate.calls_per_s(self._clock())
        return (ahead + 1) / rate if rate else UNKNOWN_S


class Rate:
    """How many calls end in a second while there is no place to be had: a mean over the last of such times."""

    __slots__ = ("_at_s", "_calls", "_seconds")

    def __init__(self) -> None:
        self._calls = 0.0
        self._seconds = 0.0
        self._at_s: float | None = None  # counted until then; None: there are places

    def note_full(self, is_full: bool, now_s: float) -> None:
        if not is_full:
            self._at_s = None
        elif self._at_s is None:
            self._at_s = now_s

    def note_end(self, now_s: float) -> None:
        if self._at_s is not None:
            self._calls, self._seconds = self._until(self._at_s, now_s)
            self._calls += 1
            self._at_s = now_s

    def calls_per_s(self, now_s: float) -> float:
        """0 while that is not known."""
        calls, seconds = self._until(now_s if self._at_s is None else self._at_s, now_s)
        return calls / seconds if seconds > 0 else 0.0

    def _until(self, at_s: float, now_s: float) -> tuple[float, float]:
        elapsed_s = max(0.0, now_s - at_s)
        faded = exp(-elapsed_s / RATE_S)
        return self._calls * faded, self._seconds * faded + elapsed_s


def _first(wishes: tuple[str, ...], room: dict[str, float]) -> str | None:
    if "" in room:
        return ""
    return next((name for name in wishes if name in room), None)
