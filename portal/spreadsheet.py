"""CSV that a spreadsheet opens as text: no cell is a formula. No I/O."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

# https://owasp.org/www-community/attacks/CSV_Injection; the full-width ones are formulas to spreadsheets with a Japanese input.
_BEGIN_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_MARK: Final = "\ufeff"  # else Excel reads UTF-8 as the code page of its country


class _Echo:
    """A file that gives back what is written into it."""

    def write(self, text: str) -> str:
        return text


def lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of the file, made one by one as they are asked for."""
    writer = csv.writer(_Echo(), quoting=csv.QUOTE_ALL)
    yield _MARK + writer.writerow(head)
    for row in rows:
        yield writer.writerow([defused(cell) for cell in row])


def defused(cell: str) -> str:
    """`cell` with an apostrophe before it where it begins as a formula does."""
    return f"'{cell}" if cell.startswith(_BEGIN_FORMULAS) else cell
