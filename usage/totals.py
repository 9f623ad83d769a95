"""Totals: what calls add up to, as every table of totals counts them. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import add
from typing import Final

from usage import histograms
from usage.events import UsageEvent, ending

SUMS: Final = (
    "requests", "errors", "refused", "blocked", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_nano",
)  # fmt: skip
# busy_ms: for how long calls ran within the span, all of them added up; over its length, how many ran at the same time.
AMOUNTS: Final = (*SUMS, "busy_ms")
# SQL: whether anything but time was used. A call that only ran on into a span is in its row with busy_ms alone.
ANY: Final = " OR ".join(f"sum({name}) <> 0" for name in SUMS)
HISTOGRAMS: Final = ("durations", "first_tokens")
BUSY_MOST_MS: Final = 86_400_000  # of one call: no setting lets one run longer


@dataclass(slots=True)
class Totals:
    """What one row shall be raised by."""

    requests: int = 0
    errors: int = 0
    refused: int = 0
    blocked: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_nano: int = 0
    busy_ms: int = 0
    durations: list[int] = field(default_factory=lambda: [0] * histograms.SIZE)
    first_tokens: list[int] = field(default_factory=lambda: [0] * histograms.SIZE)

    def count(self, event: UsageEvent) -> None:
        """A correction (part 1 and up) is no call of its own: it adds tokens and cost alone."""
        self.prompt_tokens += event.prompt_tokens
        self.cached_tokens += event.cached_tokens
        self.completion_tokens += event.completion_tokens
        self.cost_nano += event.cost_nano
        if event.part:
            return
        self.requests += 1
        match ending(event):
            case "blocked":
                self.blocked += 1
            case "refused":
                self.refused += 1
            case "failed":
                self.errors += 1
        if event.outcome != "refused":
            self.durations[histograms.bucket(event.duration_ms)] += 1
            if event.first_token_ms is not None:
                self.first_tokens[histograms.bucket(event.first_token_ms)] += 1

    def absorb(self, other: "Totals") -> None:
        """Be both of them."""
        self.requests += other.requests
        self.errors += other.errors
        self.refused += other.refused
        self.blocked += other.blocked
        self.prompt_tokens += other.prompt_tokens
        self.cached_tokens += other.cached_tokens
        self.completion_tokens += other.completion_tokens
        self.cost_nano += other.cost_nano
        self.busy_ms += other.busy_ms
        self.durations = list(map(add, self.durations, other.durations))
        self.first_tokens = list(map(add, self.first_tokens, other.first_tokens))

    def __add__(self, other: "Totals") -> "Totals":
        both = Totals()
        both.absorb(self)
        both.absorb(other)
        return both


def busy(event: UsageEvent) -> Iterator[tuple[int, int]]:
    """In which minutes the call ran: the start of each, Unix seconds, and for how many ms. Nothing for a correction."""
    if event.part:
        return
    at_ms = round(event.created_s * 1000)
    left_ms = min(event.duration_ms, BUSY_MOST_MS)
    while left_ms > 0:
        here_ms = min(left_ms, 60_000 - at_ms % 60_000)
        yield at_ms // 60_000 * 60, here_ms
        at_ms, left_ms = at_ms + here_ms, left_ms - here_ms
