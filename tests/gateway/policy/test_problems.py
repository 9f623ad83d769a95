"""What is wrong with rules is told by place, code and facts; each code has a sentence, which its facts fill."""

from typing import Any

import pytest

from gateway.config.policy_rules import checked
from gateway.policy.patterns import PatternRefused
from gateway.policy.problems import SENTENCES, Problem
from gateway.policy.rules import RULES_MAX, RulesRefused, parse_rules

IN: dict[str, Any] = {"where": ["input"], "action": "block"}
WORDS: dict[str, Any] = {"kind": "keywords", "words": ["a"], **IN}
TOLD: list[tuple[object, str, str]] = [
    ("text", "", "not_a_list"),
    ([WORDS] * (RULES_MAX + 1), "", "too_many_rules"),
    ([1], "[0]", "not_a_mapping"),
    ([{**WORDS, "note": float("nan")}], "", "not_json"),
    ([{**WORDS, "words": ["\0"]}], "", "holds_nul"),
    ([{**WORDS, "name": "a"}, {**WORDS, "name": "a"}], "[1].name", "name_taken"),
    ([{"kind": "nonsense"}], "[0].kind", "not_one_of"),
    ([{"kind": "roles", "roles": ["nobody"], "action": "block"}], "[0].roles[0]", "not_one_of"),
    ([{**WORDS, "restore": 1}], "[0].restore", "not_a_flag"),
    ([{"kind": "size", "max_characters": 0, **IN}], "[0].max_characters", "not_a_number"),
    ([{"kind": "pattern", "pattern": "", **IN}], "[0].pattern", "not_a_text"),
    ([{**WORDS, "words": ["a", " "]}], "[0].words[1]", "not_a_text"),
    ([{**WORDS, "words": []}], "[0].words", "not_texts"),
    ([{**WORDS, "where": []}], "[0].where", "where_not_a_list"),
    ([{"kind": "tools", "tools": ["a"], **IN, "where": ["output"]}], "[0].where[0]", "where_not_looked_at"),
    ([{**WORDS, "colour": "red"}], "[0].colour", "no_such_field"),
    ([{"kind": "roles", "roles": ["user"], "action": "redact"}], "[0].action", "no_span_to_redact"),
    ([{**WORDS, "name": "a b"}], "[0].name", "bad_name"),
    ([{**WORDS, "action": "redact", "label": "case"}], "[0].label", "bad_label"),
    ([{**WORDS, "restore": True}], "[0].restore", "nothing_to_restore"),
    ([{"kind": "size", **IN}], "[0]", "no_bound"),
    ([{"kind": "size", "max_images": 1, **IN, "where": ["output"]}], "[0].where", "answer_has_characters_alone"),
    ([{"kind": "pattern", "pattern": "(?=a)", **IN}], "[0].pattern", "pattern_refused"),
    ([{"kind": "pattern", "pattern": "[a-z]{1,1000}" * 15, **IN}], "[0].pattern", "pattern_too_large"),
    ([{"kind": "pattern", "pattern": "a*", **IN}], "[0].pattern", "pattern_matches_nothing"),
    ([{"kind": "pattern", "pattern": r"a\C", **IN}], "[0].pattern", "pattern_not_understood"),
    ([{"kind": "pattern", "pattern": "(" * 150 + "a" + ")" * 150, **IN}], "[0].pattern", "pattern_too_deep"),
]


@pytest.mark.parametrize(("rules", "path", "code"), TOLD, ids=[f"{code}{path}" for _rules, path, code in TOLD])
def test_what_is_wrong_is_told_by_place_and_code(rules: object, path: str, code: str) -> None:
    with pytest.raises(RulesRefused) as caught:
        checked(rules)
    (problem,) = caught.value.problems
    assert (problem.path, problem.code) == (path, code)
    assert "%(" not in problem.text
    assert problem.text in str(caught.value)


def test_every_sentence_is_said_by_something() -> None:
    # All patterns of a set together are too large only once the set is made: gateway/policy/ruleset.py.
    assert {code for _rules, _path, code in TOLD} | {"patterns_too_large"} == SENTENCES.keys()
    assert str(PatternRefused("patterns_too_large")) == SENTENCES["patterns_too_large"]


def test_a_name_that_is_taken_is_told_at_its_rule_whatever_is_wrong_before() -> None:
    with pytest.raises(RulesRefused) as caught:
        parse_rules([1, {**WORDS, "name": "a"}, {**WORDS, "name": "a"}])
    assert [problem.path for problem in caught.value.problems] == ["[0]", "[2].name"]


def test_a_percent_sign_in_what_is_told_stays() -> None:
    assert Problem("", "pattern_refused", {"reason": "100%s"}).text.startswith("RE2 refuses it: 100%s.")
