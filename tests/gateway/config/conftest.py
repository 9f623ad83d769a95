"""A small configuration, and directories that read it as a worker does."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from django.conf import settings

from accounts.keys import Pepper, peppers
from accounts.models import Tenant
from gateway.config import encryption, publish
from gateway.config.directory import Directory
from gateway.config.watch import Watch
from gateway.models import Backend, Deployment, ModelAlias, PoolMember
from usage.store import connect

WAIT_S = 20  # an upper guard; what is waited for takes milliseconds


def eventually(check: Callable[[], Any]) -> Any:
    """The first true answer of `check`."""
    deadline = time.monotonic() + WAIT_S
    while not (answer := check()):
        assert time.monotonic() < deadline, "this did not come about in time"
        time.sleep(0.005)
    return answer


@pytest.fixture
def store(transactional_db: None, valkey: redis.Redis) -> redis.Redis:
    """Redis, holding the whole of an empty configuration."""
    publish.publish_all()
    return valkey


@pytest.fixture
def ring() -> tuple[Pepper, ...]:
    return peppers(settings.KEY_PEPPERS)


@pytest.fixture
def tiny(transactional_db: None) -> Deployment:
    """A deployment on one backend that asks for a credential."""
    backend = Backend(name="gpu-1", url="http://127.0.0.1:9001")
    backend.credential = "backend-credential"
    backend.save()
    deployment = Deployment.objects.create(name="tiny", served_model="tiny-model", max_model_len=4096)
    PoolMember.objects.create(deployment=deployment, backend=backend, weight=3)
    return deployment


@pytest.fixture
def general(acme: Tenant, tiny: Deployment) -> ModelAlias:
    return ModelAlias.objects.create(tenant=acme, name="general", deployment=tiny, max_output_tokens=512)


def make_directory(url: str | None = None, *, key_entries: int = 1000) -> Directory:
    return Directory(connect(url or settings.REDIS_URL), decrypt=encryption.decrypt, key_entries=key_entries)


@pytest.fixture
def directory(store: redis.Redis) -> Directory:
    """One that nothing watches for."""
    return make_directory()


@pytest.fixture
def watched() -> Iterator[Callable[..., Directory]]:
    """Makes directories, each kept up to date by a Watch in a thread of its own."""
    running: list[tuple[Watch, threading.Thread]] = []

    def start(url: str | None = None) -> Directory:
        directory = make_directory(url)
        watch = Watch(directory, url or settings.REDIS_URL)
        thread = threading.Thread(target=watch.run)
        thread.start()
        running.append((watch, thread))
        eventually(lambda: watch.synced_at)
        return directory

    yield start
    for watch, _ in running:
        watch.stop()
    for _, thread in running:
        thread.join(WAIT_S)
        assert not thread.is_alive()
