"""Gauges: the few samples of vLLM's /metrics that routing reads, out of its 70 kB. Pure.

Names as of vLLM 0.32.0 (recorded). No parser of the whole format: a page takes 0.1 ms this way.
"""

import re
from dataclasses import dataclass
from typing import Final

# Greedy up to the last brace of the line: a label's value may hold braces itself. What follows the value is a timestamp.
_SAMPLE: Final = re.compile(
    rb"\nvllm:(num_requests_running|num_requests_waiting|kv_cache_usage_perc|prompt_tokens_total|generation_tokens_total)"
    rb"(?:\{.*\})?[ \t]+([^ \t\r\n]+)"
)
_SANE: Final = 1e15  # NaN is not below it either


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a backend says it is. kv_cache: the share in use, 0 to 1. at_s: when it said so, by Board.now_s()."""

    running: int
    waiting: int
    kv_cache: float
    at_s: float


@dataclass(frozen=True, slots=True)
class Gauges:
    """progress: numbers of which an engine that works at anything changes some within a step, or few."""

    running: int
    waiting: int
    kv_cache: float
    progress: tuple[float, ...]

    def load(self, at_s: float) -> Load:
        return Load(self.running, self.waiting, self.kv_cache, at_s)


def read_gauges(page: bytes) -> Gauges | None:
    """The gauges of all engines behind one URL: requests added up, the fullest cache. None: it does not say how many run."""
    found: dict[bytes, list[float]] = {}
    for name, text in _SAMPLE.findall(b"\n" + page):
        if (value := _number(text)) is not None:
            found.setdefault(name, []).append(value)
    running, waiting = found.get(b"num_requests_running"), found.get(b"num_requests_waiting", [])
    if running is None:
        return None
    kv_cache = found.get(b"kv_cache_usage_perc", [0.0])
    counters = [sum(found.get(name, ())) for name in (b"prompt_tokens_total", b"generation_tokens_total")]
    return Gauges(
        running=round(sum(running)),
        waiting=round(sum(waiting)),
        kv_cache=min(1.0, max(kv_cache)),
        progress=(sum(running), sum(waiting), sum(kv_cache), *counters),
    )


def _number(text: bytes) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= _SANE else None
