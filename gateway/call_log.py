"""The log of the gateway: one JSON line a call, on standard output. No prompt, no answer, no key text, ever."""

import logging
import sys
import time
import traceback
from collections.abc import MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson
import structlog


def note(line: dict[str, Any]) -> None:
    """Write down a call that has ended. Past structlog's processors, which have nothing to do here: 2 % of a call's CPU."""
    if sys.stdout is None:  # the process was started with its standard output closed
        return
    line["event"] = "call"
    lines = sys.stdout.buffer
    lines.write(as_json(None, "info", line) + b"\n")
    lines.flush()


def configure() -> None:
    """Set the logs up for this process; call once, before the first line. Without a standard output there are none."""
    structlog.configure(
        processors=[
            where_it_was_raised,
            as_json,
        ],
        logger_factory=structlog.ReturnLoggerFactory()
        if sys.stdout is None
        else structlog.BytesLoggerFactory(sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )
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
