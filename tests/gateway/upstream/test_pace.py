"""The pace that stands in for a count nobody has."""

from gateway.upstream.pace import Pace


def test_nothing_is_expected_of_an_unknown_deployment() -> None:
    assert Pace().expected_tokens("tiny", seconds=10, most=100) == 0


def test_the_pace_is_learned_and_capped() -> None:
    pace = Pace()
    pace.note("tiny", tokens=100, seconds=2)
    assert pace.expected_tokens("tiny", seconds=1, most=1000) == 50
    assert pace.expected_tokens("tiny", seconds=100, most=1000) == 1000
    assert pace.expected_tokens("other", seconds=1, most=1000) == 0


def test_a_change_is_followed_and_an_outlier_is_not() -> None:
    pace = Pace()
    pace.note("tiny", tokens=100, seconds=1)
    pace.note("tiny", tokens=1000, seconds=1)
    assert pace.expected_tokens("tiny", seconds=1, most=10**6) == 280
    for _ in range(30):
        pace.note("tiny", tokens=1000, seconds=1)
    assert pace.expected_tokens("tiny", seconds=1, most=10**6) > 990


def test_empty_and_timeless_answers_teach_nothing() -> None:
    pace = Pace()
    pace.note("tiny", tokens=0, seconds=1)
    pace.note("tiny", tokens=5, seconds=0)
    assert pace.expected_tokens("tiny", seconds=10, most=100) == 0
