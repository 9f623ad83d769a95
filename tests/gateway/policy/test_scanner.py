"""A text judged in pieces passes as the whole would, and nothing is held back but what may become a match."""

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.masks import Masks
from gateway.policy.rules import Policy, parse_rules
from gateway.policy.ruleset import Matcher, RuleSet
from gateway.policy.scanner import DECISIONS_MAX, SLICE_CHARACTERS, Judgement, Scanner, judge_text

SURFACE = "output.content"


def rule(**terms: object) -> dict[str, object]:
    return {"where": ["output"], "action": "redact", "kind": "keywords", **terms}


def matcher(*rules: dict[str, object]) -> Matcher:
    found = RuleSet([Policy("p", 1, parse_rules(list(rules)))]).on(SURFACE)
    assert found is not None
    return found


def in_pieces(look: Matcher, pieces: list[str]) -> tuple[list[str], Judgement]:
    """What passed with each piece and at the end, and all of it."""
    scanner = Scanner(look, Masks(), SURFACE)
    passed = [*map(scanner.feed, pieces), scanner.end()]
    return passed, Judgement("".join(passed), scanner.blocked, tuple(scanner.decisions))


def whole(look: Matcher, text: str) -> Judgement:
    return judge_text(look, text, Masks(), surface=SURFACE)


SECRETS = matcher(
    rule(kind="keywords", words=["機密コード", "ALPHA-77", "かぎ", "がき"], action="block"),
    rule(kind="pattern", pattern="案件[A-Z]{3}-[0-9]{2}", label="CASE"),
    rule(kind="detector", detector="email"),
    rule(kind="detector", detector="jp_phone"),
)


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("the code is alpha-77, said he", "the code is "),
        ("これは機密コードです", "これは"),
        ("これは機 密 コ ー ド です", "これは"),
        ("ＡＬＰＨＡ－７７", ""),
        ("A L P H A - 7 7", "A L P H A - 7 7"),
        ("al\u200bpha\u00ad-77", ""),
        ("これは案件ABC-12です", "これは[CASE_1]です"),
        ("案件abc-12と案件ＡＢＣ－１２と案件XYZ-99", "[CASE_1]と[CASE_1]と[CASE_2]"),
        ("write to taro@example.com or 090-1234-5678.", "write to [EMAIL_1] or [PHONE_1]."),
        ("ｶﾞｷ大将", ""),
        ("か゛き大将", ""),
        ("かき氷", "かき氷"),
        ("clean text, nothing in it", "clean text, nothing in it"),
        ("", ""),
    ],
)
def test_text_passes_masked_and_up_to_what_is_blocked(text: str, passes: str) -> None:
    assert whole(SECRETS, text).text == passes
    for at in range(len(text) + 1):
        assert in_pieces(SECRETS, [text[:at], text[at:]])[1] == whole(SECRETS, text)
    assert in_pieces(SECRETS, list(text))[1] == whole(SECRETS, text)


ALPHABET = "abAB1２-@. \t\nカがか゛\u3099ｶﾞきギー密é\u0301\u200b㍿ﬁßа한각ᄀ\u1161กำ[]_"
LITERALS = st.text(ALPHABET, min_size=1, max_size=4)
WORDS = st.lists(LITERALS.filter(lambda word: bool(word.strip())), min_size=1, max_size=4)
PATTERNS = st.sampled_from(
    [
        "a+b", "ab?c?", "(ab|a)-", r"\bab\b", "a$", "(?m)^b", "[ァ-ヶ]{1,3}密", "か+", "[^a]b", "b.{0,3}a", "(?s)a.*b",
        "1{2,4}", "株式", r"\d\d-\d", "が|かき", "[がき]-", "a{2}", "(a|b){2,3}?c?", "e.", "한", "fi?",
    ]
)  # fmt: skip
ACTIONS = st.sampled_from(["block", "redact", "redact", "flag"])
RULES = st.lists(
    st.one_of(
        st.builds(lambda words, action: rule(words=words, action=action), WORDS, ACTIONS),
        st.builds(lambda pattern, action: rule(kind="pattern", pattern=pattern, action=action), PATTERNS, ACTIONS),
        st.builds(lambda name, action: rule(kind="detector", detector=name, action=action),
                  st.sampled_from(["email", "phone", "ip_address", "jp_postal_code"]), ACTIONS),
        st.builds(lambda most, action: rule(kind="size", max_characters=most, action=action),
                  st.integers(1, 30), st.sampled_from(["block", "flag"])),
        st.builds(lambda action: rule(kind="script", scripts=["japanese", "latin"], action=action),
                  st.sampled_from(["block", "flag"])),
    ),
    min_size=1, max_size=4,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(RULES, st.text(ALPHABET, max_size=40), st.data())
def test_pieces_pass_as_the_whole_does(rules: list[dict[str, object]], text: str, data: st.DataObject) -> None:
    look = matcher(*rules)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]
    _passed, judged = in_pieces(look, pieces)
    expected = whole(look, text)
    assert judged.text == expected.text
    assert (judged.blocked is None) == (expected.blocked is None)
    assert sorted(map(repr, judged.decisions)) == sorted(map(repr, expected.decisions))
    each = in_pieces(look, list(text))[1]
    assert each.text == expected.text


