"""Patterns find in normalised text what they find in plain text; what may become a match is known from its first character."""

from contextlib import suppress
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.normalize import folded
from gateway.policy.patterns import PATTERN_MAX_CHARACTERS, PatternRefused, check_pattern, compiled, prepare

PATTERNS = [
    "a", "abc", "ab+c", "ab*c", "ab?c", "a{2}", "a{2,}b", "a{1,3}b?", "(a|b)c", "(ab|a)(c|bc)?", "a|bc|c{2}", "(?:ab)+",
    "(?P<name>a)b", "(?i)ABC", "(?s)a.c", "a.c", "(?m)^a$", "^ab", "ab$",
    r"\bab\b", r"a\Bb", r"\Aab", r"ab\z", "a+?b", "(?U)a+b",
    "(a*b)*c", "((a|b)*c){2}", "[ab]c", "[^a]b", "[^a-b]c+", "[a-b]{2}[^b]", r"\d\d-\d", r"\d{2}|\w-", r"[\d-]a", r"\D1",
    r"[[:digit:]]-",
    r"\Qa.c\E1", r"a\.c", r"\x61b", r"\x{61}\142", "カ+が", "[ァ-ン]a", "[ぁ-ん]-", r"\p{Han}+a", r"\p{Katakana}{2}",
    r"[\p{Lu}]1",
    "株(式|か)?a", "(?i:字)|(?-s:a.)b", "ａｂ", "é1", "㍿a", "a(?:|b)c",
]  # fmt: skip
TEXTS = st.text("abc1-.\nカガか字株é", min_size=1, max_size=7)

each_pattern = pytest.mark.parametrize("pattern", PATTERNS)


@lru_cache(maxsize=20_000)
def _exactly(pattern: str, before: int, behind: int) -> Any:
    return compiled(f"\\A(?s:.{{{before}}})(?:{pattern})(?s:.{{{behind}}})\\z")


def spans(pattern: str, text: str) -> list[tuple[int, int]]:
    """By trying all."""
    size = len(text)
    return [
        (start, end)
        for start in range(size)
        for end in range(start + 1, size + 1)
        if _exactly(pattern, start, size - end).search(text.encode()) is not None
    ]


def has_begun(pattern: str, text: str, start: int = 0) -> bool:
    begins = prepare(pattern).begins
    return begins is not None and _exactly(begins, start, 0).search(text.encode()) is not None


@each_pattern
def test_every_beginning_of_every_match_is_known_to_be_one(pattern: str) -> None:
    finds, _, first = prepare(pattern)

    @settings(max_examples=60, deadline=None)
    @given(TEXTS)
    def holds(text: str) -> None:
        seen = folded(text)
        for start, end in spans(finds, seen):
            assert compiled(first).search(seen[start].encode()) is not None
            for upto in range(start + 1, end):
                assert has_begun(pattern, seen[:upto], start)

    holds()


@each_pattern
def test_the_same_is_found_as_without_normalisation(pattern: str) -> None:
    finds = prepare(pattern).finds

    @settings(max_examples=60, deadline=None)
    @given(st.text("abc1-.\n字株", max_size=12))
    def holds(text: str) -> None:
        expected, found = (compiled(form).search(text.encode()) for form in (pattern, finds))
        assert (expected is None) == (found is None)
        if expected is not None:
            assert found.span() == expected.span()

    if pattern.isascii():
        holds()


