"""Health: the greenlet that keeps this worker's board up to date: probes its share of the backends, meets the other workers.

Each second: probe what this worker is elected for, then one round trip to Redis. While it has calls it tells the others of
these ten times as often: who knows only of its own picks the backend that all pick. Without Redis every worker probes all
backends itself, and goes by that.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from math import ceil
from typing import Final

import structlog

from gateway.config.documents import Backend, Platform
from gateway.routing.board import Board
from gateway.routing.exchange import LEASE_S, Exchange
from gateway.routing.probing import probe_twice
from gateway.routing.verdicts import Verdict, judge
from usage.store import StoreUnavailable

ROUND_S: Final = 1.0
CALLS_S: Final = 0.1
# So long the round trip waits for the probes of its round: most answer within milliseconds, and are told at once.
ANSWERS_S: Final = 0.2
_log = structlog.get_logger("gateway")


class Health:
    """`run` is the body of one greenlet (a thread, where nothing is patched), until stop().

    configuration: the platform as it is now; raises StoreUnavailable.
    """

    def __init__(self, board: Board, exchange: Exchange, configuration: Callable[[], Platform]) -> None:
        self._board = board
        self._exchange = exchange
        self._configuration = configuration
        self._backends: Mapping[str, Backend] = {}
        self._expected: Mapping[str, frozenset[str]] = {}
        self._held: frozenset[str] = frozenset()  # backends whose prober this worker is
        self._share = 1
        self._workers = 1
        self._told_calls: Mapping[str, int] = {}
        self._is_out = False
        self._met_s = float("-inf")  # when Redis last answered, monotonic
        self._probing: set[str] = set()
        self._confirming: set[str] = set()
        self._hurry = threading.Event()
        self._is_stopped = False
        board.outside = self

    def run(self) -> None:
        is_new = True
        while not self._is_stopped:
            begun_s = time.monotonic()
            try:
                if is_new:  # what others know comes first: a backend that is out for a minute is not news
                    self._configure()
                    self._meet()
                    is_new = False
                self._round()
                while not self._is_stopped and (left_s := begun_s + ROUND_S - time.monotonic()) > 0:
                    if self._hurry.wait(min(left_s, CALLS_S)):
                        self._meet()
                    else:
                        self._tell_calls()
            except Exception as error:  # noqa: BLE001 - the edge of this greenlet: without it no backend would ever come back
                _log.error("unexpected_error", error_class=type(error).__name__, exc_info=error)
                time.sleep(ROUND_S)

    def stop(self) -> None:
        """End run() soon, and let other workers take over at once what this one probed."""
        self._is_stopped = True
        self._hurry.set()
        self._exchange.leave(self._held)

    # What the board asks of the world (board.Outside).

    def confirm(self, backend: Backend) -> None:
        if backend.name not in self._confirming:
            self._confirming.add(backend.name)
            self._thread(backend, lambda verdict: self._board.confirmed(backend, verdict), self._confirming).start()

    def claim_trial(self, name: str) -> bool:
        """With Redis out each worker tries for itself."""
        if self._is_out:
            return True
        try:
            return self._exchange.claim_trial(name)
        except StoreUnavailable:
            return True

    def hurry(self) -> None:
        self._hurry.set()

    def _round(self) -> None:
        self._configure()
        is_alone = time.monotonic() - self._met_s > LEASE_S
        self._probe(self._backends if is_alone else self._held)
        self._board.eject_those_that_stand_still()
        self._meet()

    def _configure(self) -> None:
        """The platform's backends, and which models each is to serve; with Redis out, the last ones known."""
        with suppress(StoreUnavailable):
            platform = self._configuration()
            if platform.backends is self._backends:
                return
            expected: dict[str, set[str]] = {}
            for deployment in platform.deployments.values():
                for member in deployment.members:
                    expected.setdefault(member.backend.name, set()).add(deployment.served_model)
            self._expected = {name: frozenset(models) for name, models in expected.items()}
            self._backends = platform.backends
            self._board.forget_all_but(self._backends)

    def _probe(self, names: Iterable[str]) -> None:
        """Probe all of them at once. Returns when they have answered, or after ANSWERS_S: others go with the next round."""
        backends = [self._backends[name] for name in names if name in self._backends and name not in self._probing]
        self._probing.update(backend.name for backend in backends)
        threads = [self._thread(backend, partial(self._board.probed, backend.name), self._probing) for backend in backends]
        for thread in threads:
            thread.start()
        until_s = time.monotonic() + ANSWERS_S
        for thread in threads:
            thread.join(max(0.0, until_s - time.monotonic()))

    def _thread(self, backend: Backend, tell: Callable[[Verdict], None], busy: set[str]) -> threading.Thread:
        """Probes `backend`; its name is in `busy` as long."""

        def probe() -> None:
            try:
                tell(self._verdict(backend))
            except Exception as error:  # noqa: BLE001 - the edge of this greenlet
                _log.error("unexpected_error", error_class=type(error).__name__, exc_info=error)
            finally:
                busy.discard(backend.name)

        return threading.Thread(target=probe, daemon=True)

    def _verdict(self, backend: Backend) -> Verdict:
        findings = probe_twice(backend)
        expected = self._expected.get(backend.name, frozenset())
        previous = self._board.verdict(backend.name)
        return judge(findings, expected, previous=previous, now_s=self._board.now_s())

    def _tell_calls(self) -> None:
        calls = self._board.calls()
        if self._is_out or self._workers < 2 or not (calls or self._told_calls):
            return
        with suppress(StoreUnavailable):  # the next meeting notices
            heard = self._exchange.tell_calls(calls, now_s=self._board.now_s())
            self._board.hear_calls({name: count for name, count in heard.items() if name in self._backends})
            self._told_calls = calls

    def _meet(self) -> None:
        """Exchange what is known with the other workers. With Redis out it stays as it is, and grows old."""
        self._hurry.clear()
        if self._is_stopped:
            return
        held = [name for name in self._held if name in self._backends][: self._share]
        wanted = [name for name in self._backends if name not in self._held] if len(held) < self._share else []
        news = self._board.news(held)
        try:
            told = self._exchange.trip(
                news, now_s=self._board.now_s(), held=held, wanted=wanted, released=self._held.difference(held)
            )
        except StoreUnavailable as error:
            if not self._is_out:
                _log.warning("backends_not_shared", error_class=str(error))
            self._is_out = True
            return
        if self._is_out:
            _log.warning("backends_shared_again")
        self._is_out = False
        self._met_s = time.monotonic()
        self._held = frozenset(name for name, worker in told.probers.items() if worker == self._exchange.worker)
        # No more than is fair: of workers that start together, the first would probe everything.
        self._workers = max(1, told.workers)
        self._share = ceil(len(self._backends) / self._workers)
        self._board.take_in(
            told=news,
            now_s=told.now_s,
            in_flight={name: calls for name, calls in told.in_flight.items() if name in self._backends},
            verdicts={name: verdict for name, verdict in told.verdicts.items() if name in self._backends},
            ejections={name: ejection for name, ejection in told.ejections.items() if name in self._backends},
        )
