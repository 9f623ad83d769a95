"""Histograms: buckets that add up, percentiles close to the truth."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage.histograms import EDGES_MS, SIZE, bucket, percentile

times_ms = st.integers(0, 1_800_000)


def counted(values: list[int]) -> list[int]:
    counts = [0] * SIZE
    for value in values:
        counts[bucket(value)] += 1
    return counts


@given(st.integers(0, 10**9))
def test_every_time_has_its_bucket(value: int) -> None:
    index = bucket(value)
    assert index < SIZE
    assert index == SIZE - 1 or value <= EDGES_MS[index]
    assert index == 0 or value > EDGES_MS[index - 1]


@given(st.lists(times_ms, min_size=1), st.sampled_from([0.01, 0.5, 0.9, 0.95, 0.99, 1.0]))
def test_percentile_lies_in_the_bucket_of_the_true_one(values: list[int], fraction: float) -> None:
    true_ms = sorted(values)[max(0, math.ceil(fraction * len(values)) - 1)]
    found = percentile(counted(values), fraction)
    assert found is not None
    index = bucket(true_ms)
    assert (EDGES_MS[index - 1] if index else 0) <= found <= EDGES_MS[index]


@given(st.lists(times_ms), st.lists(times_ms))
def test_histograms_of_parts_add_up_to_that_of_the_whole(one: list[int], other: list[int]) -> None:
    assert [a + b for a, b in zip(counted(one), counted(other), strict=True)] == counted(one + other)


def test_nothing_counted_has_no_percentile() -> None:
    assert percentile([0] * SIZE, 0.5) is None


def test_beyond_the_last_edge_is_the_last_edge() -> None:
    assert percentile(counted([10**8] * 3), 0.5) == EDGES_MS[-1]


@pytest.mark.parametrize("fraction", [0.5, 0.95])
def test_evenly_spread_times_are_found_nearly_exactly(fraction: float) -> None:
    found = percentile(counted(list(range(1, 10_001))), fraction)
    assert found == pytest.approx(fraction * 10_000, rel=0.05)