@pytest.mark.parametrize(
    ("pattern", "begun", "done"),
    [
        ("ab+c", ["a", "ab", "abbb"], ["abbc", "b", "abx", "ac"]),
        ("a{2,3}b", ["a", "aa", "aaa"], ["aab", "ba"]),
        ("a+", ["a", "aa"], ["b", "ab"]),
        ("abc?", ["a", "ab"], ["abc", "abd"]),
        ("a", [], ["a", "b"]),
        ("ab$", ["a", "ab"], ["abc"]),
        (r"ab\b", ["a", "ab"], ["abc"]),
        (r"\bab", ["a"], ["ab"]),
        ("a|bc", ["b"], ["bc"]),
        ("(?s)a.*", ["a", "a\nb"], ["b"]),
        ("a.*b", ["a", "abc"], ["a\n"]),
        ("㍿", ["株", "株式", "株式会"], ["株式会社"]),
        (r"\Qa.b\E", ["a", "a."], ["ab", "a.b"]),
        ("案件[A-Z]{3}-[0-9]{2}", ["案", "案件", "案件ab", "案件abc-1"], ["案件abc-12", "案件1"]),
    ],
)
def test_what_is_done_has_not_begun(pattern: str, begun: list[str], done: list[str]) -> None:
    """A last character that may still be repeated keeps a match open."""
    opened = {text for text in (*begun, *done) if has_begun(pattern, text)}
    may_grow = {text for text in begun if compiled(f"^(?:{prepare(pattern).finds})$").search(text.encode())}
    assert opened | may_grow == set(begun)
    assert opened.isdisjoint(done)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        pytest.param("ＡＢＣ", "abc", id="full width"),
        pytest.param("カード", "ｶｰﾄﾞ", id="katakana"),
        pytest.param("[ァ-ヶ]{3}", "カナだ", id="range of katakana"),
        pytest.param("[ァ-ヶ]", "ｶﾞ", id="range and half width"),
        pytest.param(r"\p{Katakana}+", "カナ", id="katakana by name"),
        pytest.param(r"\p{Hiragana}+", "かな", id="hiragana by name"),
        pytest.param(r"^\p{Lu}{3}$", "ABC", id="capitals by name"),
        pytest.param(r"[\p{Lu}]\p{Nd}", "A７", id="names in a class"),
        pytest.param("[Ａ-Ｚ]-", "a−", id="range of full width"),
        pytest.param("[一-龠]{2}", "機密", id="range of kanji"),
        pytest.param("[а-я]", "а", id="range of cyrillic"),
        pytest.param(r"[\x{4e00}-\x{9fff}]", "字", id="range by number"),
        pytest.param(r"[]a]", "]", id="bracket first in a class"),
        pytest.param(r"[a\]-]", "-", id="dash last in a class"),
        pytest.param(r"[\t\n.*]", "*", id="signs in a class"),
        pytest.param("É", "e\u0301", id="accent"),
        pytest.param(r"\Q[a]+", "[A]+", id="quoted to the end"),
        pytest.param(r"\Qカ\E+$", "カカ", id="quoted and repeated"),
        pytest.param("(?i)(?P<all>x(?-i:Y))", "xy", id="groups with names and flags"),
        pytest.param("(?s-i:a.B)", "A\nb", id="case is never told apart"),
        pytest.param("(?m)^b$", "a\nb\nc", id="lines"),
        pytest.param(r"\101\x42\x{43}\t", "abc\t", id="characters by number"),
        pytest.param(r"[[:alpha:]][[:^alpha:]]", "a1", id="posix classes"),
        pytest.param("a{,2}", "a{,2}", id="braces that count nothing"),
        pytest.param("ß", "SS", id="a character that becomes two"),
    ],
)
def test_patterns_are_read_as_texts_are(pattern: str, text: str) -> None:
    check_pattern(pattern)
    assert compiled(prepare(pattern).finds).search(folded(text).encode()) is not None


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        pytest.param("[^ァ-ヶ]x", "カx", id="class that leaves out katakana"),
        pytest.param(r"\P{Han}", "字", id="class by name, negated"),
        pytest.param("(?-s)a.b", "a\nb", id="dot and lines"),
        pytest.param("^b", "a\nb", id="beginning of the text alone"),
        pytest.param(r"\Qa+\E", "aa", id="quoted"),
        pytest.param(r"a\.b", "axb", id="escaped"),
        pytest.param("(?U:a)$|(?m:^)b$", "ab", id="edges in groups"),
    ],
)
def test_patterns_find_nothing_else(pattern: str, text: str) -> None:
    check_pattern(pattern)
    assert compiled(prepare(pattern).finds).search(folded(text).encode()) is None


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        pytest.param("(?=a)b", "RE2 refuses it: .*Look-around and back-references", id="look-ahead"),
        pytest.param(r"(a)\1", "RE2 refuses it", id="back-reference"),
        pytest.param("(a", "RE2 refuses it", id="open group"),
        pytest.param("[a", "RE2 refuses it", id="open class"),
        pytest.param("a{1001}", "RE2 refuses it", id="count"),
        pytest.param("*", "RE2 refuses it", id="nothing to repeat"),
        pytest.param(r"\p{Klingon}", "RE2 refuses it", id="unknown script"),
        pytest.param("a*", "matches nothing at all", id="star"),
        pytest.param("a|", "matches nothing at all", id="empty choice"),
        pytest.param("", "matches nothing at all", id="empty"),
        pytest.param(r"^\b$", "matches nothing at all", id="edges alone"),
        pytest.param("a{0}", "matches nothing at all", id="none"),
        pytest.param("(((a{1,100}){1,100})b)", "RE2 refuses it|too large", id="counts of counts"),
        pytest.param(r"\C", "not understood", id="byte"),
        pytest.param("(" * 101 + "a" + ")" * 101, "nested too deep", id="depth"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(pattern: str, reason: str) -> None:
    with pytest.raises(PatternRefused, match=reason):
        check_pattern(pattern)


@settings(max_examples=300, deadline=None)
@given(st.text(r"ab[]()\|?*+{}-^$.:1,Qカ", max_size=14))
def test_any_text_is_prepared_or_refused(pattern: str) -> None:
    """What RE2 takes is taken, or refused; never does another error come out."""
    with suppress(PatternRefused):
        check_pattern(pattern)
        compiled(prepare(pattern).finds)


def test_the_longest_pattern_is_prepared() -> None:
    check_pattern("(?:a|ガ)" * (PATTERN_MAX_CHARACTERS // 7))
