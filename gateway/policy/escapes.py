r"""JSON read in pieces: the arguments of tool calls, in which \u6a5f is a character like any other. Pure."""

import re
from collections.abc import Iterator
from typing import Final

import orjson

from gateway.policy.normalize import Normalised, Run, normalise

_ESCAPE: Final = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\[\"\\/bfnrt]")
_UNFINISHED: Final = re.compile(
    r"\\(?:u(?:[0-9a-fA-F]{0,3}|[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?)?)?\Z"
)
_FIRST_HALVES: Final = frozenset({"ud8", "ud9", "uda", "udb"})


class Unescaped(Normalised):
    """Normalised, once its escapes are read. unfinished: where an escape begins that is not all there; else its length."""

    __slots__ = ("_read", "_seen", "unfinished")

    def __init__(self, text: str) -> None:
        runs = list(_runs(text))
        self._read = Normalised(_read(text, runs), text, runs)
        self._seen = normalise(self._read.text)
        self.unfinished = _unfinished(text, runs)
        super().__init__(self._seen.text, text, ())

    @property
    def read(self) -> str:
        """As it is once its escapes are read, but not normalised."""
        return self._read.text

    def origin(self, at: int) -> int:
        return self._read.origin(self._seen.origin(at))

    def end(self, at: int) -> int:
        return self._read.end(self._seen.end(at))

    def position(self, origin: int) -> int:
        return self._seen.position(self._read.position(origin))

    def boundary(self, origin: int) -> int:
        """The last place at or before `origin` that is in no escape."""
        at = self._read.position(origin)
        return origin if self._read.origin(at) == origin else self._read.origin(max(0, at - 1))


def _unfinished(text: str, runs: list[Run]) -> int:
    """An escape that is whole may still be the first half of a pair."""
    if not runs:
        return len(text)
    last = runs[-1]
    is_half = not last.is_even and text[last.source + 1 : last.source + 4].lower() in _FIRST_HALVES
    if not last.is_even and not is_half:
        return len(text)
    before = runs[-2] if len(runs) > 1 and last.is_even else None
    is_pair_begun = (
        before is not None and not before.is_even and text[before.source + 1 : before.source + 4].lower() in _FIRST_HALVES
    )
    match = _UNFINISHED.search(text, before.source if before is not None and is_pair_begun else last.source)
    return match.start() if match else len(text)


def _runs(text: str) -> Iterator[Run]:
    start = at = 0
    for match in _ESCAPE.finditer(text):
        if length := match.start() - at:
            yield Run(start, at, length, length)
            start += length
        yield Run(start, match.start(), 1, match.end() - match.start())
        start, at = start + 1, match.end()
    if length := len(text) - at:
        yield Run(start, at, length, length)


def _read(text: str, runs: list[Run]) -> str:
    pieces = (text[run.source : run.source + run.came_from] for run in runs)
    return "".join(piece if run.is_even else _character(piece) for run, piece in zip(runs, pieces, strict=True))


def _character(escape: str) -> str:
    try:
        return str(orjson.loads(f'"{escape}"'))
    except orjson.JSONDecodeError:  # half of a pair
        return "\ufffd"
