"""Simulated backends of unequal speed under simulated clients, event by event: how good is the choice? No clock, no socket.

A backend runs `seats` calls at once, as a vLLM its sequences, and queues others in the order they came; a running call has
its first token after its prompt's work, and ends after its answer's. Each worker knows its own calls at once, those of others
and the gauges by the second: as in life.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.config.documents import Backend, PoolMember
from gateway.routing.board import View
from gateway.routing.choice import Candidate, Expectations, Facts, best_first
from gateway.routing.gauges import Load

TOLD_S = 1.0  # workers tell each other of their calls, and gauges are read, so often
PROMPT_S, ANSWER_S = 0.2, 2.0  # of a call on a backend of speed 1, on average


@dataclass(eq=False)
class Call:
    client: int
    worker: int
    arrived_s: float
    prompt_s: float  # work, at speed 1
    answer_s: float
    backend: int = -1
    queued: float = 0.0
    first_token_s: float = 0.0


@dataclass
class Engine:
    """One backend. Its running calls are kept by when they end, and before that by when their first token is there."""

    speed: float
    seats: int
    running: int = 0
    queue: deque[Call] = field(default_factory=deque)
    load: Load | None = None

    @property
    def calls(self) -> int:
        return self.running + len(self.queue)


Chooser = Callable[["Run", Call], int]


class Run:
    """rate: calls a second in all, whatever becomes of them; None: each client calls again `pause_s` after its answer."""

    def __init__(
        self,
        choose: Chooser,
        *,
        speeds: Sequence[float] = (1, 2, 4),
        seats: int = 16,
        clients: int = 100,
        rate: float | None = None,
        pause_s: float = 1.0,
        beginnings: int | None = None,
        workers: int = 2,
        calls: int = 4000,
        seed: int = 1,
    ) -> None:
        self.choose = choose
        self.engines = [Engine(speed, seats) for speed in speeds]
        self.members = [PoolMember(Backend(f"gpu-{at}", f"http://gpu-{at}"), 1) for at in range(len(speeds))]
        self.own = [[0] * len(speeds) for _ in range(workers)]
        self.told = [[0] * len(speeds) for _ in range(workers)]
        self.expected = [Expectations() for _ in range(workers)]
        self.beginnings = beginnings or clients
        self.dice = random.Random(seed)
        self.clients = [random.Random(seed * 1000 + client) for client in range(clients)]
        self.rate, self.pause_s = rate, pause_s
        self.left = calls
        self.now_s = 0.0
        self.ended: list[Call] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._play()

    def first_token_s(self, percentile: float) -> float:
        """Of the calls after the first eighth, in which everything is learned."""
        times = sorted(call.first_token_s for call in self._counted())
        return times[int(percentile * len(times))]

    def same_backend(self) -> float:
        """The share of calls that went where most of their beginning went."""
        went: dict[int, list[int]] = {}
        for call in self._counted():
            went.setdefault(call.client % self.beginnings, [0] * len(self.engines))[call.backend] += 1
        return sum(max(counts) for counts in went.values()) / sum(sum(counts) for counts in went.values())

    def shares(self) -> list[float]:
        counted = self._counted()
        return [sum(call.backend == at for call in counted) / len(counted) for at in range(len(self.engines))]

    def in_flight(self, worker: int, at: int) -> int:
        """As the worker knows it."""
        return self.own[worker][at] + sum(told[at] for other, told in enumerate(self.told) if other != worker)

    def views(self, worker: int) -> list[Candidate]:
        return [
            Candidate(member, View(member.backend.name, "healthy", 1.0, engine.load, self.in_flight(worker, at), None))
            for at, (member, engine) in enumerate(zip(self.members, self.engines, strict=True))
        ]

    def _counted(self) -> list[Call]:
        return sorted(self.ended, key=lambda call: call.arrived_s)[len(self.ended) // 8 :]

    def _play(self) -> None:
        for client, dice in enumerate(self.clients):
            first_s = dice.expovariate(self.rate / len(self.clients)) if self.rate else dice.uniform(0, self.pause_s + 1)
            self._at(first_s, lambda client=client: self._arrive(client))
        for worker in range(len(self.own)):
            self._at(TOLD_S * (worker + 0.5) / len(self.own), lambda worker=worker: self._tell(worker))
        for at in range(len(self.engines)):
            self._at(TOLD_S * (at + 0.3) / len(self.engines), lambda at=at: self._read_gauges(at))
        while self.left or any(engine.calls for engine in self.engines):
            self.now_s, _, event = heapq.heappop(self._events)
            event()

    def _at(self, time_s: float, event: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (time_s, self._number, event))

    def _tell(self, worker: int) -> None:
        self.told[worker] = list(self.own[worker])
        self._at(self.now_s + TOLD_S, lambda: self._tell(worker))

    def _read_gauges(self, at: int) -> None:
        engine = self.engines[at]
        engine.load = Load(engine.running, len(engine.queue), 0.5, self.now_s)
        self._at(self.now_s + TOLD_S, lambda: self._read_gauges(at))

    def _arrive(self, client: int) -> None:
        if not self.left:
            return
        self.left -= 1
        dice = self.clients[client]
        prompt_s, answer_s = PROMPT_S * dice.lognormvariate(-0.18, 0.6), ANSWER_S * dice.lognormvariate(-0.32, 0.8)
        call = Call(client, self.dice.randrange(len(self.own)), self.now_s, prompt_s, answer_s)
        call.backend = self.choose(self, call)
        self.own[call.worker][call.backend] += 1
        engine = self.engines[call.backend]
        engine.queue.append(call)
        self._run_next(engine)
        if self.rate:
            self._at(self.now_s + dice.expovariate(self.rate / len(self.clients)), lambda: self._arrive(client))

    def _run_next(self, engine: Engine) -> None:
        while engine.queue and engine.running < engine.seats:
            call = engine.queue.popleft()
            engine.running += 1
            self._at(self.now_s + call.prompt_s / engine.speed, lambda call=call: self._first_token(call))
            self._at(self.now_s + (call.prompt_s + call.answer_s) / engine.speed, lambda call=call: self._end(call))

    def _first_token(self, call: Call) -> None:
        call.first_token_s = self.now_s - call.arrived_s
        self.expected[call.worker].note_first_token(f"gpu-{call.backend}", queued=call.queued, first_token_s=call.first_token_s)

    def _end(self, call: Call) -> None:
        engine = self.engines[call.backend]
        engine.running -= 1
        self.own[call.worker][call.backend] -= 1
        self.ended.append(call)
        self._run_next(engine)
        if self.rate is None:
            self._at(self.now_s + self.clients[call.client].expovariate(1 / self.pause_s), lambda: self._arrive(call.client))


def ours(run: Run, call: Call) -> int:
    """As the gateway chooses."""
    return _chosen(run, call, Facts("acme", "r", 100, str(call.client % run.beginnings).encode()))


def ours_without_affinity(run: Run, call: Call) -> int:
    return _chosen(run, call, Facts("acme", "r", 100))


def _chosen(run: Run, call: Call, facts: Facts) -> int:
    candidates, expected = run.views(call.worker), run.expected[call.worker]
    best = best_first(candidates, facts, expected=expected, now_s=run.now_s, dice=run.dice.random)[0]
    at = run.members.index(best)
    call.queued = expected.queued(candidates[at].view, run.now_s)
    return at


def least_loaded(run: Run, _: Call) -> int:
    """Omniscient: every call of every worker known at once, and the backends' true speeds."""
    return min(range(len(run.engines)), key=lambda at: (run.engines[at].calls + 1) / run.engines[at].speed)


def soonest(run: Run, call: Call) -> int:
    """Omniscient too, and it knows the backends' seats, and how long a call is on average: the best that can be known."""

    def wait_s(engine: Engine) -> tuple[float, float]:
        queued = max(0, engine.calls + 1 - engine.seats)
        turn_s = (PROMPT_S + ANSWER_S) / engine.seats
        return (PROMPT_S + queued * turn_s) / engine.speed, (engine.calls + 1) / engine.speed

    return min(range(len(run.engines)), key=lambda at: wait_s(run.engines[at]))
