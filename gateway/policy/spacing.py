"""Letters with spaces between them, closed up: "A L P H A", and characters of Japanese, which has no spaces. Pure.

For keywords alone: patterns say themselves where a space may stand.
"""

import re
from typing import Final

import re2

from gateway.policy.normalize import Normalised, Run

# In normalised text, where katakana is hiragana.
_CJK: Final = "\u3005-\u3007\u3041-\u309f\u30fc\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_BETWEEN: Final = re.compile(f"(?<=[{_CJK}])[ \t]{{1,4}}(?=[{_CJK}])|(?<=(?<![a-z0-9])[a-z0-9]) (?=[a-z0-9](?![a-z0-9]))")
_MAY_HAVE: Final = re2.compile(f"[{_CJK}][ \t]{{1,4}}[{_CJK}]|\\b[a-z0-9] [a-z0-9]\\b".encode())
_MAY: Final = re.compile(f"[{_CJK}][ \t]|(?<![a-z0-9])[a-z0-9] ")
_MAY_LONG: Final = re2.compile(f"[{_CJK}][ \t]+(?:[{_CJK}]|\\z)|\\b[a-z0-9] (?:[a-z0-9](?:[^a-z0-9]|\\z)|\\z)".encode())
_SHORT: Final = 128
_UNDECIDED: Final = re.compile(f"(?:[{_CJK}][ \t]{{1,4}}|(?<![a-z0-9])[a-z0-9] [a-z0-9]?)\\Z")


def may_close_up(text: str) -> bool:
    """Has it a space that goes, or that may go by what follows? Says so too often rather than too seldom."""
    if " " not in text and "\t" not in text:
        return False
    return (_MAY.search(text) if len(text) < _SHORT else _MAY_LONG.search(text.encode())) is not None


def closed_up(text: str) -> Normalised:
    """Normalised text without such spaces; its origins are in `text`."""
    return Normalised(text) if _MAY_HAVE.search(text.encode()) is None else _closed(text)


def _closed(text: str) -> Normalised:
    runs: list[Run] = []
    at = start = 0
    for match in _BETWEEN.finditer(text):
        if length := match.start() - at:
            runs.append(Run(start, at, length, length))
            start += length
        at = match.end()
    if length := len(text) - at:
        runs.append(Run(start, at, length, length))
    return Normalised(_BETWEEN.sub("", text), text, runs)


def other_endings(text: str) -> tuple[Normalised, ...]:
    """How else `text` may turn out to be closed up, by what follows: spaces at its end that go, or do not."""
    if not text.endswith((" ", "\t")) and text[-2:-1] != " ":
        return ()
    if _UNDECIDED.search(text[-8:]) is None:
        return ()
    bare = text.rstrip(" \t")
    last = _closed(text + "a")
    return closed_up(bare), last.without_last()
