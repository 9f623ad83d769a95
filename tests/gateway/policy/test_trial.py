"""A text tried against policies: the verdict, every match at its place, and what would pass."""

from typing import Any

import pytest

from gateway.policy.rules import OUTPUT, SURFACES, Policy, parse_rules
from gateway.policy.trial import Trial, try_text

WHERE = ["input", "output"]
BLOCK = {"kind": "keywords", "name": "code", "words": ["ALPHA-77"], "where": WHERE, "action": "block"}
MASK = {"kind": "detector", "name": "mail", "detector": "email", "where": WHERE, "action": "redact"}
FLAG = {"kind": "keywords", "name": "word", "words": ["beta"], "where": WHERE, "action": "flag"}


def policy(*rules: dict[str, Any], name: str = "p", version: int = 3) -> Policy:
    return Policy(name, version, parse_rules(list(rules)))


def tried(text: str, *rules: dict[str, Any], surface: str = "output.content") -> Trial:
    return try_text([policy(*rules)], text, surface)


def places(trial: Trial) -> list[tuple[Any, ...]]:
    return [(match.rule, match.action, match.start, match.line, match.column, match.text) for match in trial.matches]


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize(
    ("text", "verdict", "passed"),
    [
        ("all is well", "clean", "all is well"),
        ("beta", "flagged", "beta"),
        ("to a@example.com, beta", "masked", "to [EMAIL_1], beta"),
        ("to a@example.com, alpha-77", "blocked", None),
        ("", "clean", ""),
    ],
)
def test_verdict_is_the_strictest_on_every_surface(surface: str, text: str, verdict: str, passed: str | None) -> None:
    trial = tried(text, BLOCK, MASK, FLAG, surface=surface)
    expected = ("to [EMAIL_1], " if surface in OUTPUT else "") if passed is None else passed
    assert (trial.verdict, trial.passed) == (verdict, expected)
    assert trial.duration_ms > 0


@pytest.mark.parametrize("surface", ["input.user", "output.content"])
def test_every_match_is_told_with_its_place_also_behind_a_block(surface: str) -> None:
    text = "beta\nthe ａｌｐｈａ-77,\n日本 a@example.com ALPHA-77"
    trial = tried(text, BLOCK, MASK, FLAG, surface=surface)
    assert trial.verdict == "blocked"
    assert places(trial) == [
        ("word", "flag", 0, 1, 1, "beta"),
        ("code", "block", 9, 2, 5, "ａｌｐｈａ-77"),
        ("mail", "redact", 22, 3, 4, "a@example.com"),
        ("code", "block", 36, 3, 18, "ALPHA-77"),
    ]
    assert {(match.policy, match.version, match.kind) for match in trial.matches} == {
        ("p", 3, "keywords"),
        ("p", 3, "detector"),
    }


def test_rules_of_other_surfaces_are_silent() -> None:
    trial = tried("beta", {**FLAG, "where": ["input.user"]})
    assert (trial.verdict, trial.matches, trial.passed) == ("clean", (), "beta")


def test_policies_are_tried_together() -> None:
    trial = try_text([policy(MASK, name="a"), policy(BLOCK, name="b", version=7)], "a@example.com alpha-77", "output.content")
    assert trial.verdict == "blocked"
    assert [(match.policy, match.version, match.action) for match in trial.matches] == [("a", 3, "redact"), ("b", 7, "block")]


@pytest.mark.parametrize("surface", ["input.user", "input.documents", "input.tool_definitions", "output.reasoning"])
def test_size_and_script_of_a_text_are_looked_at(surface: str) -> None:
    rules = [
        {"kind": "size", "name": "long", "max_characters": 8, "where": WHERE, "action": "block"},
        {"kind": "script", "name": "latin", "scripts": ["latin"], "where": WHERE, "action": "flag"},
    ]
    assert tried("latin", *rules, surface=surface).verdict == "clean"
    assert tried("привет", *rules, surface=surface).verdict == "flagged"
    trial = tried("it is привет", *rules, surface=surface)
    assert trial.verdict == "blocked"
    assert {match.rule for match in trial.matches} == {"long", "latin"}


def test_role_that_the_text_would_come_with_is_looked_at() -> None:
    rule = {"kind": "roles", "roles": ["user"], "where": ["input"], "action": "block"}
    assert tried("hello", rule, surface="input.user").verdict == "clean"
    assert tried("hello", rule, surface="input.system").verdict == "blocked"


def test_what_a_text_alone_cannot_show_is_told() -> None:
    judge = {"kind": "judge", "name": "guard", "alias": "guard", "where": ["input.user"], "action": "block"}
    tools = {"kind": "tools", "name": "few", "tools": ["a"], "where": ["input"], "action": "block"}
    assert tried("hello", judge, tools, surface="input.user").untried == ("p/guard", "p/few")
    assert tried("hello", judge, tools).untried == ()


def test_policy_nobody_can_read_lets_nothing_pass() -> None:
    trial = try_text([Policy("newer", 1, (), is_readable=False), policy(FLAG)], "beta", "output.content")
    assert (trial.verdict, trial.passed, trial.unreadable) == ("blocked", "", ("newer",))
    assert places(trial) == [("word", "flag", 0, 1, 1, "beta")]


def test_text_is_not_in_the_repr() -> None:
    assert "example" not in repr(tried("a@example.com", MASK))
