"""Scripts, as in "Japanese and Latin only": finds letters of any other. Pure."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import re2

# Values are what stands between the brackets of an RE2 class.
SCRIPTS: Final[Mapping[str, str]] = {
    "latin": r"\p{Latin}",
    "han": r"\p{Han}",
    "hiragana": r"\p{Hiragana}",
    "katakana": r"\p{Katakana}",
    "japanese": r"\p{Han}\p{Hiragana}\p{Katakana}",
    "hangul": r"\p{Hangul}",
    "bopomofo": r"\p{Bopomofo}",
    "greek": r"\p{Greek}",
    "cyrillic": r"\p{Cyrillic}",
    "armenian": r"\p{Armenian}",
    "georgian": r"\p{Georgian}",
    "hebrew": r"\p{Hebrew}",
    "arabic": r"\p{Arabic}",
    "devanagari": r"\p{Devanagari}",
    "bengali": r"\p{Bengali}",
    "tamil": r"\p{Tamil}",
    "thai": r"\p{Thai}",
    "lao": r"\p{Lao}",
    "khmer": r"\p{Khmer}",
    "myanmar": r"\p{Myanmar}",
    "mongolian": r"\p{Mongolian}",
    "ethiopic": r"\p{Ethiopic}",
}


def find_other(text: str, scripts: frozenset[str]) -> tuple[int, int] | None:
    """Where the first letters stand that are of none of these scripts; marks and letters that all share are of each."""
    match = _other_letters(scripts).search(text)
    return None if match is None else match.span()


@lru_cache(maxsize=256)
def _other_letters(scripts: frozenset[str]) -> Any:
    allowed = "".join(SCRIPTS[name] for name in sorted(scripts))
    options = re2.Options()
    options.log_errors = False
    return re2.compile(rf"[^\P{{L}}\p{{Common}}\p{{Inherited}}{allowed}]+", options)
