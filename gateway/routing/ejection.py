"""Ejection: that a backend is out, why, for how long, and how it comes back. Pure; times are by Board.now_s()."""

from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, replace
from enum import StrEnum
from typing import Any, Final, Literal, Self
from zlib import crc32

BACK_OFF_MIN_S: Final = 1.0
BACK_OFF_MAX_S: Final = 60.0
SLOW_START_S: Final = 10.0
READINESS_MIN: Final = 0.1
# In force for so long again after it came back, a backend is new in our eyes: its next ejection is its first.
FORGOTTEN_S: Final = 60.0
_TICK_S: Final = 0.001


class By(StrEnum):
    PROBE = "probe"  # a successful probe alone brings it back
    CALLS = "calls"  # only a real call can show that it is well: probes were content all the time


@dataclass(frozen=True, slots=True)
class Ejection:
    """The last ejection of a backend; it stays here while the backend starts slowly, and for the back-off of the next.

    reason: a word, for metrics; text: for people. step: ejections in short order, this one included. changed_s: grows with
    each change, and the newest record wins wherever two workers write one.
    """

    by: By
    reason: str
    text: str
    step: int
    at_s: float
    changed_s: float
    readmitted_at_s: float | None = None

    @property
    def back_off_s(self) -> float:
        return min(BACK_OFF_MAX_S, BACK_OFF_MIN_S * 2.0 ** min(self.step - 1, 16))

    @property
    def is_in_force(self) -> bool:
        return self.readmitted_at_s is None

    def is_newer_than(self, other: Self | None) -> bool:
        """Every worker answers alike, even of two changes at the same moment: or some would disagree for ever."""
        return other is None or self.version > other.version

    def is_served(self, now_s: float) -> bool:
        """Is its back-off over? Also where its time lies ahead of us: clocks of stores have been set back before."""
        return not self.at_s - BACK_OFF_MAX_S <= now_s < self.at_s + self.back_off_s

    def is_forgotten(self, now_s: float) -> bool:
        return self.readmitted_at_s is not None and abs(now_s - self.readmitted_at_s) >= FORGOTTEN_S

    def state(self, now_s: float) -> Literal["ejected", "trial", "healthy"]:
        if self.readmitted_at_s is not None:
            return "healthy"
        return "trial" if self.by is By.CALLS and self.is_served(now_s) else "ejected"

    def readiness(self, now_s: float) -> float:
        """0 while it is in force, then from READINESS_MIN to 1 within SLOW_START_S."""
        if self.readmitted_at_s is None:
            return 0.0
        share = abs(now_s - self.readmitted_at_s) / SLOW_START_S
        return min(1.0, READINESS_MIN + (1.0 - READINESS_MIN) * share)

    def readmitted(self, now_s: float) -> Self:
        return replace(self, readmitted_at_s=now_s, changed_s=self.later(now_s))

    def taken_over(self, *, reason: str, text: str, now_s: float) -> Self:
        """Calls failed, and now probes fail as well: a probe's success is what ends it."""
        return replace(self, by=By.PROBE, reason=reason, text=text, changed_s=self.later(now_s))

    @property
    def version(self) -> tuple[float, int]:
        return self.changed_s, self.tie_break

    @property
    def tie_break(self) -> int:
        """Between changes of the same moment; those in force win. A number: Redis compares texts by its locale."""
        return (self.is_in_force << 32) + crc32(repr(astuple(self)).encode())

    def later(self, now_s: float) -> float:
        """When the next change is, even if the clock was set back: the newest record must stay the newest."""
        return max(now_s, self.changed_s + _TICK_S)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"tie_break": self.tie_break}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError, ValueError for what another release wrote in another form."""
        readmitted_at_s = data["readmitted_at_s"]
        return cls(
            by=By(data["by"]),
            reason=str(data["reason"]),
            text=str(data["text"]),
            step=int(data["step"]),
            at_s=float(data["at_s"]),
            changed_s=float(data["changed_s"]),
            readmitted_at_s=None if readmitted_at_s is None else float(readmitted_at_s),
        )


def eject(previous: Ejection | None, *, by: By, reason: str, text: str, now_s: float) -> Ejection:
    """One step further than `previous`, unless that one is forgotten."""
    if previous is None:
        return Ejection(by, reason, text, step=1, at_s=now_s, changed_s=now_s)
    step = 1 if previous.is_forgotten(now_s) else previous.step + 1
    return Ejection(by, reason, text, step=step, at_s=now_s, changed_s=previous.later(now_s))
