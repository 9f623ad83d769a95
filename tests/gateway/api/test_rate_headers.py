"""x-ratelimit-*: of which limit they tell, and in which words."""

import pytest

from gateway.api.rate_headers import duration_text, rate_headers
from usage.limits import Bound, BoundLimit, Limit
from usage.reservation import NO_STATES, LimitStates


def states(*limits: tuple[str, int, int, int, int], mode: str = "enforce") -> LimitStates:
    """Of each: name, maximum, used, reserved, and in how many ms it is reset."""
    bound = Bound(BoundLimit("key", "k", Limit(name, most, mode)) for name, most, *_ in limits)  # type: ignore[arg-type]
    used, reserved, resets = ([limit[at] for limit in limits] for at in (2, 3, 4))
    return LimitStates(bound, used, reserved, [1_000_000 + reset_ms for reset_ms in resets], 1_000_000)


def test_the_limit_with_the_smallest_share_left_is_told_of() -> None:
    told = rate_headers(
        states(
            ("tokens_per_day", 1000, 100, 100, 9_000_000),
            ("requests_per_minute", 60, 1, 0, 60_000),
            ("tokens_per_hour", 100, 40, 10, 1500),
        )
    )
    assert told == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1m0s",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "50",
        "x-ratelimit-reset-tokens": "1.5s",
    }


def test_no_less_than_nothing_remains_and_no_reset_is_past() -> None:
    told = rate_headers(states(("tokens_per_hour", 100, 90, 90, -5), ("tokens_per_day", 0, 0, 0, 5)))
    assert told["x-ratelimit-limit-tokens"] == "100", "the first of those of which nothing is left"
    assert (told["x-ratelimit-remaining-tokens"], told["x-ratelimit-reset-tokens"]) == ("0", "0ms")


def test_limits_that_refuse_nobody_are_not_told_of() -> None:
    assert rate_headers(states(("tokens_per_hour", 100, 90, 0, 5), mode="shadow")) == {}
    assert rate_headers(NO_STATES) == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.012, "12ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.25, "59.25s"),
        (360, "6m0s"),
        (7384, "2h3m4s"),
        (3599.6, "1h0m0s"),
    ],
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
