"""A log that nobody can write, in a real gateway: no call depends on it."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from tests import processes
from tests.e2e.conftest import Stand, await_configuration

Served = Callable[[Path], AbstractContextManager[processes.Gateway]]


@contextmanager
def _on_a_full_disk(folder: Path) -> Iterator[processes.Gateway]:
    (folder / "gateway.log").symlink_to("/dev/full")
    with processes.gateway(folder) as running:
        yield running


@contextmanager
def _on_a_pipe(folder: Path, *, has_reader: bool) -> Iterator[processes.Gateway]:
    """One that takes nothing: its reader is gone, or is there and never reads."""
    log = folder / "gateway.log"
    os.mkfifo(log)
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    with processes.gateway(folder) as running:
        if has_reader:
            _fill(log)
        else:
            os.close(reader)
        yield running
    if has_reader:
        os.close(reader)


def _fill(pipe: Path) -> None:
    descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while os.write(descriptor, bytes(4096)):
            pass
    os.close(descriptor)


@pytest.mark.parametrize(
    "gateway",
    [_on_a_full_disk, partial(_on_a_pipe, has_reader=False), partial(_on_a_pipe, has_reader=True)],
    ids=["full disk", "no reader", "a reader that stands still"],
)
def test_a_log_that_takes_no_line_costs_no_call(stand: Stand, tmp_path: Path, gateway: Served) -> None:
    with gateway(tmp_path) as stand.gateway:
        await_configuration(stand)
        answers = [stand.post({"stream": stream}) for stream in (False, True) * 3]
        refused = stand.post({"model": "unknown"})
        assert [answer.status_code for answer in answers] == [200] * 6
        assert refused.status_code == 404
        assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers[1::2])
        for answer in answers:
            assert stand.event(answer.headers["x-request-id"]).outcome == "completed"
        counted = 'sekisho_calls_total{alias="general",outcome="completed",status="200",tenant="acme"} 6.0'
        stand.until(lambda: counted in stand.get("/metrics").text, "the calls are not counted")
