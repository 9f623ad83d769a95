"""Every metric of the gateway, by name. Labels are names of configured things, never anything a client wrote."""

import errno
import os
import time
from bisect import bisect_left
from collections import Counter as Tally
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

import structlog
from prometheus_client import REGISTRY as _PROCESS
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


class Durations(Histogram):
    """A Histogram of seconds that takes many at once."""

    def observe_all(self, amounts: Collection[float]) -> None:
        self._sum.inc(sum(amounts))
        for at, times in Tally(bisect_left(self._upper_bounds, amount) for amount in amounts).items():
            self._buckets[at].inc(times)


CALLS = Counter("sekisho_calls", "Calls under /v1 that ended", ["tenant", "alias", "status", "outcome"])
TOKENS = Counter("sekisho_tokens", "Tokens metered", ["tenant", "alias", "kind"])
FIRST_TOKEN = Durations(
    "sekisho_first_token_seconds",
    "From the call's arrival to the first event of its answer",
    ["alias"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
DURATION = Durations(
    "sekisho_call_seconds",
    "From the call's arrival to the end of its answer",
    ["alias"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
IN_FLIGHT = Gauge("sekisho_calls_in_flight", "Calls being served", multiprocess_mode="livesum")
QUEUED = Durations(
    "sekisho_queue_seconds",
    "How long calls waited for a place under a ceiling, those in vain too",
    ["deployment"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
ATTEMPTS = Counter("sekisho_upstream_attempts", "Tries of a backend", ["backend", "result"])
POLICY_DECISIONS = Counter("sekisho_policy_decisions", "What content policies decided", ["policy", "action"])
EJECTIONS = Counter("sekisho_backend_ejections", "Times that a backend was taken out", ["backend", "reason"])
FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"  # of prometheus_client: each worker has its files there, and /metrics sums them
WRITE_S: Final = 0.2
OBSERVED_MOST: Final = 100_000  # of a series, where none can be written
SPARE_BYTES: Final = 4 * 1024 * 1024
_log = structlog.get_logger("gateway")
_STATES: Final = {"ejected": 0, "trial": 1, "unknown": 2, "healthy": 3}

Series = tuple[Any, ...]  # a metric, and the values of its labels

# What was counted and observed since write(). In memory: each inc() of its own writes a file that is shared with the other
# workers, after a lock and a look at the process' id; eleven a call took 8 % of its CPU time (2026-11).
counts: Final[defaultdict[Series, float]] = defaultdict(float)
observed: Final[defaultdict[Series, deque[float]]] = defaultdict(lambda: deque(maxlen=OBSERVED_MOST))


def write() -> None:
    """Have what was counted shown by all workers. Called some times a second, when /metrics is asked, and at the end.

    Raises OSError where there is no room for it: it waits then.
    """
    _see_that_there_is_room()
    # Taken out one by one, each before it is written: of a write that fails nobody knows how much of it was counted.
    while counts:
        series, amount = counts.popitem()
        if amount:
            _of(*series).inc(amount)
    while observed:
        series, seen = observed.popitem()
        _of(*series).observe_all(seen)


@lru_cache(maxsize=8192)
def _of(metric: Any, *labels: str) -> Any:
    """Kept: labels() checks, locks and looks up anew each time, 2 us."""
    return metric.labels(*labels) if labels else metric


def _see_that_there_is_room() -> None:
    """The files are mapped into memory: who writes to them on a full disk is killed by a SIGBUS, again after each restart."""
    if folder := os.environ.get(FOLDER):
        disk = os.statvfs(folder)
        if disk.f_bavail * disk.f_frsize < SPARE_BYTES:
            raise OSError(errno.ENOSPC, "No room for metrics", folder)


def keep_writing() -> None:
    """The body of a greenlet."""
    fails = False
    while True:
        time.sleep(WRITE_S)
        try:
            write()
        except OSError as error:  # calls go on, and all but what failed is written in a moment
            if not fails:
                _log.error("metrics_not_written", reason=str(error))
            fails = True
        else:
            fails = False


class Backends(Collector):
    """What every worker knows of all backends: whichever answers /metrics tells it, and nothing is summed.

    totals: each backend's name, state, and calls over all workers.
    """

    def __init__(self, totals: Callable[[], Iterable[tuple[str, str, int]]]) -> None:
        self._totals = totals

    def collect(self) -> Iterator[GaugeMetricFamily]:
        state = GaugeMetricFamily("sekisho_backend_state", "0 ejected, 1 trial, 2 unknown, 3 healthy", labels=["backend"])
        in_flight = GaugeMetricFamily("sekisho_backend_in_flight", "Calls at a backend, of all workers", labels=["backend"])
        for name, named_state, calls in self._totals():
            state.add_metric([name], _STATES[named_state])
            in_flight.add_metric([name], calls)
        yield state
        yield in_flight


_live: list[Collector] = []


def show(collector: Collector) -> None:
    """Have `collector` asked whenever the metrics are rendered."""
    _live.append(collector)
    _PROCESS.register(collector)


def render() -> bytes:
    """The text format, summed over all workers when FOLDER is set: WRITE_S old at most, older where there is no room."""
    with suppress(OSError):
        write()
    if FOLDER not in os.environ:
        return generate_latest(_PROCESS)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    for collector in _live:
        registry.register(collector)
    return generate_latest(registry)