@pytest.mark.parametrize(
    "pieces",
    [
        ["The", " quick", " brown", " fox", " jumps", " over", " it", "."],
        ["関所", "は", "通行", "手形", "を", "改める", "ところ", "です", "。", "\n"],
        ["def", " f", "(x", "):\n", "    ", "return", " x", " +", " 1"],
    ],
    ids=["english", "japanese", "code"],
)
def test_clean_text_flows_as_it_comes(pieces: list[str]) -> None:
    look = matcher(
        rule(words=["機密コード", "ALPHA-77"], action="block"), rule(kind="pattern", pattern="案件[A-Z]{3}-[0-9]{2}")
    )
    assert in_pieces(look, pieces)[0] == [*pieces, ""]


def test_no_more_is_held_back_than_has_begun() -> None:
    look = matcher(rule(words=["ALPHA-77"], action="block"))
    assert in_pieces(look, ["my al", "phabet", " is alpha-7", "8"])[0] == ["my ", "alphabet", " is ", "alpha-78", ""]


def test_a_slice_of_a_long_text_ends_anywhere() -> None:
    look = matcher(rule(words=["ALPHA-77"]))
    for shift in range(9):
        text = "x" * (SLICE_CHARACTERS - shift) + "ALPHA-77" + "y" * SLICE_CHARACTERS
        assert whole(look, text).text == text.replace("ALPHA-77", "[REDACTED_1]")


def test_what_blocks_is_told_however_much_was_flagged_before() -> None:
    look = matcher(rule(words=["x"], action="flag"), rule(words=["END"], action="block"))
    judged = whole(look, "x" * (DECISIONS_MAX + 1) + "END")
    assert judged.blocked is not None
    assert judged.decisions[-1] == judged.blocked


def test_others_get_their_turn_between_slices() -> None:
    pauses: list[None] = []
    judge_text(SECRETS, "word " * SLICE_CHARACTERS, Masks(), surface=SURFACE, pause=lambda: pauses.append(None))
    assert len(pauses) == 4


ARGUMENTS = "output.tool_arguments"


def in_argument_pieces(look: Matcher, pieces: list[str]) -> str:
    scanner = Scanner(look, Masks(), ARGUMENTS)
    return "".join([*map(scanner.feed, pieces), scanner.end()])


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        (r'{"a":"\u6a5f\u5bc6コード"}', '{"a":"'),
        (r'{"a":"\u0041LPHA-77"}', '{"a":"'),
        (r'{"a":"\\u0041LPHA-77"}', r'{"a":"\\u0041LPHA-77"}'),
        (r'{"a":"taro\u0040example.com"}', '{"a":"[EMAIL_1]"}'),
        (r'{"a":"\ud83d\ude00 \n\t\"x\""}', r'{"a":"\ud83d\ude00 \n\t\"x\""}'),
        (r'{"a":"\ud83d"}', r'{"a":"\ud83d"}'),
        ("\\" * 40 + r"\u0041LPHA-77", "\\" * 40),
        ("\\" * 41 + r"\u0041LPHA-77", "\\" * 41 + r"\u0041LPHA-77"),
    ],
    ids=["all", "one", "escaped-backslash", "masked", "clean", "half-a-pair", "even", "odd"],
)
def test_escapes_in_arguments_are_read(text: str, passes: str) -> None:
    assert judge_text(SECRETS, text, Masks(), surface=ARGUMENTS).text == passes
    for at in range(len(text) + 1):
        assert in_argument_pieces(SECRETS, [text[:at], text[at:]]) == passes
    assert in_argument_pieces(SECRETS, list(text)) == passes


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_a_number_that_is_masked_becomes_a_string(size: int) -> None:
    look = matcher(rule(kind="detector", detector="credit_card"), rule(words=["secret"]))
    text = r'{"card": 4111111111111111, "s": "a \"secret\" of \\", "n": [4111111111111111, "4111111111111111"]}'
    passed = in_argument_pieces(look, [text[at : at + size] for at in range(0, len(text), size)])
    assert json.loads(passed) == {
        "card": "[CREDIT_CARD_1]",
        "s": 'a "[REDACTED_1]" of \\',
        "n": ["[CREDIT_CARD_1]", "[CREDIT_CARD_1]"],
    }


PARTS = [r"\u0061", r"\u304b", r"\u3099", r"\ud83d", r"\ude00", r"\\", r"\"", "\\", "u0"]
ESCAPED = st.lists(st.sampled_from([*ALPHABET, *PARTS]), max_size=20).map("".join)


@settings(max_examples=300, deadline=None)
@given(RULES, ESCAPED)
def test_arguments_pass_in_pieces_as_the_whole_does(rules: list[dict[str, object]], text: str) -> None:
    look = matcher(*rules)
    expected = judge_text(look, text, Masks(), surface=ARGUMENTS).text
    assert in_argument_pieces(look, list(text)) == expected
    assert in_argument_pieces(look, [text[:7], text[7:]]) == expected
