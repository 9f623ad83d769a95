"""Each surface has what its rules look for, and finds what looking for one after the other would."""

import random
from collections.abc import Mapping
from itertools import islice

import pytest

from gateway.policy.decisions import decision
from gateway.policy.masks import Masks
from gateway.policy.patterns import compiled as compiled_pattern
from gateway.policy.patterns import prepare
from gateway.policy.rules import OUTPUT, SURFACES, Policy, parse_rules
from gateway.policy.ruleset import RuleSet, compiled, kept
from gateway.policy.scanner import judge_text


def policy(*rules: Mapping[str, object], name: str = "p", version: int = 1) -> Policy:
    return Policy(name, version, parse_rules([{"action": "block", "where": ["input", "output"], **rule} for rule in rules]))


def words(*texts: str, **terms: object) -> dict[str, object]:
    return {"kind": "keywords", "words": list(texts), **terms}


def test_a_decision_tells_whose_policy_it_was() -> None:
    rules = parse_rules([{"kind": "keywords", "words": ["alpha"], "where": ["input"], "action": "flag"}])
    sources = RuleSet([Policy("house", 1, rules), Policy("house", 1, rules, holder="platform")]).sources
    assert [decision(source, "input.user").to_dict()["holder"] for source in sources] == ["tenant", "platform"]


@pytest.mark.parametrize("surface", SURFACES)
def test_a_surface_without_rules_has_no_matcher(surface: str) -> None:
    rules = RuleSet([policy(words("alpha", where=[surface]))])
    assert [name for name in SURFACES if rules.on(name) is not None] == [surface]
    assert rules.looks_at_output == (surface in OUTPUT)


def test_no_policies_look_nowhere() -> None:
    rules = RuleSet([])
    assert not any(map(rules.on, SURFACES))
    assert rules.whole == ()


def test_surfaces_with_the_same_rules_share_what_they_look_for() -> None:
    rules = RuleSet([policy(words("alpha"), words("beta", where=["input.user", "output.content"]))])
    of = {surface: rules.on(surface) for surface in SURFACES}
    spans = {surface: matcher.spans for surface, matcher in of.items() if matcher is not None}
    assert len(spans) == len(SURFACES)
    assert spans["input.system"] is spans["output.reasoning"]
    assert spans["input.user"] is spans["output.content"]
    assert spans["input.user"] is not spans["input.system"]


def test_rules_without_spans_are_kept_in_order_with_their_policies() -> None:
    rules = RuleSet(
        [
            policy({"kind": "size", "max_characters": 5}, words("alpha"), {"kind": "script", "scripts": ["latin"]}),
            policy({"kind": "roles", "roles": ["user"], "where": ["input"]}, name="q", version=7),
        ]
    )
    assert [(source.policy, source.version, source.rule.kind) for source in rules.whole] == [
        ("p", 1, "size"),
        ("p", 1, "script"),
        ("q", 7, "roles"),
    ]


def test_sizes_and_scripts_are_part_of_a_matcher_in_answers_alone() -> None:
    rules = RuleSet([policy({"kind": "size", "max_characters": 5}, {"kind": "script", "scripts": ["latin"]})])
    for surface in SURFACES:
        matcher = rules.on(surface)
        assert (matcher is not None) == (surface in OUTPUT)
        if matcher is not None:
            assert [len(matcher.sizes), len(matcher.scripts)] == [1, 1]


def test_answers_are_looked_at_where_masks_are_to_be_restored() -> None:
    rule = {"kind": "detector", "detector": "email", "where": ["input.user"], "action": "redact"}
    assert not RuleSet([policy(rule)]).looks_at_output
    rules = RuleSet([policy({**rule, "restore": True})])
    assert all(rules.on(surface) is not None for surface in OUTPUT)
    assert rules.on("input.system") is None


def test_one_word_of_several_policies_is_told_of_each() -> None:
    matcher = RuleSet([policy(words("alpha", action="flag"), name=name) for name in ("p", "q")]).on("input.user")
    assert matcher is not None
    judged = judge_text(matcher, "an ＡＬＰＨＡ", Masks(), surface="input.user")
    assert [(made.policy, made.start, made.end) for made in judged.decisions] == [("p", 3, 8), ("q", 3, 8)]


def test_the_same_policies_are_compiled_once() -> None:
    policies = policy(words("alpha")), policy(words("beta"), name="q")
    assert kept(policies) is None
    rules = compiled(policies)
    assert compiled(policies) is rules
    assert kept(policies) is rules
    assert compiled((policies[1], policies[0])) is not rules


def test_equal_policies_of_a_new_configuration_are_compiled_once() -> None:
    def made() -> tuple[Policy, ...]:
        return (policy(words("alpha", "beta"), {"kind": "pattern", "pattern": "a+b"}, name="equal"),)

    old, new = made(), made()
    assert compiled(new) is compiled(old)
    assert kept(made()) is None


def test_another_version_is_compiled_anew() -> None:
    assert compiled((policy(words("alpha")),)) is not compiled((policy(words("alpha"), version=2),))


def test_what_was_not_asked_for_lately_is_dropped() -> None:
    first = (policy(words("alpha"), name="first"),)
    compiled(first)
    others = [(policy(words("alpha"), name=f"other-{at}"),) for at in range(300)]
    for other in others:
        compiled(other)
    assert kept(first) is None
    assert kept(others[-1]) is not None


LETTERS = "abcdefghij"
KANJI = "機密案件関所通行手形改番"


def _many() -> tuple[list[str], list[str], list[str]]:
    chance = random.Random(5)
    drawn = set[str]()
    while len(drawn) < 10_000:
        drawn.add("".join(chance.choices(chance.choice([LETTERS, KANJI]), k=chance.randint(4, 9))))
    patterns = [f"{chance.choice(KANJI)}{chance.choice(LETTERS)}{{1,3}}-[0-9]{{{at % 4 + 1}}}{at % 7}" for at in range(200)]
    texts = ["".join(chance.choices(LETTERS + KANJI * 2 + "0123456789-", k=400)) for _ in range(30)]
    planted = list(islice(sorted(drawn), 0, None, 333))
    return sorted(drawn), patterns, [text[:200] + word + text[200:] for text, word in zip(texts, planted, strict=False)]


def test_10_000_keywords_and_200_patterns_find_what_trying_all_does() -> None:
    """Overlapping matches of words each, of a pattern one behind the other."""
    keywords, patterns, texts = _many()
    assert len(texts) == 30
    rules = [words(*keywords, action="flag")]
    rules += [{"kind": "pattern", "pattern": pattern, "action": "flag"} for pattern in patterns]
    matcher = RuleSet([policy(*rules)]).on("output.content")
    assert matcher is not None
    finders = [compiled_pattern(prepare(pattern).finds) for pattern in patterns]
    hits = 0
    for text in texts:
        expected = {("1", at, at + len(word)) for word in keywords for at in _all(text, word)}
        for name, finder in enumerate(finders, start=2):
            for match in finder.finditer(text.encode()):
                start = len(text.encode()[: match.start()].decode())
                expected.add((str(name), start, start + len(match[0].decode())))
        judged = judge_text(matcher, text, Masks(), surface="output.content")
        assert {(made.rule, made.start, made.end) for made in judged.decisions} == expected
        assert judged.text == text
        hits += len(expected)
    assert hits > len(texts)


def _all(text: str, word: str) -> list[int]:
    found = []
    at = text.find(word)
    while at >= 0:
        found.append(at)
        at = text.find(word, at + 1)
    return found
