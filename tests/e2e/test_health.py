"""Backends' health in a real gateway: every worker's metrics tell the same."""

import re

from tests.e2e.conftest import Stand


def metric(stand: Stand, name: str) -> float | None:
    """As one worker tells it; which one, the kernel chooses."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", stand.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else None


def every_worker_says(stand: Stand, state: int) -> bool:
    return all(metric(stand, 'sekisho_backend_state{backend="gpu-1"}') == state for _ in stand.gateway.each_worker())


def test_backend_goes_and_comes_back_for_every_worker(stand: Stand) -> None:
    stand.until(lambda: every_worker_says(stand, 3), "the backend was not found healthy")
    assert metric(stand, 'sekisho_backend_in_flight{backend="gpu-1"}') == 0
    ejections = 'sekisho_backend_ejections_total{backend="gpu-1",reason="unhealthy"}'
    before = metric(stand, ejections) or 0
    stand.vllm.knobs(health_status=503)
    stand.until(lambda: every_worker_says(stand, 0), "the backend was not ejected")
    assert (metric(stand, ejections) or 0) > before
    stand.vllm.knobs(health_status=200)
    stand.until(lambda: every_worker_says(stand, 3), "the backend was not readmitted")
    assert stand.post().status_code == 200
    assert len(stand.vllm.requests()) == 1
