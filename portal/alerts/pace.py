"""When a delivery that failed is tried again: twice as long each time, with some chance in it, for a day. Pure."""

from datetime import datetime, timedelta
from typing import Final

FIRST_S: Final = 10.0
LONGEST_S: Final = 3 * 3600.0
JITTER: Final = 0.2  # of the pause, up or down: many that failed together do not come back together
LIFETIME: Final = timedelta(hours=24)


def pause_s(attempts: int, *, chance: float) -> float:
    """After the attempts-th failure. chance: from 0 to 1, at random."""
    return min(LONGEST_S, FIRST_S * 2.0 ** min(attempts - 1, 30)) * (1 + JITTER * (2 * chance - 1))


def next_try(now: datetime, attempts: int, give_up_at: datetime, *, chance: float) -> datetime | None:
    """None: it is given up."""
    at = now + timedelta(seconds=pause_s(attempts, chance=chance))
    return at if at <= give_up_at else None
