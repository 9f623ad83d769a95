"""Letters of scripts that are not allowed are found; what all scripts share is never one."""

import pytest

from gateway.policy.scripts import SCRIPTS, find_other

LETTERS = {
    "latin": "aé", "han": "字", "hiragana": "か", "katakana": "カ", "japanese": "字かカー", "hangul": "한", "bopomofo": "ㄅ",
    "greek": "λ", "cyrillic": "ж", "armenian": "ա", "georgian": "ა", "hebrew": "א", "arabic": "ع", "devanagari": "क",
    "bengali": "ক", "tamil": "க", "thai": "ก", "lao": "ກ", "khmer": "ក", "myanmar": "က", "mongolian": "ᠠ", "ethiopic": "አ",
}  # fmt: skip
JAPANESE = {"han", "hiragana", "katakana", "japanese"}


def test_every_script_is_tried() -> None:
    assert set(LETTERS) == set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_letters_of_its_own_are_allowed_and_of_others_found(script: str) -> None:
    assert find_other(LETTERS[script], frozenset({script})) is None
    for other in SCRIPTS:
        if other != script and not {script, other} <= JAPANESE:
            assert find_other(f"1{LETTERS[other]}", frozenset({script})) == (1, 1 + len(LETTERS[other].rstrip("ー")))


def test_what_all_share_is_of_each() -> None:
    assert find_other("12 ３４ !? 「」。、 ー \n € 😀 a\u0301 ①", frozenset({"latin"})) is None


def test_scripts_add_up() -> None:
    allowed = frozenset({"japanese", "latin"})
    assert find_other("日本語とカナ and Latin, ｶﾅ", allowed) is None
    assert find_other("日本語 and русский язык", allowed) == (8, 15)


def test_the_first_of_several_is_found_with_all_beside_it() -> None:
    assert find_other("abcжжжλ字", frozenset({"latin"})) == (3, 8)


def test_nothing_is_found_in_nothing() -> None:
    assert find_other("", frozenset({"latin"})) is None
