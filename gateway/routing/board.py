"""The board: what this worker knows of every backend, from its own calls, from probes, and from the other workers.

No I/O: whoever chooses a backend or ends a call reads and writes memory. health.py keeps it up to date; take_trial alone may
ask Redis. With Redis out the last known view ages away and this worker's own takes its place: nothing here ever fails.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple, Protocol

import structlog

from gateway import metrics
from gateway.config.documents import Backend
from gateway.routing.ejection import By, Ejection, eject
from gateway.routing.gauges import Load
from gateway.routing.known import HANGS, STANDSTILL, Failure, Known, State
from gateway.routing.verdicts import FRESH_S, Verdict

STRIKES: Final = 3  # failures in a row after which a backend is out
STILL_S: Final = 3.0  # gauges that stand still for so long, while a call times out: the engine hangs
# The same without waiting for the time-out, which may be minutes away. A vLLM that compiled stood still for 14 s (recorded).
STANDSTILL_S: Final = 15.0
TRIAL_S: Final = 30.0
ASK_AGAIN_S: Final = 1.0  # for a trial that another worker holds
_LEARNING: Final = 0.2  # weight of the newest first-token time
_log = structlog.get_logger("gateway")


class View(NamedTuple):  # a frozen dataclass takes four times as long to make, and each call makes several
    """One backend, as the choice for one call sees it.

    readiness: 0 to 1, grows after a return (slow start); 0: take no call but a trial. state unknown: not probed lately, and
    nothing held against it: to be used. load None: not told for 3 s. in_flight: calls there now, over all workers.
    max_model_len, models: as its /v1/models says, None: not known. first_token_s: a moving average of this worker's calls.
    reason: why it is out, for people.
    """

    backend: str
    state: State
    readiness: float
    load: Load | None
    in_flight: int
    max_model_len: int | None
    models: tuple[str, ...] | None = None
    first_token_s: float | None = None
    reason: str | None = None
    ejected_at_s: float | None = None  # by Board.now_s(); None: it is not out

    def serves(self, model: str) -> bool:
        """Has it the model? A backend that is well may lack the model of one of its deployments; True while not known."""
        return self.models is None or model in self.models


class Outside(Protocol):
    """What the board asks of health.py. None of it raises."""

    def confirm(self, backend: Backend) -> None:
        """Probe `backend` now, unless that is being done; keep nobody waiting, and tell `Board.confirmed`."""

    def claim_trial(self, name: str) -> bool:
        """Is the trial of this backend ours? One round trip to Redis."""

    def hurry(self) -> None:
        """What was just learned is for all workers: do not wait for the next second."""


@dataclass(frozen=True, slots=True)
class News:
    """What this worker has to tell the others. in_flight: its own calls; the other mappings are by backend's name."""

    in_flight: Mapping[str, int]
    verdicts: Mapping[str, Verdict]
    ejections: Mapping[str, Ejection]
    ended_trials: frozenset[str]


