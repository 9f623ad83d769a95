"""The fault matrix: a row for each fault, and how it is printed."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:  # the command is there before Django is
    from tests.faults.clients import Result

ROWS: Final[list["Row"]] = []


@dataclass(frozen=True, slots=True)
class Row:
    """What one fault came to. *_s None: it did not come about. endings: of the backend's answers, as usage events tell."""

    fault: str
    calls: int
    seen: Counter[str]
    lost: int
    endings: Counter[str] = field(default_factory=Counter)
    ejected_s: float | None = None
    recovered_s: float | None = None
    slowest_s: float = 0.0


def row_of(
    fault: str,
    results: "Iterable[Result]",
    endings: Counter[str],
    *,
    ejected_s: float | None,
    recovered_s: float | None,
) -> Row:
    ended = list(results)
    lost = sum(result.is_lost for result in ended)
    slowest_s = max((result.seconds for result in ended), default=0.0)
    seen = Counter(result.seen for result in ended)
    return Row(fault, len(ended), seen, lost, endings, ejected_s, recovered_s, slowest_s)


def table(rows: Iterable[Row]) -> str:
    """As text, for people."""
    head = f"{'fault':<46} {'calls':>6} {'lost':>5} {'out after':>10} {'back after':>10} {'slowest':>8}"
    lines = [f"{head}  what clients saw; how the failed ones are recorded"]
    for row in rows:
        recorded = f"; {_counted(row.endings)}" if row.endings else ""
        lines.append(
            f"{row.fault:<46} {row.calls:>6} {row.lost:>5} {_seconds(row.ejected_s):>10} {_seconds(row.recovered_s):>10} "
            f"{row.slowest_s:>6.1f} s  {_counted(row.seen)}{recorded}"
        )
    return "\n".join(lines)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} x {word}" for word, count in counts.most_common())


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"


class Printed:
    """A plugin of pytest: the rows take their long form, and the matrix is printed at the end."""

    is_long = True

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section("fault matrix")
        terminalreporter.write_line(table(ROWS))
