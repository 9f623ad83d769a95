"""How the metrics are counted and shown."""

import errno
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from gateway import metrics
from gateway.metrics import Backends, Durations


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


def test_many_durations_at_once_are_what_they_are_one_by_one() -> None:
    amounts = [0.0, 0.125, 0.140625, 0.25, 0.375, 7.0, 0.125]
    pages = []
    for together in (True, False):
        registry = CollectorRegistry()
        histogram = Durations("seconds", "Of a test", ["alias"], buckets=(0.125, 0.25, 1), registry=registry)
        child = histogram.labels("chat")
        if together:
            child.observe_all(amounts[:4])
            child.observe_all(amounts[4:])
        else:
            for amount in amounts:
                child.observe(amount)
        pages.append([line for line in generate_latest(registry).decode().splitlines() if "_created" not in line])
    assert pages[0] == pages[1]
    assert 'seconds_count{alias="chat"} 7.0' in pages[0]


def test_what_was_counted_is_shown_once() -> None:
    before = shown('sekisho_tokens_total{alias="of-this-test",kind="prompt",tenant="acme"}')
    metrics.counts[metrics.TOKENS, "acme", "of-this-test", "prompt"] += 20
    metrics.counts[metrics.TOKENS, "acme", "of-this-test", "prompt"] += 3
    metrics.observed[metrics.DURATION, "of-this-test"].append(0.2)
    for _ in range(2):
        assert shown('sekisho_tokens_total{alias="of-this-test",kind="prompt",tenant="acme"}') == before + 23
        assert shown('sekisho_call_seconds_count{alias="of-this-test"}') == 1


def test_write_that_fails_loses_no_more_than_what_it_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics.write()
    aliases = ("first", "second", "third")
    before = shown_of(aliases)
    for alias in aliases:
        metrics.counts[metrics.TOKENS, "acme", alias, "prompt"] += 5
        metrics.observed[metrics.DURATION, alias].append(0.2)
    for alias, name in (("second", "inc"), ("first", "observe_all")):
        metric = metrics.TOKENS.labels("acme", alias, "prompt") if name == "inc" else metrics.DURATION.labels(alias)
        with monkeypatch.context() as patched:
            patched.setattr(metric, name, full_disk)
            with pytest.raises(OSError, match="No space"):
                metrics.write()
    after = shown_of(aliases)
    assert [now - then for now, then in zip(after, before, strict=True)] == [5, 0, 5, 0, 1, 1]


def full_disk(_amount: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def shown_of(aliases: tuple[str, ...]) -> list[float]:
    tokens = [shown(f'sekisho_tokens_total{{alias="{alias}",kind="prompt",tenant="acme"}}') for alias in aliases]
    return tokens + [shown(f'sekisho_call_seconds_count{{alias="{alias}"}}') for alias in aliases]


def shown(series: str) -> float:
    lines = metrics.render().decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(series)), 0.0)
