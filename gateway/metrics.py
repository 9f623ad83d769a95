"""Every metric of the gateway, by name. Labels are names of configured things, never anything a client wrote."""

import os

from prometheus_client import REGISTRY as _PROCESS
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

CALLS = Counter("sekisho_calls", "Calls under /v1 that ended", ["tenant", "alias", "status", "outcome"])
TOKENS = Counter("sekisho_tokens", "Tokens metered", ["tenant", "alias", "kind"])
FIRST_TOKEN = Histogram(
    "sekisho_first_token_seconds",
    "From the call's arrival to the first event of its answer",
    ["alias"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
DURATION = Histogram(
    "sekisho_call_seconds",
    "From the call's arrival to the end of its answer",
    ["alias"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
IN_FLIGHT = Gauge("sekisho_calls_in_flight", "Calls being served", multiprocess_mode="livesum")
ATTEMPTS = Counter("sekisho_upstream_attempts", "Tries of a backend", ["backend", "result"])


def render() -> bytes:
    """The text format, summed over all workers when PROMETHEUS_MULTIPROC_DIR is set."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(_PROCESS)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
