"""What the portal has put into the worker's queue, and the worker's part of it, in this process."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import redis
from django.conf import settings

from portal.celery import app

QUEUE: Final = "sekisho:celery:celery"


def queued() -> list[tuple[str, list[Any]]]:
    """Task and arguments, oldest first. They are taken out."""
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        bodies: Any = client.lrange(QUEUE, 0, -1)
        client.delete(QUEUE)
    found = [json.loads(body) for body in reversed(bodies)]
    return [(message["headers"]["task"], json.loads(base64.b64decode(message["body"]))[0]) for message in found]


@contextmanager
def broker_out() -> Iterator[None]:
    """Where the queue should be nobody listens."""
    held = app.conf.broker_url
    _connect_to("redis://127.0.0.1:1/0")
    try:
        yield
    finally:
        _connect_to(held)


def _connect_to(url: str) -> None:
    app.conf.broker_url = url
    app._after_fork()


def deliver() -> None:
    """Do what the worker would."""
    app.loader.import_default_modules()
    for task, arguments in queued():
        app.tasks[task](*arguments)
