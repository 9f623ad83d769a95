"""Ways to write a thing so that it still reads, and a program that compares letters does not find it."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Final

_LOOK_ALIKE: Final = str.maketrans("aceiopsxyACEIKMOPTXBH0123456789", "асеіорѕхуАСЕІКМОРТХВН𝟎𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖𝟗")
_LEET: Final = str.maketrans("aeiostAEIOST01", "431057431057Ol")
_KATAKANA: Final = {chr(code): chr(code - 0x60) for code in range(0x30A1, 0x30F7)}
_SWITCHED: Final = str.maketrans(_KATAKANA | {hira: kata for kata, hira in _KATAKANA.items()})
_HALF: Final = {
    unicodedata.normalize("NFKC", chr(code)): chr(code) for code in range(0xFF65, 0xFFA0)
} | {
    unicodedata.normalize("NFKC", chr(code) + mark): chr(code) + mark for code in range(0xFF65, 0xFF9E) for mark in "ﾞﾟ"
}  # fmt: skip


def _between(text: str, mark: str) -> str:
    """`mark` between each two letters or digits."""
    return re.sub(r"(?<=\w)(?=\w)", mark, text)


def _middle(text: str, mark: str) -> str:
    """`mark` once, at the gap nearest to the middle, or in the middle."""
    gaps = [match.end() for match in re.finditer(r"[-\s@.:]", text)] or [len(text) // 2]
    at = min(gaps, key=lambda gap: abs(gap - len(text) // 2))
    return text[:at] + mark + text[at:]


def _mixed_case(text: str) -> str:
    return "".join(char.upper() if at % 2 else char.lower() for at, char in enumerate(text))


OBFUSCATIONS: Final[Mapping[str, Callable[[str], str]]] = {
    "none": lambda text: text,
    "full width": lambda text: "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text),
    "half-width kana": lambda text: "".join(_HALF.get(char, char) for char in text),
    "kana switched": lambda text: text.translate(_SWITCHED),
    "mixed case": _mixed_case,
    "decomposed (NFD)": lambda text: unicodedata.normalize("NFD", text),
    "zero-width": lambda text: _between(text, "\u200b"),
    "soft hyphens": lambda text: _between(text, "\u00ad"),
    "look-alikes": lambda text: text.translate(_LOOK_ALIKE),
    "spaces between": lambda text: _between(text, " "),
    "dots between": lambda text: _between(text, "."),
    "line broken": lambda text: _middle(text, "\n"),
    "leet": lambda text: text.translate(_LEET),
}
