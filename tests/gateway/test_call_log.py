"""The lines that the gateway writes: their time, and where there is nowhere to write them."""

import errno
import io
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from gateway import call_log
from gateway.call_log import as_json, flush, note

NOW_NS = 1_795_315_199_999_999_999  # a microsecond before a minute begins, and its last nanosecond

USE = """
import sys
assert sys.stdout is None
import structlog
from gateway import call_log
call_log.note({"request_id": "x"})
call_log.configure()
call_log.note({"request_id": "x"})
structlog.get_logger("gateway").error("something", reason="y")
sys.stderr.write("done")
"""

WORK = """
import os, sys
from gateway.call_log import configure, flush, note
configure()
for number in range(2000):
    note({"worker": sys.argv[1], "number": number, "text": "x" * (number % 700)})
os.write(2, b"the pipe is full, the rest is pending")
os.close(2)
sys.stdin.read()
os.set_blocking(1, True)
flush()
"""


@pytest.mark.parametrize(
    "now_ns",
    [NOW_NS, NOW_NS + 1, NOW_NS + 1000, NOW_NS + 1_000_000_000, NOW_NS - 86_400_000_000_000, 1_795_315_200_000_007_123],
)
def test_time_of_a_line_is_utc_with_all_six_digits(now_ns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now_ns // 1000)
    assert time_of_a_line() == moment.isoformat(timespec="microseconds")[:-6] + "Z"


def test_time_of_a_line_is_now_also_from_second_to_second() -> None:
    before = datetime.now(UTC)
    times = [datetime.fromisoformat(time_of_a_line())]
    wait_until(lambda: int(time.time()) > before.timestamp())
    times += [datetime.fromisoformat(time_of_a_line()) for _ in range(1000)]
    told = [before, *times, datetime.now(UTC)]
    assert told == sorted(told)
    assert times[-1].second != before.second


def test_process_without_a_standard_output_writes_no_lines_and_lives() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, USE], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "done")


class Output(io.RawIOBase):
    """Takes so many bytes more, and then no more: as a disk does, or a pipe."""

    def __init__(self, *, waits: bool) -> None:
        self.room = 0
        self.taken = b""
        self._waits = waits

    def write(self, data: Any) -> int | None:
        part = bytes(data)[: self.room]
        if not part:
            if self._waits:
                return None
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(part)
        self.taken += part
        return len(part)


@pytest.mark.parametrize("waits", [False, True], ids=["full disk", "pipe that nobody reads"])
@pytest.mark.parametrize("length", [0, 1000, 10_000])
def test_lines_that_are_not_taken_are_counted_and_told_of_once_some_are(
    length: int, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, room = Output(waits=waits), random.Random(length)
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=output))
    monkeypatch.setattr(call_log, "PENDING_MOST_BYTES", 4 * (200 + length))
    for number in range(1000):
        output.room = 1_000_000 if number % 100 < 50 else room.randint(0, (100 + length) // 2)
        note({"number": number, "text": "x" * length})
    output.room = 1_000_000
    note({"number": 1000})
    lines = [orjson.loads(line) for line in output.taken.splitlines()]
    numbers = [line["number"] for line in lines if line["event"] == "call"]
    lost = sum(line["count"] for line in lines if line["event"] == "log_lines_lost")
    assert numbers == sorted(set(numbers))
    assert {number for number in range(1000) if 0 < number % 100 < 50} <= set(numbers)
    assert len(numbers) + lost == 1001
    assert lost > 100


def test_more_lines_at_once_than_a_pipe_holds_are_all_taken_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of 500 calls that end together."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with open(reader, "rb") as lines, open(writer, "wb") as output:  # noqa: PTH123 - descriptors, no paths
        monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=output))
        for number in range(1000):
            note({"number": number, "text": "x" * 500})
        numbers = []
        while len(numbers) < 1000:
            flush()
            numbers.append(orjson.loads(lines.readline())["number"])
    assert numbers == [*range(1000)]


def test_workers_that_share_a_pipe_tear_no_line_of_each_other() -> None:
    reader, writer = os.pipe()
    command = [sys.executable, "-c", WORK]
    pipe = subprocess.PIPE
    workers = [subprocess.Popen([*command, name], stdin=pipe, stdout=writer, stderr=pipe) for name in ("a", "b")]
    os.close(writer)
    for worker in workers:
        assert worker.stderr
        assert worker.stderr.read() == b"the pipe is full, the rest is pending"
    for worker in workers:
        assert worker.stdin
        worker.stdin.close()
    with open(reader, "rb") as output:  # noqa: PTH123 - a descriptor, no path
        lines = [orjson.loads(line) for line in output]
    assert [worker.wait() for worker in workers] == [0, 0]
    for name in ("a", "b"):
        assert [line["number"] for line in lines if line["worker"] == name] == [*range(2000)]


def time_of_a_line() -> str:
    return str(orjson.loads(as_json(None, "info", {"event": "call"}))["timestamp"])


def wait_until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        time.sleep(0.01)
