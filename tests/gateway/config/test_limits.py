"""Limits and prices as people write them."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import limits, source
from gateway.config.source import Refused
from usage.limits import CLAMPABLE, MAX, NAMES, Limit


@st.composite
def configured(draw: st.DrawFn) -> tuple[Limit, ...]:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    drawn = []
    for name in names:
        mode = draw(st.sampled_from(["enforce", "shadow"]))
        clamps = mode == "enforce" and name in CLAMPABLE and draw(st.booleans())
        drawn.append(Limit(name, draw(st.integers(1, MAX)), mode, clamps))
    return tuple(drawn)


@given(configured())
def test_what_is_written_reads_the_same(limited: tuple[Limit, ...]) -> None:
    text = json.dumps(limits.as_mapping(limited))
    assert limits.limits(source.load(text)) == tuple(sorted(limited, key=lambda limit: NAMES.index(limit.name)))


def test_limits_are_read_exactly() -> None:
    text = "{money_per_month: 12.50, tokens_per_hour: 50000, requests_per_minute: 60, shadow: [tokens_per_hour], clamp: []}"
    assert limits.limits(source.load(text)) == (
        Limit("requests_per_minute", 60),
        Limit("tokens_per_hour", 50_000, "shadow"),
        Limit("money_per_month", 12_500_000_000),
    )
    assert limits.limits(source.load("{}")) == ()


@pytest.mark.parametrize("written", ["0.1", '"0.1"', "0.100000000", "'0.1'"])
def test_money_never_passes_through_a_float(written: str) -> None:
    [limit] = limits.limits(source.load(f"money_per_month: {written}"))
    assert limit.max == 100_000_000


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tokens_per_hour: 1.5", "tokens_per_hour: must be a whole number (line 1)"),
        ("tokens_per_hour: '5'", "tokens_per_hour: must be a whole number (line 1)"),
        ("tokens_per_hour: true", "tokens_per_hour: must be a whole number (line 1)"),
        ("tokens_per_hour: null", "tokens_per_hour: must be a whole number (line 1)"),
        ("tokens_per_hour: -1", "tokens_per_hour: must be above 0 (line 1)"),
        ("tokens_per_hour: 0", "tokens_per_hour: must be above 0 (line 1)"),
        (f"tokens_per_hour: {2**53}", "tokens_per_hour: must be at most 9007199254740991 (line 1)"),
        ("tokens_per_huor: 1", 'tokens_per_huor: there is no such limit (line 1); did you mean "tokens_per_hour"?'),
        ("shadows: []", 'shadows: there is no such limit (line 1); did you mean "shadow"?'),
        ("money_per_month: -1", 'money_per_month: must be an amount, such as "12.50" (line 1)'),
        ("money_per_month: 1e3", 'money_per_month: must be an amount, such as "12.50" (line 1)'),
        ("money_per_month: 1_000", 'money_per_month: must be an amount, such as "12.50" (line 1)'),
        ("money_per_month: ¥100", 'money_per_month: must be an amount, such as "12.50" (line 1)'),
        ("money_per_month: １００", 'money_per_month: must be an amount, such as "12.50" (line 1)'),
        ("money_per_month: [1]", 'money_per_month: must be an amount, such as "12.50" (line 1)'),
        ("money_per_month:", 'money_per_month: must be an amount, such as "12.50" (line 1)'),
        ("money_per_month: 0.0", "money_per_month: must be above 0 (line 1)"),
        ("money_per_month: 0.0000000001", "money_per_month: must have 9 digits after the point at most (line 1)"),
        ("money_per_month: 9007199.254740992", "money_per_month: must be at most 9007199.254740991 (line 1)"),
        ("tokens_per_hour: 1\nshadow: tokens_per_hour", "shadow: must be a list (line 2)"),
        (
            "tokens_per_hour: 1\nshadow:\n- tokens_per_day",
            'shadow[0]: there is no limit "tokens_per_day" beside this (line 3); did you mean "tokens_per_hour"?',
        ),
        ("tokens_per_hour: 1\nclamp: [1]", "clamp[0]: must be text (line 2); write it in quotes"),
        (
            "tokens_per_hour: 1\nclamp: [tokens_per_hour, tokens_per_hour]",
            'clamp[1]: "tokens_per_hour" is here twice (line 2)',
        ),
        (
            "requests_per_minute: 1\nclamp: [requests_per_minute]",
            (
                'clamp[0]: "requests_per_minute" cannot clamp: a shorter output does not spare it (line 2); known: '
                "money_per_month, tokens_per_day, tokens_per_hour, tokens_per_month"
            ),
        ),
        (
            "tokens_per_hour: 1\nshadow: [tokens_per_hour]\nclamp: [tokens_per_hour]",
            'clamp[0]: "tokens_per_hour" cannot clamp: a shadow limit changes no call (line 3)',
        ),
        ("[tokens_per_hour]", "must be a mapping, such as {name: value} (line 1)"),
    ],
)
def test_wrong_limits_are_told_with_their_line(text: str, told: str) -> None:
    place = source.load(text)
    with pytest.raises(Refused):
        limits.limits(place)
    assert [str(problem) for problem in place.problems] == [told]


def test_everything_wrong_with_limits_is_told_at_once() -> None:
    place = source.load("tokens_per_hour: x\ntokens_per_day: -1\nfoo: 1\nshadow: [tokens_per_hour]\nclamp: [bar]")
    with pytest.raises(Refused):
        limits.limits(place)
    assert sorted(problem.line for problem in place.problems) == [1, 2, 3, 5]


def test_prices_are_read_exactly() -> None:
    assert limits.price(source.load('{prompt: "0.50", cached: 0.1, completion: "1.500001"}')) == {
        "prompt": Decimal("0.5"),
        "cached": Decimal("0.1"),
        "completion": Decimal("1.500001"),
    }
    assert limits.price(source.load("{prompt: 0, completion: 1, cached: null}"))["cached"] is None
    assert limits.price(source.load("{prompt: 0, completion: 1}"))["cached"] is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prompt: '0.5'", '"completion" is missing (line 1)'),
        ("completion: '0.5'", '"prompt" is missing (line 1)'),
        ("{prompt: 1, completion: 1, chached: 1}", 'chached: unknown field (line 1); did you mean "cached"?'),
        ("{prompt: -1, completion: 1}", 'prompt: must be an amount, such as "12.50" (line 1)'),
        ("{prompt: null, completion: 1}", 'prompt: must be an amount, such as "12.50" (line 1)'),
        ("{prompt: 0.0000001, completion: 1}", "prompt: must have 6 digits after the point at most (line 1)"),
        ("{prompt: 1, completion: 1000000}", "completion: must be at most 999999 (line 1)"),
        ("1.50", "must be a mapping, such as {name: value} (line 1)"),
    ],
)
def test_wrong_prices_are_told_with_their_line(text: str, told: str) -> None:
    place = source.load(text)
    with pytest.raises(Refused):
        limits.price(place)
    assert [str(problem) for problem in place.problems] == [told]


def test_differences_tell_each_limit_that_changes() -> None:
    before = (Limit("tokens_per_hour", 1), Limit("tokens_per_day", 2), Limit("money_per_month", 100_000_000_000))
    after = (Limit("tokens_per_hour", 1), Limit("tokens_per_day", 2, "shadow"), Limit("tokens_per_month", 3, clamps=True))
    assert list(limits.differences(before, after)) == [
        ("tokens_per_day", "2", "2 shadow"),
        ("tokens_per_month", None, "3 clamp"),
        ("money_per_month", "100", None),
    ]
