"""Retries are a tenth of the calls of the last minute and a floor, and no more."""

from gateway.upstream.retry_budget import FLOOR, WINDOW_S, RetryBudget


def taken(budget: RetryBudget, now_s: float) -> int:
    """How many retries it grants now."""
    count = 0
    while budget.take(now_s):
        count += 1
    return count


def test_without_many_calls_the_floor_is_there() -> None:
    budget = RetryBudget()
    budget.note_call(1000.0)
    assert taken(budget, 1000.5) == FLOOR + 1  # a tenth of one call is one more
    assert not budget.take(1001.0)


def test_a_tenth_of_the_calls_comes_on_top() -> None:
    budget = RetryBudget()
    for second in range(50):
        for _ in range(100):
            budget.note_call(1000.0 + second)
    assert taken(budget, 1050.0) == FLOOR + 500


def test_calls_and_retries_leave_with_their_minute() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.note_call(1000.0)
    assert taken(budget, 1030.0) == FLOOR + 100
    assert taken(budget, 1000.0 + WINDOW_S) == 0, "the calls are gone, the retries are not"
    assert taken(budget, 1030.0 + WINDOW_S) == FLOOR


def test_a_long_silence_empties_it() -> None:
    budget = RetryBudget()
    assert taken(budget, 1000.0) == FLOOR
    assert taken(budget, 1_000_000.0) == FLOOR
