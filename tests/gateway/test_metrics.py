"""How the metrics are shown."""

from prometheus_client import CollectorRegistry, generate_latest

from gateway.metrics import Backends


def test_backends_are_shown_as_they_are_now() -> None:
    totals = [("gpu-1", "healthy", 3), ("gpu-2", "ejected", 0)]
    registry = CollectorRegistry()
    registry.register(Backends(lambda: totals))
    page = generate_latest(registry).decode()
    assert 'sekisho_backend_state{backend="gpu-1"} 3.0' in page
    assert 'sekisho_backend_state{backend="gpu-2"} 0.0' in page
    assert 'sekisho_backend_in_flight{backend="gpu-1"} 3.0' in page
    totals.pop()
    assert "gpu-2" not in generate_latest(registry).decode()
