"""The watch keeps a directory right whatever happens to Redis."""

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings

from accounts.keys import Pepper, mint
from gateway.config import watch as watch_module
from gateway.config.directory import Directory
from gateway.config.documents import CHANGES, CHANGES_KEPT, MARKER
from gateway.config.watch import Watch
from portal import embedded
from tests.gateway.config.conftest import WAIT_S, eventually, make_directory
from tests.gateway.config.test_directory import put_key, put_platform, put_tenant

Watched = Callable[..., Directory]


@pytest.fixture
def filled(valkey: redis.Redis) -> redis.Redis:
    fill(valkey)
    return valkey


def fill(store: redis.Redis) -> None:
    put_platform(store)
    put_tenant(store, "t")
    store.set(MARKER, "m1")


def change(store: redis.Redis, kind: str, name: str = "") -> Any:
    return store.xadd(CHANGES, {"kind": kind, "id": name}, maxlen=CHANGES_KEPT, approximate=True)


def test_event_is_taken_in(filled: redis.Redis, watched: Watched) -> None:
    directory = watched()
    directory.tenant("t")
    put_tenant(filled, "t", name="new")
    change(filled, "tenant", "t")
    eventually(lambda: directory.tenant("t").name == "new")


def test_lag_of_thousands_of_events_is_made_good(
    filled: redis.Redis, watched: Watched, monkeypatch: pytest.MonkeyPatch, ring: tuple[Pepper, ...]
) -> None:
    """More than the stream keeps: the event of the tenant is cut off before the watch has read it."""
    directory = watched()
    directory.tenant("t")
    hold, held = threading.Event(), threading.Event()
    refresh = directory.refresh

    def slow_refresh(changes: set[tuple[str, str]]) -> None:
        held.set()
        assert hold.wait(WAIT_S)
        refresh(changes)

    monkeypatch.setattr(directory, "refresh", slow_refresh)
    change(filled, "key", "any")
    assert held.wait(WAIT_S)
    put_tenant(filled, "t", name="new")
    first = change(filled, "tenant", "t")
    pipe = filled.pipeline()
    for number in range(CHANGES_KEPT + 500):
        pipe.xadd(CHANGES, {"kind": "key", "id": str(number)}, maxlen=CHANGES_KEPT, approximate=False)
    pipe.execute()
    assert not filled.xrange(CHANGES, first, first)
    hold.set()
    eventually(lambda: directory.tenant("t").name == "new")


def test_stream_that_vanished_is_noticed_without_an_event(filled: redis.Redis, watched: Watched) -> None:
    change(filled, "key", "any")
    directory = watched()
    directory.tenant("t")
    filled.delete(CHANGES)
    put_tenant(filled, "t", name="new")  # as from a backup: no event tells of it
    eventually(lambda: directory.tenant("t").name == "new")


def test_new_stream_with_lower_positions_is_followed(filled: redis.Redis, watched: Watched) -> None:
    """A Redis restored from a backup may count from an earlier moment."""
    change(filled, "key", "any")
    directory = watched()
    directory.tenant("t")
    filled.delete(CHANGES)
    filled.xadd(CHANGES, {"kind": "key", "id": "any"}, id="5-1")
    put_tenant(filled, "t", name="new")
    eventually(lambda: directory.tenant("t").name == "new")


def test_not_synced_while_the_configuration_is_not_whole(valkey: redis.Redis) -> None:
    watch = Watch(make_directory(), settings.REDIS_URL)
    thread = threading.Thread(target=watch.run)
    thread.start()
    try:
        put_platform(valkey)
        change(valkey, "platform")
        eventually(lambda: any(client["cmd"] == "xread" for client in valkey.client_list()))
        assert watch.synced_at is None
        valkey.set(MARKER, "m1")
        change(valkey, "all")
        synced_at = eventually(lambda: watch.synced_at)
        eventually(lambda: watch.synced_at > synced_at)  # also when nothing happens
    finally:
        watch.stop()
        thread.join(WAIT_S)


def test_fault_of_ours_does_not_end_the_watch(
    filled: redis.Redis, watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    directory = watched()
    directory.tenant("t")
    with monkeypatch.context() as broken:
        broken.setattr(directory, "refresh", lambda changes: 1 / 0)
        put_tenant(filled, "t", name="new")
        change(filled, "tenant", "t")
        eventually(lambda: "ZeroDivisionError" in caplog.text)
    eventually(lambda: directory.tenant("t").name == "new")


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Callable[[], embedded.Store]]:
    started: list[embedded.Store] = []

    def start() -> embedded.Store:
        started.append(embedded.start_valkey(tmp_path / "home", durable=False))
        return started[-1]

    yield start
    for store in started:
        store.stop()


def test_redis_that_comes_back_is_followed_again(
    own_valkey: Callable[[], embedded.Store],
    watched: Watched,
    ring: tuple[Pepper, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = own_valkey()
    text, other = mint(), mint()
    with redis.Redis.from_url(first.url) as client:
        fill(client)
        put_key(client, text, ring[0])
        directory = watched(first.url)
        assert directory.find_key(text, ring).is_active
        directory.tenant("t")
        with caplog.at_level(logging.WARNING, logger=watch_module.__name__):
            first.stop()
            eventually(lambda: "Redis is out" in caplog.text)
        assert directory.find_key(text, ring).is_active
        own_valkey()
        put_key(client, text, ring[0], is_active=False)
        put_key(client, other, ring[0])
        fill(client)
        put_tenant(client, "t", name="new")
        eventually(lambda: directory.tenant("t").name == "new")
        eventually(lambda: not directory.find_key(text, ring).is_active)
        assert directory.find_key(other, ring) is not None
        change(client, "key", "any")
        eventually(lambda: "Redis is back" in caplog.text)
        assert caplog.text.count("Redis is out") == 1
