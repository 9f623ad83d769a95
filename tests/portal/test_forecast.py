"""When limits are reached: the arithmetic, against a simulation minute by minute."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from portal.forecast import of_hour, of_period, of_rate

MINUTES = st.lists(st.integers(0, 1000), min_size=60, max_size=60)


@pytest.mark.parametrize(
    ("used", "remaining", "elapsed_s", "left_s", "reached_s"),
    [
        (600, 300, 43_200, 43_200, 21_600),
        (600, 700, 43_200, 43_200, None),  # it ends before
        (0, 100, 1000, 1000, None),
        (100, 0, 1000, 1000, None),
        (100, 100, 0, 1000, None),
    ],
)
def test_period_goes_on_as_it_began(
    used: int, remaining: int, elapsed_s: float, left_s: float, reached_s: float | None
) -> None:
    assert of_period(used, remaining, elapsed_s, left_s) == reached_s


def test_hour_at_an_even_pace_is_never_reached() -> None:
    assert of_hour([100] * 60, 6000, 6101) is None


def test_hour_that_was_empty_before_fills_at_the_pace_of_late() -> None:
    assert of_hour([0] * 50 + [100] * 10, 1000, 3000) == pytest.approx(20 * 60)
    assert of_hour([0] * 50 + [100] * 10, 1000, 6101) is None  # by then as much leaves as comes


def test_hour_is_reached_later_for_what_leaves_it() -> None:
    # 600 leave within the next ten minutes while 1,000 come; then nothing leaves.
    assert of_hour([60] * 10 + [0] * 40 + [100] * 10, 1600, 2500) == pytest.approx((2500 - 1000) / (100 / 60))


@pytest.mark.parametrize(
    ("minutes", "used", "most"), [([0] * 60, 0, 10), ([5] * 60, 400, 300), ([100] * 50 + [0] * 10, 5000, 5001)]
)
def test_hour_without_a_pace_or_without_room_has_no_forecast(minutes: list[int], used: int, most: int) -> None:
    assert of_hour(minutes, used, most) is None


@given(minutes=MINUTES, most=st.integers(1, 60_000))
@example(minutes=[0] * 54 + [335, 450, 135, 633, 870, 693], most=19943)  # reached within a minute at whose end more leaves
def test_hour_agrees_with_a_simulation(minutes: list[int], most: int) -> None:
    """Second by second: what came in a whole minute leaves at the end of the minute an hour later."""
    used, pace = sum(minutes), sum(minutes[-10:]) / 600
    found = of_hour(minutes, used, most)
    if used >= most or not pace:
        assert found is None
        return
    reached = None
    for second in range(1, 3601):
        window = used - sum(minutes[: (second - 1) // 60]) + pace * second
        if window >= most - 1e-6:
            reached = second
            break
    assert (found is None) == (reached is None)
    if found is not None and reached is not None:
        assert reached - 1 <= found <= reached + 1e-3


@pytest.mark.parametrize(
    ("minutes", "most", "reached_s"),
    [
        (list(range(10, 110, 10)), 160, 360.0),  # ten more each minute, 100 now
        ([50] * 10, 60, None),
        (list(range(100, 0, -10)), 160, None),
        (list(range(10, 110, 10)), 90, None),  # it is there already
        (list(range(10)), 1000, None),  # more than an hour away
        ([0] * 10, 5, None),
        ([1, 2], 5, None),
    ],
)
def test_rate_that_grows_reaches_its_limit(minutes: list[int], most: int, reached_s: float | None) -> None:
    found = of_rate(minutes, most)
    assert found == (None if reached_s is None else pytest.approx(reached_s))
