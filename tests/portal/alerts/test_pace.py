"""The back-off of deliveries, by data alone."""

from datetime import UTC, datetime, timedelta

import pytest

from portal.alerts import pace

NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("attempts", "seconds"), [(1, 10), (2, 20), (3, 40), (8, 1280), (11, 10_240), (12, 10_800), (20, 10_800), (5000, 10_800)]
)
def test_each_pause_is_twice_the_one_before_up_to_three_hours(attempts: int, seconds: float) -> None:
    assert pace.pause_s(attempts, chance=0.5) == seconds


def test_chance_moves_a_pause_by_a_fifth() -> None:
    assert pace.pause_s(1, chance=0) == 8
    assert pace.pause_s(1, chance=1) == 12


def test_it_is_given_up_after_a_day() -> None:
    give_up_at, now, attempts = NOW + pace.LIFETIME, NOW, 0
    tried = []
    while True:
        attempts += 1
        again = pace.next_try(now, attempts, give_up_at, chance=0.5)
        if again is None:
            break
        tried.append(again)
        now = again
    assert len(tried) > 10
    assert tried == sorted(tried)
    assert timedelta(hours=20) < tried[-1] - NOW <= timedelta(hours=24)
