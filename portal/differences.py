"""What differs between two texts, line by line, as people read it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final, Literal

LINES_MAX: Final = 5_000  # of both texts together: beyond, comparing takes seconds
CONTEXT_LINES: Final = 3


@dataclass(frozen=True, slots=True)
class Line:
    """sign: added, removed, in both; "…" stands for `skipped` lines that are in both."""

    sign: Literal["+", "-", " ", "…"]
    text: str = ""
    skipped: int = 0


def differences(before: str, after: str) -> list[Line] | None:
    """[]: they are the same. None: they are too long to compare."""
    old, new = before.splitlines(), after.splitlines()
    if len(old) + len(new) > LINES_MAX:
        return None
    return [] if old == new else list(_lines(old, new))


def _lines(old: list[str], new: list[str]) -> Iterator[Line]:
    for tag, old_from, old_to, new_from, new_to in SequenceMatcher(None, old, new).get_opcodes():
        if tag == "equal":
            yield from _unchanged(old[old_from:old_to], is_first=old_from == 0, is_last=old_to == len(old))
            continue
        yield from (Line("-", text) for text in old[old_from:old_to])
        yield from (Line("+", text) for text in new[new_from:new_to])


def _unchanged(same: list[str], *, is_first: bool, is_last: bool) -> Iterator[Line]:
    head, tail = 0 if is_first else CONTEXT_LINES, 0 if is_last else CONTEXT_LINES
    skipped = len(same) - head - tail
    if skipped <= 1:
        yield from (Line(" ", text) for text in same)
        return
    yield from (Line(" ", text) for text in same[:head])
    yield Line("…", skipped=skipped)
    yield from (Line(" ", text) for text in same[len(same) - tail :])
