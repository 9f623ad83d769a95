"""Tables for a terminal: what the commands that list things print."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """One line a row below a line of headings, in aligned columns."""
    cells = [[name.removesuffix("_at").replace("_", " ").upper() for name in columns]]
    cells += [[cell(row[name]) for name in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


def cell(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%MZ}"
    if isinstance(value, list):
        return ",".join(value)
    return "-" if value is None else str(value)
