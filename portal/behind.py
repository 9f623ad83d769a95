"""From a figure to the calls it counts: the address of the list of requests that holds them, and no others. No I/O."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Final
from urllib.parse import urlencode

from django.urls import reverse

# Of a measure that counts some of the calls: how the list is asked for those alone.
ENDINGS: Final[Mapping[str, str]] = {"errors": "failed", "refused": "refused", "blocked": "blocked"}
_FORMAT: Final = "%Y-%m-%dT%H:%M"


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure as it reads. url: of the calls behind it; "" where there are none, or they are nobody's page."""

    text: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Calls:
    """The requests of a tenant that a page tells of: of its time and its filters, by the names of portal.forms.usage."""

    slug: str
    filters: Mapping[str, str]
    address: str = field(init=False)  # of the list: looked up once, for hundreds of figures

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", reverse("requests", args=[self.slug]))

    def url(self, measure: str = "", **of: str) -> str:
        """Narrowed to what `measure` counts, and to the filters `of`."""
        asked = {**self.filters, **of}
        if measure in ENDINGS:
            asked["ending"] = ENDINGS[measure]
        return f"{self.address}?{urlencode({name: text for name, text in asked.items() if text})}"

    def cells(self, figures: Iterable[tuple[str, str, bool]], of: Mapping[str, str]) -> list[Cell]:
        """figures: the measure, how it reads, and whether there are calls behind it. Most of them count the same calls."""
        all_of_them = self.url(**of)
        return [
            Cell(text, (self.url(name, **of) if name in ENDINGS else all_of_them) if has_calls else "")
            for name, text, has_calls in figures
        ]

    def urls(self, edges: Sequence[datetime], measure: str = "", **of: str) -> list[str]:
        """Likewise, one of each bucket: all that they share is said once, for a chart has hundreds of them."""
        shared = self.url(measure, **of, **dict.fromkeys(between(edges[0], edges[-1]), ""))
        sign = "" if shared.endswith("?") else "&"
        return [f"{shared}{sign}{urlencode(between(start, end))}" for start, end in pairwise(edges)]


def between(start: datetime, end: datetime) -> dict[str, str]:
    """A time as the list's address says it, on the clock of both times' zone."""
    return {"from": f"{start:{_FORMAT}}", "to": f"{end:{_FORMAT}}"}
