"""Known: what one worker knows of one backend, and what follows from it. Pure; times are by Board.now_s()."""

from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Final, Literal

from gateway.routing.ejection import BACK_OFF_MAX_S, Ejection
from gateway.routing.verdicts import Verdict

State = Literal["healthy", "ejected", "trial", "unknown"]
STANDSTILL: Final = "standstill"


class Failure(StrEnum):
    """How a try of a backend failed. A full queue (503, 429) is none: another backend is tried, and nobody blamed."""

    REFUSED = "refused"  # no connection
    CUT = "cut"  # the connection ended before the answer
    STATUS_5XX = "status_5xx"
    ENGINE_DEAD = "engine_dead"  # 500 "cannot schedule new futures": a vLLM that shuts down, its /health still at 200
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"  # noqa: S105 - no password
    STALLED = "stalled"  # silence inside a stream
    GARBAGE = "garbage"  # not the answer of a vLLM


# Reasons of ejections after which it may hang still, and a call that tries it wait for its whole first-token time.
HANGS: Final = frozenset({Failure.FIRST_TOKEN_TIMEOUT, Failure.STALLED, STANDSTILL})


@dataclass(slots=True, eq=False)
class Known:
    """elsewhere: calls there of the other workers. strikes: failures in a row. shared: its ejection as Redis last had it."""

    in_flight: int = 0
    elsewhere: int = 0
    strikes: int = 0
    first_token_s: float | None = None
    silent_since_s: float | None = None  # a call began then, and none has been answered since
    answered_s: float = -inf
    is_tried: bool = False  # a call was sent there although it is out: its end tells something new
    trial_asked_s: float = -inf
    trial_until_s: float = -inf
    verdict: Verdict | None = None
    ejection: Ejection | None = None
    shared: Ejection | None = None

    @property
    def ejected(self) -> Ejection | None:
        """The ejection in force."""
        return self.ejection if self.ejection is not None and self.ejection.is_in_force else None

    def fresh_verdict(self, now_s: float) -> Verdict | None:
        return self.verdict if self.verdict is not None and self.verdict.is_fresh(now_s) else None

    def state(self, now_s: float) -> State:
        ejected, verdict = self.ejected, self.fresh_verdict(now_s)
        if ejected is None:
            return "unknown" if verdict is None else "healthy"
        state = ejected.state(now_s)
        if state == "trial" and ejected.reason in HANGS and verdict is not None and verdict.moved_at_s is not None:
            has_sign_of_life = verdict.moved_at_s > ejected.at_s or now_s >= ejected.at_s + BACK_OFF_MAX_S
            return "trial" if has_sign_of_life else "ejected"
        return state

    def still_s(self, now_s: float) -> float:
        """For how long its gauges have stood still although it has work; 0 where that cannot be told."""
        verdict = self.fresh_verdict(now_s)
        if verdict is None or verdict.load is None or verdict.moved_at_s is None:
            return 0.0
        # What answers works, whatever its gauges say.
        since_s = max(verdict.moved_at_s, self.answered_s)
        if verdict.load.running:  # it says itself that it works at something
            return now_s - since_s
        # Idle gauges stand still rightly: what counts is the time since a call came that should have moved them.
        return 0.0 if self.silent_since_s is None else now_s - max(since_s, self.silent_since_s)

    def has_queue(self, now_s: float) -> bool:
        """Does it say that calls wait in it?"""
        verdict = self.fresh_verdict(now_s)
        return verdict is not None and verdict.load is not None and verdict.load.waiting > 0
