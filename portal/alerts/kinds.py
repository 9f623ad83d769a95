"""What a rule can watch, in which unit its thresholds are, and what a new rule begins with. Pure.

An alert is of an episode or of a period: limits of a day or a month and the ends of keys have a window of their own, which
says when they are armed again; all else is armed when it is well again, and fires once in a while at most (`again_after_s`).
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

Level = Literal["warn", "error"]

LIMIT: Final = "limit"
KEY_EXPIRY: Final = "key_expiry"
ERROR_RATE: Final = "error_rate"
BACKEND_DOWN: Final = "backend_down"
JOURNAL_LAG: Final = "journal_lag"
GATEWAY_SILENT: Final = "gateway_silent"

LIMIT_PERCENTS: Final = (50, 80, 100)
EXPIRY_DAYS: Final = (7, 3, 1)


@dataclass(frozen=True, slots=True)
class Kind:
    """choices: the thresholds there are; () for one number from low to high. falls: the smaller one is the worse one.

    unit: of the thresholds, as webhooks say it. tells_end: whoever was told that it began is told that it is over.
    """

    name: str
    unit: str
    choices: tuple[int, ...] = ()
    low: int = 0
    high: int = 0
    first: tuple[int, ...] = ()
    falls: bool = False
    tells_end: bool = False
    again_after_s: int = 600

    def rank(self, threshold: int) -> int:
        """The higher, the worse."""
        return -threshold if self.falls else threshold

    def crossed(self, thresholds: list[int], value: float) -> int | None:
        """The worst threshold that `value` has reached; None: none of them."""
        reached = [one for one in thresholds if (value <= one if self.falls else value >= one)]
        return max(reached, key=self.rank, default=None)

    def level(self, threshold: int) -> Level:
        if self.name == LIMIT:
            return "error" if threshold >= 100 else "warn"
        if self.name == KEY_EXPIRY:
            return "error" if threshold <= 1 else "warn"
        return "error"

    def window(self, now_s: float) -> str:
        """Of an episode that begins now: no second one fires within it."""
        begun_s = now_s // self.again_after_s * self.again_after_s
        return f"{datetime.fromtimestamp(begun_s, UTC):%Y-%m-%dT%H:%MZ}"


KINDS: Final[dict[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind(LIMIT, "percent", choices=LIMIT_PERCENTS, first=(80, 100), again_after_s=3600),
        Kind(KEY_EXPIRY, "days", choices=EXPIRY_DAYS, first=EXPIRY_DAYS, falls=True),
        Kind(ERROR_RATE, "percent", low=1, high=100, first=(20,), tells_end=True),
        Kind(BACKEND_DOWN, "minutes", low=0, high=1440, first=(0,), tells_end=True),
        Kind(JOURNAL_LAG, "seconds", low=10, high=86_400, first=(60,), tells_end=True),
        Kind(GATEWAY_SILENT, "minutes", low=1, high=1440, first=(2,), tells_end=True),
    )
}
OF_TENANTS: Final = (LIMIT, KEY_EXPIRY, ERROR_RATE)
OF_THE_PLATFORM: Final = (BACKEND_DOWN, GATEWAY_SILENT, JOURNAL_LAG, ERROR_RATE)

MINUTES_MIN: Final = 1
MINUTES_MAX: Final = 60
MINUTES_FIRST: Final = 10
LEAST_CALLS_MAX: Final = 1_000_000
LEAST_CALLS_FIRST: Final = 20
