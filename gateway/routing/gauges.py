"""Gauges: the few samples of vLLM's /metrics that routing reads, out of its 70 kB. Pure. Names as of vLLM 0.32.0 (recorded)."""

from dataclasses import dataclass
from typing import Final

from gateway.routing.samples import pattern, read_samples

_RUNNING: Final = "vllm:num_requests_running"
_WAITING: Final = "vllm:num_requests_waiting"
_KV_CACHE: Final = "vllm:kv_cache_usage_perc"
_COUNTERS: Final = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
_SAMPLES: Final = pattern(_RUNNING, _WAITING, _KV_CACHE, *_COUNTERS)


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
    found = read_samples(page, _SAMPLES)
    running, waiting = found.get(_RUNNING), found.get(_WAITING, [])
    if running is None:
        return None
    kv_cache = found.get(_KV_CACHE, [0.0])
    counters = [sum(found.get(name, ())) for name in _COUNTERS]
    return Gauges(
        running=round(sum(running)),
        waiting=round(sum(waiting)),
        kv_cache=min(1.0, max(kv_cache)),
        progress=(sum(running), sum(waiting), sum(kv_cache), *counters),
    )
