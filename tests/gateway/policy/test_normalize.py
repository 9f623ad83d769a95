"""Texts that read alike become one, and each character of it leads back to what it comes from."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.normalize import Normalised, endings, folded, normalise, unsettled

# What folding joins, parts, drops and leaves alone; letters of any script, beyond the basic plane too.
HARD = (
    "aZ9 ー-カｶがガﾞ゛\u3099\u309aはﾊﾟ①㍿ﬁßéİΐ´٣аορ"
    "\u0301\u200b\u00ad\ufe0f\U000e0100\U0001d165한ᄀ\u1161\u11a8กำ\u0627\u0653ク\u0308字"
)
BEYOND = "\U0001d7d8\U00011099\U000110ba\U0001f600\U000105d2"
TEXTS = st.text(st.sampled_from(HARD + BEYOND) | st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.mark.parametrize(
    ("written", "reads"),
    [
        pytest.param("ＡＬＰＨＡ－７７", "alpha-77", id="full width"),
        pytest.param("ｶﾞｷﾞﾊﾟ", "がぎぱ", id="half-width katakana with its marks"),
        pytest.param("①㍿ﬁ℡", "1株式会社fitel", id="compatibility characters"),
        pytest.param("　", " ", id="ideographic space"),
        pytest.param("Straße ŒUVRE", "strasse œuvre", id="case"),
        pytest.param("カタカナ ヴァヵヶヽヾ", "かたかな ゔぁゕゖゝゞ", id="katakana"),
        pytest.param("コード", "こーど", id="the long vowel stays"),
        pytest.param("か゛は゜ハ\u3099ヒ\u309a", "がぱばぴ", id="marks apart from their kana"),
        pytest.param("٣४๗𝟘３③", "347033", id="digits"),
        pytest.param("a‐b‑c‒d–e—f―g−h⁃i﹘j", "a-b-c-d-e-f-g-h-i-j", id="dashes"),
        pytest.param("раssрогt", "passpoгt", id="cyrillic"),
        pytest.param("αlρhα ΑΒΕ", "alpha abe", id="greek"),
        pytest.param("ɑɡı", "agi", id="latin look-alikes"),
        pytest.param("é e\u0301 Ñ ệ ở", "e e n e o", id="accents"),
        pytest.param("İSTANBUL ǰ ẗ ΐ", "istanbul j t i", id="accents that lower case leaves"),
        pytest.param("a\u200bl\u00adp\u2060h\ufeffa", "alpha", id="unseen characters"),
        pytest.param("機\ufe00密\ufe0f", "機密", id="variation selectors"),
        pytest.param("機\U000e0100密\U000e01ef\U000e0041\U0001d173コ", "機密こ", id="unseen beyond the basic plane"),
        pytest.param("ᄒ\u1161\u11ab", "한", id="hangul in parts"),
        pytest.param("\u0627\u0653", "\u0622", id="arabic letter with its mark"),
    ],
)
def test_what_reads_alike_is_written_alike(written: str, reads: str) -> None:
    assert folded(written) == normalise(written).text == reads
    assert folded("字" * 80 + written) == "字" * 80 + reads


def test_letters_of_other_scripts_that_look_like_no_latin_stay() -> None:
    assert folded("вгкмнт λψω 日本") == "вгкмнт λψω 日本"


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_folding_again_changes_nothing(text: str) -> None:
    assert folded(folded(text)) == folded(text)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_a_long_text_is_folded_as_a_short_one(text: str) -> None:
    filler = "。" * 70  # composes with nothing
    assert folded(filler + text) == filler + folded("。" + text)[1:]
    assert folded(text + filler) == folded(text) + filler


def leads_back(text: str, seen: Normalised) -> None:
    origins = [seen.origin(at) for at in range(len(seen.text) + 1)]
    ends = [seen.end(at + 1) for at in range(len(seen.text))]
    assert origins == sorted(origins)
    assert ends == sorted(ends)
    assert origins[-1] == len(text)
    for at, char in enumerate(seen.text):
        assert origins[at] < ends[at] <= len(text)
        assert char in folded(text[origins[at] : ends[at]])
        assert seen.position(origins[at]) <= at
    positions = [seen.position(at) for at in range(len(text))]
    assert positions == sorted(positions)
    for at, position in enumerate(positions):
        assert position == len(seen.text) or origins[position] >= at
        assert position == 0 or origins[position - 1] < at


@settings(max_examples=500, deadline=None)
@given(TEXTS)
def test_each_character_leads_back_to_what_it_comes_from(text: str) -> None:
    seen = normalise(text)
    assert seen.text == folded(text)
    leads_back(text, seen)


@settings(max_examples=100, deadline=None)
@given(TEXTS, TEXTS, st.integers(240, 270))
def test_each_character_of_a_long_text_leads_back(head: str, tail: str, length: int) -> None:
    text = head + "字" * (length - len(head)) + tail + "㍿" * 3 + "x" * 300 + head
    leads_back(text, normalise(text))


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_pieces_of_a_long_text_agree_with_the_whole(text: str) -> None:
    filler = "é字㍿\u200b" * 150
    seen, alone = normalise(filler + text), normalise("\u200b" + text)
    behind = len(folded(filler))
    for at in range(len(alone.text)):
        assert seen.origin(behind + at) == len(filler) - 1 + alone.origin(at)
        assert seen.end(behind + at + 1) == len(filler) - 1 + alone.end(at + 1)


def test_a_character_that_became_several_is_taken_as_a_whole() -> None:
    seen = normalise("a㍿b")
    assert seen.text == "a株式会社b"
    assert [seen.origin(at) for at in range(7)] == [0, 1, 1, 1, 1, 2, 3]
    assert [seen.end(at) for at in range(1, 7)] == [1, 2, 2, 2, 2, 3]


def test_a_text_whose_characters_stay_where_they_are_is_known_to() -> None:
    assert normalise("機密ＡＢＣ é").is_in_place
    assert not normalise("機\u200b密").is_in_place
    assert normalise("").origin(0) == 0


def test_the_last_character_can_be_left_off() -> None:
    seen = normalise("㍿x").without_last()
    assert (seen.text, seen.origin(3), seen.end(4), seen.origin(4)) == ("株式会社", 0, 1, 1)


@pytest.mark.parametrize(
    ("text", "others"),
    [
        ("か", ["が"]),
        ("ハ", ["ば", "ぱ"]),
        ("ﾊ", ["ば", "ぱ"]),
        ("ウ\u200b", ["ゔ"]),
        ("ゝ", ["ゞ"]),
        ("な", []),
        ("が", []),
        ("a", []),
        ("", []),
    ],
    ids=["ka", "ha", "half-width ha", "unseen in between", "repeated", "na", "voiced", "latin", "empty"],
)
def test_kana_may_become_voiced_by_what_follows(text: str, others: list[str]) -> None:
    assert [folded(other) for other in endings(text)] == others


@settings(max_examples=500, deadline=None)
@given(TEXTS, st.sampled_from(HARD + BEYOND) | st.characters(exclude_categories=["Cs"]))
def test_only_what_is_known_to_changes_by_what_follows(text: str, char: str) -> None:
    if not unsettled(text) and not endings(text):
        assert folded(text + char).startswith(folded(text))
