"""What differs between two lists of texts, line by line, as people read it. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import Final, Literal

LINES_MAX: Final = 5_000  # of both texts together: beyond, comparing takes seconds
CONTEXT_LINES: Final = 3


@dataclass(frozen=True, slots=True)
class Line:
    """sign: added, removed, in both; "…" stands for `skipped` lines that are in both."""

    sign: Literal["+", "-", " ", "…"]
    text: str = ""
    skipped: int = 0


def differences(before: Sequence[str], after: Sequence[str]) -> list[Line] | None:
    """Two lists of texts of some lines each; what is in both is found text by text first, then by line.

    []: they are the same. None: they are too long to compare.
    """
    if sum(text.count("\n") + 1 for text in (*before, *after)) > LINES_MAX:
        return None
    return [] if list(before) == list(after) else list(_shortened(list(_lines(before, after))))


def _lines(old: Sequence[str], new: Sequence[str]) -> Iterator[Line]:
    for tag, old_from, old_to, new_from, new_to in SequenceMatcher(None, old, new).get_opcodes():
        were, are = old[old_from:old_to], new[new_from:new_to]
        if tag == "replace" and len(were) == len(are):
            for was, now in zip(were, are, strict=True):
                yield from _inside(was.splitlines(), now.splitlines())
        elif tag == "equal":
            yield from _signed(" ", were)
        else:
            yield from _inside("\n".join(were).splitlines(), "\n".join(are).splitlines())


def _inside(old: list[str], new: list[str]) -> Iterator[Line]:
    """Lines that became others."""
    for tag, old_from, old_to, new_from, new_to in SequenceMatcher(None, old, new).get_opcodes():
        if tag == "equal":
            yield from _signed(" ", old[old_from:old_to])
        else:
            yield from _signed("-", old[old_from:old_to])
            yield from _signed("+", new[new_from:new_to])


def _signed(sign: Literal["+", "-", " "], texts: Sequence[str]) -> Iterator[Line]:
    return (Line(sign, line) for text in texts for line in text.splitlines())


def _shortened(lines: list[Line]) -> Iterator[Line]:
    """Without what is far from a change."""
    groups = [list(group) for _is_same, group in groupby(lines, key=lambda line: line.sign == " ")]
    for number, group in enumerate(groups):
        if group[0].sign == " ":
            texts = [line.text for line in group]
            yield from _unchanged(texts, is_first=number == 0, is_last=number == len(groups) - 1)
        else:
            yield from group


def _unchanged(same: list[str], *, is_first: bool, is_last: bool) -> Iterator[Line]:
    head, tail = 0 if is_first else CONTEXT_LINES, 0 if is_last else CONTEXT_LINES
    skipped = len(same) - head - tail
    if skipped <= 1:
        yield from (Line(" ", text) for text in same)
        return
    yield from (Line(" ", text) for text in same[:head])
    yield Line("…", skipped=skipped)
    yield from (Line(" ", text) for text in same[len(same) - tail :])
