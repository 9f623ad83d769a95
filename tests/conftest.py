"""The stores all tests run on, and the personas: acme, acme_admin, acme_viewer, globex (the stranger), operator."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.conf import settings

from portal import embedded

_stores: list[embedded.Store] = []


def pytest_configure(config: pytest.Config) -> None:
    """Start PostgreSQL and Valkey once a run, in the process that starts the others."""
    if hasattr(config, "workerinput") or config.option.collectonly or config.option.help:
        return
    home = Path(os.environ["SEKISHO_HOME"])
    if not os.environ.get("DATABASE_URL"):
        _stores.append(embedded.start_postgres(home, durable=False))
    if not os.environ.get("REDIS_URL"):
        _stores.append(embedded.start_valkey(home, durable=False))


def pytest_unconfigure(config: pytest.Config) -> None:
    if not _stores:
        return
    while _stores:
        _stores.pop().stop()
    home = Path(os.environ["SEKISHO_HOME"])
    shutil.rmtree((home / "postgres").resolve(), ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def valkey() -> Iterator[redis.Redis]:
    """This worker's own Valkey database, emptied before and after."""
    client = redis.Redis.from_url(settings.REDIS_URL)
    client.flushdb()
    yield client
    client.flushdb()
    client.close()
