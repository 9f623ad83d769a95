"""When keys were last used: marked once a minute, taken to the table in one query, never back in time."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import redis
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import ApiKey
from gateway import last_used
from gateway.config.documents import CHANGES
from gateway.last_used import MARKS, note
from gateway.tasks import record_last_used
from usage.store import connect

NOON_S = 1_795_176_000.0  # the first second of a minute


@pytest.fixture(autouse=True)
def fresh_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_used, "_minute", last_used._Minute())


@pytest.fixture
def commands(valkey: redis.Redis) -> Iterator[redis.client.Pipeline]:
    """A pipeline, whose length counts what was written."""
    with valkey.pipeline() as pipe:
        yield pipe


def test_mark_is_made_once_a_minute_a_key(commands: redis.client.Pipeline, valkey: redis.Redis) -> None:
    for second in range(60):
        note(commands, "a", NOON_S + second)
        note(commands, "b", NOON_S + second)
    assert len(commands) == 2
    note(commands, "a", NOON_S + 60)
    assert len(commands) == 3
    commands.execute()
    assert valkey.hgetall(MARKS) == {b"a": b"1795176060", b"b": b"1795176000"}


def test_redis_that_is_out_fails_no_call() -> None:
    note(connect("unix:///nowhere/valkey.sock"), "a", NOON_S)


@pytest.mark.django_db
def test_marks_reach_the_table_and_only_forward(valkey: redis.Redis, acme_key: tuple[ApiKey, str]) -> None:
    key, _ = acme_key
    note(valkey, key.lookup_id, NOON_S + 120)
    note(valkey, "of a key deleted since", NOON_S)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        record_last_used()
    assert len([q for q in queries if "UPDATE" in q["sql"]]) == 1
    key.refresh_from_db()
    assert key.last_used_at == datetime.fromtimestamp(NOON_S + 120, UTC)
    assert not valkey.exists(MARKS)
    note(valkey, key.lookup_id, NOON_S)
    record_last_used()
    key.refresh_from_db()
    assert key.last_used_at == datetime.fromtimestamp(NOON_S + 120, UTC)
    record_last_used()  # nothing to do


@pytest.mark.django_db
def test_marks_of_an_interrupted_turn_are_not_lost(
    valkey: redis.Redis, acme_key: tuple[ApiKey, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, _ = acme_key
    note(valkey, key.lookup_id, NOON_S)
    valkey.rename(MARKS, f"{MARKS}:taken")  # and then the worker was killed
    note(valkey, "other", NOON_S)
    record_last_used()
    key.refresh_from_db()
    assert key.last_used_at == datetime.fromtimestamp(NOON_S, UTC)
    assert valkey.hkeys(MARKS) == [b"other"]


@pytest.mark.django_db(transaction=True)
def test_recording_publishes_nothing(valkey: redis.Redis, acme_key: tuple[ApiKey, str]) -> None:
    key, _ = acme_key
    published = valkey.xlen(CHANGES)
    note(valkey, key.lookup_id, NOON_S)
    record_last_used()
    assert valkey.xlen(CHANGES) == published > 0
    assert settings.REDIS_URL
