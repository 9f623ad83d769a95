"""The scheduler: who runs, who waits, what was generated; and what each of the last 10,000 calls was.

Tokens are counted as they are generated: the totals of /metrics and the sum over /sim/requests are the same number at any time.
"""

import heapq
import itertools
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import gevent
from gevent.event import Event

from gateway.simulator.errors import BUSY, SHUTTING_DOWN, refusal
from gateway.simulator.knobs import Knobs

CALLS_KEPT: Final = 10_000
CALL_BYTES_KEPT: Final = 64 * 1024 * 1024
BLOCK_TOKENS: Final = 128  # of the prefix cache, as on the recorded server
_CACHED_BLOCKS: Final = 65_536


class EngineStopped(Exception):
    """Thrown into a running call when the engine goes down: it ends with finish_reason abort."""


@dataclass(slots=True, eq=False)
class Call:
    """One chat request and what became of it. finished: None while it runs; disconnect when the client went first."""

    headers: dict[str, str]
    body: bytes
    arrived_s: float = field(default_factory=time.monotonic)
    id: str = ""
    status: int | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    finished: str | None = None
    scheduled_s: float = 0.0
    first_token_s: float = 0.0
    greenlet: Any = field(default_factory=gevent.getcurrent)

    @property
    def size_bytes(self) -> int:
        return len(self.body) + 1024


class Engine:
    """max_num_seqs and max_queued are read from `knobs` when a call arrives."""

    def __init__(self, knobs: Callable[[], Knobs]) -> None:
        self._knobs = knobs
        self._open: set[Call] = set()
        self._running: dict[Call, int] = {}
        self._waiting: list[tuple[int, int, int, Event]] = []  # priority, arrival, choices, may run
        self._arrivals = itertools.count()
        self._is_leaving = False
        self.moves = Event()  # cleared while the engine hangs: whoever generates waits for it
        self.moves.set()
        self._blocks: OrderedDict[int, None] = OrderedDict()
        self._calls: deque[Call] = deque()
        self._call_bytes = 0
        self._generated_tokens = 0
        self.running = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.finished: Counter[str] = Counter()
        self.rejections = 0

    @property
    def waiting(self) -> int:
        return sum(entry[2] for entry in self._waiting)

    @property
    def open_calls(self) -> int:
        return len(self._open)

    @property
    def generated_tokens(self) -> int:
        return self._generated_tokens + sum(call.completion_tokens for call in self._running)

    @property
    def held_tokens(self) -> int:
        """Tokens in the KV cache of the running calls."""
        return sum(call.prompt_tokens * n + call.completion_tokens for call, n in self._running.items())

    def calls(self) -> list[Call]:
        return list(self._calls)

    def forget_calls(self) -> None:
        self._calls.clear()
        self._call_bytes = 0

    @contextmanager
    def remembered(self, call: Call) -> Iterator[None]:
        """Keep `call` for /sim/requests, where the oldest ones make room, and abort it when the engine stops."""
        self._open.add(call)
        self._calls.append(call)
        self._call_bytes += call.size_bytes
        while len(self._calls) > CALLS_KEPT or self._call_bytes > CALL_BYTES_KEPT:
            self._call_bytes -= self._calls.popleft().size_bytes
        try:
            yield
        finally:
            self._open.discard(call)

    def check_room(self) -> None:
        """Raises Refusal: 503 with a full queue, 500 once the engine is leaving."""
        if self._is_leaving or self._knobs().engine_dead:
            raise refusal(500, SHUTTING_DOWN, "InternalServerError")
        limit = self._knobs().max_queued
        if limit and self.running + self.waiting >= limit:
            self.rejections += 1
            raise refusal(503, BUSY, "Service Unavailable")

    @contextmanager
    def seats(self, call: Call, n: int, priority: int, salt: str, prompt: Sequence[str]) -> Iterator[None]:
        """Run `call` with its n choices, after those before it: lower priority first, then by arrival.

        On leaving, however that comes about, its tokens are in the totals and the next ones run.
        """
        self._take_seats(n, priority)
        self._running[call] = n
        call.scheduled_s = time.monotonic()
        call.cached_tokens = self._cached(salt, prompt)
        self.prompt_tokens += call.prompt_tokens
        self.cached_tokens += call.cached_tokens
        try:
            yield
        finally:
            del self._running[call]
            self._generated_tokens += call.completion_tokens
            self.running -= n
            self.admit()

    def _take_seats(self, n: int, priority: int) -> None:
        if not self._waiting and self._fits(n):
            self.running += n
            return
        entry = (priority, next(self._arrivals), n, Event())
        heapq.heappush(self._waiting, entry)
        try:
            entry[3].wait()
        except BaseException:
            if entry[3].is_set():  # let in at the very moment it left
                self.running -= n
            else:
                self._waiting.remove(entry)
                heapq.heapify(self._waiting)
            self.admit()
            raise

    def _fits(self, n: int) -> bool:
        return self.running == 0 or self.running + n <= self._knobs().max_num_seqs

    def admit(self) -> None:
        """Let those run who now fit."""
        while self._waiting and self._fits(self._waiting[0][2]):
            _, _, n, may_run = heapq.heappop(self._waiting)
            self.running += n
            may_run.set()

    def _cached(self, salt: str, prompt: Sequence[str]) -> int:
        """Tokens of `prompt` that an earlier prompt with the same salt began with, in whole blocks, never the last token."""
        chained, cached, is_hit = hash(salt), 0, True
        for end in range(BLOCK_TOKENS, len(prompt), BLOCK_TOKENS):
            chained = hash((chained, tuple(prompt[end - BLOCK_TOKENS : end])))
            is_hit = is_hit and chained in self._blocks
            cached = end if is_hit else cached
            self._blocks[chained] = None
            self._blocks.move_to_end(chained)
        while len(self._blocks) > _CACHED_BLOCKS:
            self._blocks.popitem(last=False)
        return cached

    def stand_still(self, *, hung: bool) -> None:
        """As an engine whose process is stopped: nothing is generated, and nobody is told."""
        if hung:
            self.moves.clear()
        else:
            self.moves.set()

    def leave(self) -> None:
        """From now on new requests are refused; those in the engine run on."""
        self._is_leaving = True

    def abort(self) -> None:
        """End everything that runs, waits or hangs, with finish_reason abort."""
        self._is_leaving = True
        for call in list(self._open):
            call.greenlet.kill(EngineStopped, block=False)
