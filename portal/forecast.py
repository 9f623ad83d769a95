"""When a limit is used up, if calls go on as lately: of calendar periods, of sliding windows, of growing rates. No I/O.

Times are seconds from now; None: not within the time that the figures say something about.
"""

from collections.abc import Sequence
from typing import Final

HOUR_MINUTES: Final = 60
PACE_MINUTES: Final = 10  # of which the pace of an hour's window is taken
GROWTH_MINUTES: Final = 10  # over which the growth of a rate is measured
GROWTH_AHEAD_S: Final = 3600.0  # a straight line says nothing of later


def of_period(used: int, remaining: int, elapsed_s: float, left_s: float) -> float | None:
    """Of a day or a month that began elapsed_s ago and ends in left_s: at the pace it has had so far."""
    if used <= 0 or remaining <= 0 or elapsed_s <= 0:
        return None
    reached_s = remaining * elapsed_s / used
    return reached_s if reached_s < left_s else None


def of_hour(minutes: Sequence[int], used: int, most: int) -> float | None:
    """Of the last 60 minutes, which slide on: what is used now, plus what comes, less what leaves at the other end.

    It leaves by whole minutes, as the limit counts it: within each the use rises before it falls.
    minutes: what was used in each of the last 60 whole ones, oldest first; the pace is that of the last PACE_MINUTES.
    used: of the window now, with what is reserved. Where nothing is reached within an hour, nothing is at this pace.
    """
    pace = sum(minutes[-PACE_MINUTES:])  # PACE_MINUTES times what comes in one; so is all below, in whole numbers
    if pace <= 0 or used >= most:
        return None
    held, full = used * PACE_MINUTES, most * PACE_MINUTES
    for minute, leaving in enumerate(minutes[-HOUR_MINUTES:]):
        if held + pace >= full:
            return (minute + (full - held) / pace) * 60
        held += pace - leaving * PACE_MINUTES
    return None


def of_rate(minutes: Sequence[int], most: int) -> float | None:
    """Of calls a minute: where they become more by the minute, when they are as many as the limit lets through.

    minutes: how many in each of the last GROWTH_MINUTES whole ones, oldest first. The line through them (least squares).
    """
    counts = minutes[-GROWTH_MINUTES:]
    size = len(counts)
    if size < 3 or not any(counts):
        return None
    middle, mean = (size - 1) / 2, sum(counts) / size
    growth = sum((n - middle) * (count - mean) for n, count in enumerate(counts)) / sum((n - middle) ** 2 for n in range(size))
    now = mean + growth * (size - 1 - middle)
    if growth <= 0 or now >= most:
        return None
    reached_s = (most - now) / growth * 60
    return reached_s if reached_s <= GROWTH_AHEAD_S else None
