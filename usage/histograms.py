"""Latency histograms with fixed buckets, so that those of any minutes, keys and backends add up. Pure.

The edges stand in stored rows: changing them needs a migration that recuts or empties the histograms.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

# Milliseconds; five steps a decade (Renard's R5), so that a percentile is known to about a tenth of itself.
EDGES_MS: Final = (
    10, 16, 25, 40, 63,
    100, 160, 250, 400, 630,
    1_000, 1_600, 2_500, 4_000, 6_300,
    10_000, 16_000, 25_000, 40_000, 63_000,
    100_000, 160_000, 250_000, 400_000, 630_000,
    1_000_000, 1_800_000,
)  # fmt: skip
SIZE: Final = len(EDGES_MS) + 1  # the last bucket has no upper edge


def bucket(value_ms: int) -> int:
    """The index of the bucket that counts `value_ms`: its upper edge is the first one not below it."""
    return bisect_left(EDGES_MS, value_ms)


def percentile(counts: Sequence[int], fraction: float) -> float | None:
    """The time in ms that `fraction` (0..1) of the counted calls did not exceed; None when none was counted.

    Within a bucket values are taken as spread evenly; beyond the last edge it is that edge.
    """
    total = sum(counts)
    if total <= 0:
        return None
    rank, below = fraction * total, 0
    for index, count in enumerate(counts[: len(EDGES_MS)]):
        if count > 0 and below + count >= rank:
            low = EDGES_MS[index - 1] if index else 0
            return low + (EDGES_MS[index] - low) * (rank - below) / count
        below += count
    return float(EDGES_MS[-1])
