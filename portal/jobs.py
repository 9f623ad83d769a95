"""What the schedule's jobs did last: told to Redis by the worker and by beat, read by the page of the platform's health.

sekisho:jobs    hash: <task>:ran -> JSON of a Run, <task>:sent -> when beat last sent it, by Unix seconds
"""

import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Final

import orjson
import redis
from celery.signals import after_task_publish, task_postrun, task_prerun

from usage.store import RedisError, connect

KEY: Final = "sekisho:jobs"
KEPT_S: Final = 7 * 86_400
_BEGUN: Final = "sekisho_begun_s"


@dataclass(frozen=True, slots=True)
class Run:
    """The last one of a job, ended at at_s, Unix seconds. state: celery's word, SUCCESS where it was well."""

    at_s: float
    took_s: float
    state: str


def connect_signals() -> None:
    task_prerun.connect(_note_begun, weak=False, dispatch_uid="jobs-begun")
    task_postrun.connect(_note_ran, weak=False, dispatch_uid="jobs-ran")
    after_task_publish.connect(_note_sent, weak=False, dispatch_uid="jobs-sent")


def last_runs(client: redis.Redis) -> tuple[dict[str, Run], dict[str, float]]:
    """The last run of each task, and when each was last sent. Raises RedisError."""
    told: Any = client.hgetall(KEY)
    runs, sent = {}, {}
    for field, body in told.items():
        task, _, what = field.decode().rpartition(":")
        with suppress(ValueError, TypeError):
            if what == "ran":
                runs[task] = Run(**orjson.loads(body))
            else:
                sent[task] = float(body)
    return runs, sent


def _note_begun(task: Any, **_: Any) -> None:
    setattr(task.request, _BEGUN, time.monotonic())


def _note_ran(task: Any, state: str | None = None, **_: Any) -> None:
    took_s = time.monotonic() - getattr(task.request, _BEGUN, time.monotonic())
    _note(f"{task.name}:ran", orjson.dumps(asdict(Run(time.time(), took_s, state or ""))))


def _note_sent(sender: str | None = None, **_: Any) -> None:
    if sender:
        _note(f"{sender}:sent", str(time.time()).encode())


def _note(field: str, body: bytes) -> None:
    """A store that is out costs the page a line, and no job its run."""
    with suppress(RedisError):
        pipe = _client(os.getpid()).pipeline(transaction=False)
        pipe.hset(KEY, field, body)
        pipe.expire(KEY, KEPT_S)
        pipe.execute()


@cache
def _client(_process: int) -> redis.Redis:
    """One a process: beat is forked from the worker."""
    from django.conf import settings

    return connect(settings.REDIS_URL, max_connections=8, retries=0)
