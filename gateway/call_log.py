"""The log of the gateway: one JSON line a call, on standard output. No prompt, no answer, no key text, ever."""

import logging
import os
import stat
import sys
import time
import traceback
from collections.abc import MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from select import PIPE_BUF
from typing import Any, Final, cast

import orjson
import structlog

PENDING_MOST_BYTES: Final = 1024 * 1024  # some 2,000 lines: of calls that end together, more than a pipe holds
WRITE_S: Final = 0.2


class _Output:
    """Standard output, which no call depends on, nor waits for. Lines that it does not take, as its disk is full, or whoever
    reads them is gone or stands still, are pending; those that are too many are counted, and their number is told later."""

    def __init__(self) -> None:
        self._lost = 0
        self._pending = bytearray()

    def write(self, line: bytes) -> None:
        """Whole lines."""
        if self._lost:
            line = as_json(None, "error", {"event": "log_lines_lost", "count": self._lost}) + b"\n" + line
        if len(self._pending) + len(line) > PENDING_MOST_BYTES:
            self.flush()
        if len(self._pending) + len(line) > PENDING_MOST_BYTES:
            self._lost += 1
            return
        self._lost = 0
        self._pending += line
        self.flush()

    def flush(self) -> None:
        """As much as it takes. Of what goes at once a pipe takes all or nothing: workers that share it tear no line in two."""
        output: Any = sys.stdout.buffer
        write = getattr(output, "raw", output).write
        with suppress(OSError):
            while self._pending:
                part = self._pending if len(self._pending) <= PIPE_BUF else self._first_lines()
                taken = write(part) or 0  # None: it would have to wait
                whole = taken == len(part)
                del self._pending[:taken]
                if not whole:
                    return

    def _first_lines(self) -> bytearray:
        """As many as a pipe takes whole; a line that is longer than that by itself."""
        ends = self._pending.rfind(b"\n", 0, PIPE_BUF) + 1
        return self._pending[: ends or self._pending.index(b"\n") + 1]

    def never_wait(self) -> None:
        """A pipe or a socket whose reader stands still would hold up every call. From now on nobody who writes to it waits."""
        with suppress(OSError):
            mode = os.fstat(sys.stdout.fileno()).st_mode
            if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
                os.set_blocking(sys.stdout.fileno(), False)


_output: Final = _Output()


def note(line: dict[str, Any]) -> None:
    """Write down a call that has ended. Past structlog's processors, which have nothing to do here: 2 % of a call's CPU."""
    if sys.stdout is None:  # the process was started with its standard output closed
        return
    line["event"] = "call"
    _output.write(as_json(None, "info", line) + b"\n")


def flush() -> None:
    """What is pending, as much of it as is taken."""
    _output.flush()


def keep_writing() -> None:
    """The body of a greenlet."""
    while True:
        time.sleep(WRITE_S)
        flush()


def configure() -> None:
    """Set the logs up for this process; call once, before the first line. Without a standard output there are none."""
    structlog.configure(
        processors=[
            where_it_was_raised,
            as_json,
        ],
        logger_factory=structlog.ReturnLoggerFactory()
        if sys.stdout is None
        else structlog.BytesLoggerFactory(cast("Any", _output)),
        cache_logger_on_first_use=True,
    )
    if sys.stdout is not None:
        _output.never_wait()
    # Django's own line about each refusal holds the path, which is the client's text, and of a fault all of the exception.
    logging.getLogger("django.request").disabled = True


def where_it_was_raised(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace exc_info by file, line and function of its frames.

    An exception's own text and the values of variables stay out: they may quote a prompt or a secret.
    """
    error = event.pop("exc_info", None)
    if isinstance(error, BaseException):
        frames = traceback.extract_tb(error.__traceback__)
        event["frames"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return event


def as_json(_logger: Any, method: str, event: MutableMapping[str, Any]) -> bytes:
    """With its level and time: structlog's three steps in one, as each call writes a line."""
    second, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
    return orjson.dumps({**event, "level": method, "timestamp": f"{_second(second)}.{microseconds:06}Z"}, default=repr)


@lru_cache(maxsize=1)
def _second(unix_s: int) -> str:
    """Kept while it lasts: datetime.now() and its text took each line 2.6 us, which with this are 0.8 (2026-11)."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