class Board:
    """One a worker (`board`, below). Any greenlet may call anything. Backends go by their names."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.outside: Outside | None = None
        self._clock = clock
        self._offset_s = time.time() - clock()
        self._known: defaultdict[str, Known] = defaultdict(Known)
        self._told_s = -inf
        self._ended_trials: frozenset[str] = frozenset()

    def now_s(self) -> float:
        """Seconds by the clock that workers share, which is that of Redis: those of machines differ."""
        return self._clock() + self._offset_s

    # For the choice of a backend.

    def view(self, backend: Backend) -> View:
        # Asked four times a call, and so all in one place: in functions of its own it took 5 % of the CPU time (2026-11).
        name = backend.name
        known = self._known[name]
        now_s = self._clock() + self._offset_s
        verdict, ejection, in_flight = known.verdict, known.ejection, known.in_flight
        if now_s - self._told_s < FRESH_S:
            in_flight += known.elsewhere
        is_fresh = verdict is not None and abs(now_s - verdict.at_s) < FRESH_S
        load = verdict.load if verdict is not None and is_fresh else None
        max_model_len, models = (None, None) if verdict is None else (verdict.max_model_len, verdict.models)
        if ejection is None:
            state: State = "healthy" if is_fresh else "unknown"
            return View(name, state, 1.0, load, in_flight, max_model_len, models, known.first_token_s)
        out = known.ejected
        why, since_s = (None, None) if out is None else (out.text, out.at_s)
        readiness = ejection.readiness(now_s)
        return View(
            name, known.state(now_s), readiness, load, in_flight, max_model_len, models, known.first_token_s, why, since_s
        )

    def take_trial(self, backend: Backend) -> bool:
        """May this call be the one that a returning backend is tried with? One at a time over all workers.

        The caller sends it there at once and lets it fail over if it fails. A trial that nobody ends is over after TRIAL_S.
        """
        known, now_s = self._known[backend.name], self.now_s()
        if known.state(now_s) != "trial" or now_s < max(known.trial_until_s, known.trial_asked_s + ASK_AGAIN_S):
            return False
        known.trial_asked_s = now_s
        if self.outside is not None and not self.outside.claim_trial(backend.name):
            return False
        known.trial_until_s = now_s + TRIAL_S
        return True

    def hangs(self, backend: Backend) -> bool:
        """Was it found to hang? Calls that still wait there for a first token had better go elsewhere, if they can.

        Not while it is on trial: the call that tries it is to wait.
        """
        known = self._known[backend.name]
        ejected = known.ejected
        return ejected is not None and ejected.reason in HANGS and known.state(self.now_s()) == "ejected"

    # What calls tell.

    def note_start(self, backend: Backend) -> None:
        """A call is sent there; note_end follows, whatever becomes of it."""
        known = self._known[backend.name]
        known.in_flight += 1
        if known.silent_since_s is None:
            known.silent_since_s = self._clock() + self._offset_s
        if known.ejection is not None and known.ejected is not None:
            known.is_tried = True

    def note_end(self, backend: Backend) -> None:
        """After note_success or note_failure where there was either."""
        known = self._known[backend.name]
        known.in_flight = max(0, known.in_flight - 1)
        if not known.in_flight:
            known.silent_since_s = None
            self._end_trial(backend.name, known)  # its client left, say: the next call may be the trial

    def note_success(self, backend: Backend, *, first_token_s: float | None) -> None:
        """The first token of a stream is there, after first_token_s; and then, with None, the whole of an answer is."""
        known = self._known[backend.name]
        known.silent_since_s = None
        known.answered_s = self._clock() + self._offset_s
        if first_token_s is None:
            known.strikes = 0  # not by a first token: streams that all break off later are failures in a row
        else:
            before_s = known.first_token_s
            known.first_token_s = first_token_s if before_s is None else before_s + _LEARNING * (first_token_s - before_s)
        ejected = known.ejected if known.is_tried else None
        if ejected is not None and ejected.by is By.CALLS:
            self._readmit(backend.name, known, ejected)

    def note_failure(self, backend: Backend, failure: Failure) -> None:
        known = self._known[backend.name]
        if known.ejected is not None:
            # Calls that began before the ejection fail later than it: they tell nothing new.
            if known.is_tried and known.state(self.now_s()) == "trial":
                self._eject(backend.name, known, By.CALLS, failure, f"the call that tried it failed: {failure}")
        elif failure is Failure.ENGINE_DEAD:
            self._eject(backend.name, known, By.CALLS, failure, "its engine takes no more calls")
        elif failure is Failure.REFUSED and self.outside is not None:
            self.outside.confirm(backend)
        else:
            self._strike(backend.name, known, failure)

    # What probes tell.

    def confirmed(self, backend: Backend, verdict: Verdict) -> None:
        """The second try of a refused connection: another one ejects; else it was a strike like others."""
        known = self._known[backend.name]
        self.probed(backend.name, verdict)
        if known.ejected is None:
            self._strike(backend.name, known, Failure.REFUSED)

    def probed(self, name: str, verdict: Verdict) -> None:
        """This worker's own prober has been there."""
        known, now_s = self._known[name], self.now_s()
        known.verdict = verdict
        ejected, problem = known.ejected, verdict.problem
        if problem is not None and ejected is None:
            self._eject(name, known, By.PROBE, problem.reason, problem.text)
        elif problem is not None and ejected is not None and (ejected.by is By.CALLS or ejected.text != problem.text):
            known.ejection = ejected.taken_over(reason=problem.reason, text=problem.text, now_s=now_s)
        elif problem is None and ejected is not None and ejected.by is By.PROBE and ejected.is_served(now_s):
            self._readmit(name, known, ejected)

    def verdict(self, name: str) -> Verdict | None:
        return self._known[name].verdict

    def eject_those_that_stand_still(self) -> None:
        """An engine that hangs keeps /health at 200, and its clients waiting until their time is over: look at its gauges."""
        now_s = self.now_s()
        for name, known in list(self._known.items()):
            is_used = known.in_flight and (known.ejected is None or (known.is_tried and known.state(now_s) == "trial"))
            if is_used and known.still_s(now_s) >= STANDSTILL_S:
                self._eject(name, known, By.CALLS, STANDSTILL, "calls wait while its gauges stand still")

    # What workers tell each other.

    def news(self, probed: Collection[str]) -> News:
        """probed: backends whose prober is in this worker."""
        known = self._known
        return News(
            in_flight=self.calls(),
            verdicts={name: verdict for name in probed if name in known and (verdict := known[name].verdict) is not None},
            ejections={
                name: k.ejection for name, k in known.items() if k.ejection is not None and k.ejection.is_newer_than(k.shared)
            },
            ended_trials=self._ended_trials,
        )

    def take_in(
        self,
        *,
        told: News,
        now_s: float,
        in_flight: Mapping[str, int],
        verdicts: Mapping[str, Verdict],
        ejections: Mapping[str, Ejection],
    ) -> None:
        """The others' news, and `told`, which has arrived. now_s: by the clock of Redis. in_flight: without our own."""
        self._offset_s = now_s - self._clock()
        self._told_s = now_s
        self._ended_trials -= told.ended_trials
        for name in {*in_flight, *verdicts, *ejections}:
            self._known[name]  # is known from now on
        for name, known in self._known.items():
            known.elsewhere = in_flight.get(name, 0)
            if name not in told.verdicts:
                known.verdict = verdicts.get(name, known.verdict)
            known.shared = ejections.get(name)
            if known.shared is not None and known.shared.is_newer_than(known.ejection):
                self._begin(known, known.shared)

    def calls(self) -> Mapping[str, int]:
        """Our own, by backend."""
        return {name: known.in_flight for name, known in self._known.items() if known.in_flight}

    def hear_calls(self, in_flight: Mapping[str, int]) -> None:
        """Those of the others, between two meetings."""
        self._told_s = self.now_s()
        for name, known in self._known.items():
            known.elsewhere = in_flight.get(name, 0)

    def forget_all_but(self, names: Collection[str]) -> None:
        """Backends that are not configured any more."""
        for name in [name for name, known in self._known.items() if name not in names and not known.in_flight]:
            del self._known[name]

    def totals(self) -> Iterator[tuple[str, State, int]]:
        """Each backend's name, state and calls over all workers, for the metrics."""
        now_s = self.now_s()
        for name, known in list(self._known.items()):
            yield name, known.state(now_s), self._in_flight(known, now_s)

    def _in_flight(self, known: Known, now_s: float) -> int:
        return known.in_flight + (known.elsewhere if now_s - self._told_s < FRESH_S else 0)

    def _strike(self, name: str, known: Known, failure: Failure) -> None:
        now_s = self.now_s()
        if failure in {Failure.FIRST_TOKEN_TIMEOUT, Failure.STALLED} and known.still_s(now_s) >= STILL_S:
            self._eject(name, known, By.CALLS, failure, "calls time out while its gauges stand still")
            return
        if failure is Failure.FIRST_TOKEN_TIMEOUT and known.has_queue(now_s):
            return  # it works through its queue: full, not broken
        known.strikes += 1
        if known.strikes >= STRIKES:
            self._eject(name, known, By.CALLS, failure, f"{known.strikes} calls in a row failed, the last one: {failure}")

    def _eject(self, name: str, known: Known, by: By, reason: str, text: str) -> None:
        ejection = eject(known.ejection, by=by, reason=str(reason), text=text, now_s=self.now_s())
        self._end_trial(name, known)
        self._begin(known, ejection)
        metrics.counts[metrics.EJECTIONS, name, ejection.reason] += 1
        _log.warning("backend_ejected", backend=name, by=by, reason=ejection.reason, text=text, back_off_s=ejection.back_off_s)
        self._hurry()

    def _readmit(self, name: str, known: Known, ejected: Ejection) -> None:
        self._end_trial(name, known)
        self._begin(known, ejected.readmitted(self.now_s()))
        _log.warning("backend_readmitted", backend=name, by=ejected.by, reason=ejected.reason)
        self._hurry()

    def _begin(self, known: Known, ejection: Ejection) -> None:
        known.ejection = ejection
        known.strikes = 0
        known.is_tried = False

    def _end_trial(self, name: str, known: Known) -> None:
        if known.trial_until_s > -inf and known.trial_until_s > self.now_s():
            known.trial_until_s = -inf
            self._ended_trials |= {name}
        known.is_tried = False

    def _hurry(self) -> None:
        if self.outside is not None:
            self.outside.hurry()


board: Final = Board()

__all__ = ["TRIAL_S", "Board", "Failure", "Load", "News", "Outside", "State", "View", "board"]
