"""From the journal to the ledger: everything, once, whoever is killed and whatever is out."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from django.db import OperationalError, connections
from django.utils import timezone

from accounts.models import Tenant
from portal import embedded
from tests.usage.made import event, put_on_journal
from usage import ledger, posting
from usage.lag import dead_key, journal_lag
from usage.models import DayRollup, UsageRecord
from usage.partitions import PARTITIONS, journal_key, partition
from usage.posting import GROUP, drain_journal, post_journal

NOW = timezone.now().replace(microsecond=0) - timedelta(minutes=5)


@pytest.fixture(autouse=True)
def _store(valkey: redis.Redis) -> None:
    """Emptied before and after each test."""


def on_journal(client: redis.Redis) -> int:
    return journal_lag(client, now_s=NOW.timestamp()).entries


def pending(client: redis.Redis, stream: str) -> int:
    return int(client.xpending(stream, GROUP)["pending"])  # type: ignore[index]


def put_raw(client: redis.Redis, *lines: bytes, stream: str = journal_key(0)) -> None:
    for line in lines:
        client.xadd(stream, {"event": line})


@pytest.mark.django_db
def test_what_is_journaled_is_posted_and_taken_off(valkey: redis.Redis, acme: Tenant, globex: Tenant) -> None:
    put_on_journal(valkey, *(event(tenant, NOW) for tenant in (acme, globex) for _ in range(30)))
    assert drain_journal() == 60
    assert UsageRecord.objects.count() == 60
    assert on_journal(valkey) == 0
    assert pending(valkey, journal_key(partition(str(acme.pk)))) == 0
    assert drain_journal() == 0


@pytest.mark.django_db
def test_limits_as_a_call_saw_them_are_posted_in_whichever_form_they_are_written(valkey: redis.Redis, acme: Tenant) -> None:
    """An older release wrote a list of limits, this one their columns."""
    same = {"subject": "key", "name": "k", "limit": "tokens_per_day", "max": 90, "mode": "enforce"}
    limits = [same | {"used": 7, "reserved": 3}]
    put_on_journal(valkey, event(acme, NOW, limits=limits))
    written = event(acme, NOW).to_dict() | {"limit_columns": {"of": [same], "used": [7], "reserved": [3]}}
    put_raw(valkey, orjson.dumps(written), stream=journal_key(partition(str(acme.pk))))
    assert drain_journal() == 2
    assert list(UsageRecord.objects.values_list("limits", flat=True)) == [limits, limits]


@pytest.mark.django_db(transaction=True)
def test_draining_ends_though_calls_go_on(valkey: redis.Redis, acme: Tenant) -> None:
    put_on_journal(valkey, *(event(acme, NOW) for _ in range(50)))
    is_drained = threading.Event()

    def call_on() -> int:
        for count in range(1, 20_001):
            put_on_journal(valkey, event(acme, NOW))
            if is_drained.is_set():
                return count
        return 0

    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(call_on)
        posted = drain_journal()
        is_drained.set()
        assert calling.result() > 0, "it waited for the last call"
    assert posted >= 50


@pytest.mark.django_db
def test_one_partition_may_be_drained_alone(valkey: redis.Redis, acme: Tenant) -> None:
    number = partition(str(acme.pk))
    put_on_journal(valkey, event(acme, NOW))
    assert drain_journal([(number + 1) % PARTITIONS]) == 0
    assert drain_journal([number]) == 1


@pytest.mark.django_db
def test_more_than_a_batch_is_posted(valkey: redis.Redis, acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "BATCH_EVENTS", 7)
    put_on_journal(valkey, *(event(acme, NOW) for _ in range(30)))
    assert post_journal(max_s=60) == 30


@pytest.mark.django_db
def test_a_busy_tenant_keeps_no_other_waiting(valkey: redis.Redis, acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one partition alone fills every batch, the next batch still begins with the next partition."""
    monkeypatch.setattr(posting, "BATCH_EVENTS", 10)
    order: list[int] = []
    original = ledger.post

    def noted(events: Any) -> int:
        batch = list(events)
        order.extend(partition(e.tenant_id) for e in batch)
        return original(batch)

    monkeypatch.setattr(ledger, "post", noted)
    others = [Tenant(slug=f"t{n}", name="t") for n in range(40)]
    quiet = next(tenant for tenant in others if partition(str(tenant.pk)) != partition(str(acme.pk)))
    busy, late = sorted((acme, quiet), key=lambda tenant: partition(str(tenant.pk)))
    put_on_journal(valkey, *(event(busy, NOW) for _ in range(400)), event(late, NOW))
    drain_journal()
    assert order.index(partition(str(late.pk))) < 10 * PARTITIONS


@pytest.mark.django_db
def test_delivery_that_was_never_acknowledged_is_posted_first(valkey: redis.Redis, acme: Tenant) -> None:
    """As a reader killed before its commit leaves it."""
    stream = journal_key(partition(str(acme.pk)))
    put_on_journal(valkey, *(event(acme, NOW) for _ in range(3)))
    valkey.xgroup_create(stream, GROUP, id="0")
    valkey.xreadgroup(GROUP, GROUP, {stream: ">"}, count=2)
    assert pending(valkey, stream) == 2
    assert drain_journal() == 3
    assert (on_journal(valkey), pending(valkey, stream)) == (0, 0)


@pytest.mark.django_db
def test_delivery_that_was_committed_and_not_acknowledged_is_not_posted_again(
    valkey: redis.Redis, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a reader killed right after its commit leaves it."""
    put_on_journal(valkey, *(event(acme, NOW) for _ in range(3)))

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(posting, "_take_off", killed)
        with pytest.raises(KeyboardInterrupt):
            drain_journal()
    assert UsageRecord.objects.count() == on_journal(valkey) == 3
    assert drain_journal() == 0
    assert (UsageRecord.objects.count(), DayRollup.objects.get().requests, on_journal(valkey)) == (3, 3, 0)


@pytest.mark.django_db
def test_what_cannot_be_read_holds_up_nobody(valkey: redis.Redis, acme: Tenant, caplog: pytest.LogCaptureFixture) -> None:
    whole = orjson.dumps(event(acme, NOW).to_dict())
    unreadable = [
        b"", b"{", b"[]", b"null", b'"secret words"', b"{}", b'{"request_id": 1}', b"\xff\xfe",
        *(
            orjson.dumps(event(acme, NOW).to_dict() | changed)
            for changed in (
                {"request_id": "no uuid"}, {"request_id": None}, {"tenant_id": "acme"}, {"alias": None}, {"alias": 7},
                {"created_s": "noon"}, {"created_s": 1e30}, {"created_s": -1e12}, {"created_s": 4_000_000_000},
                {"prompt_tokens": "many"}, {"prompt_tokens": 2**63}, {"prompt_tokens": None}, {"status": 70_000},
                {"metadata": "words"}, {"limits": 1.5}, {"duration_ms": [1]}, {"part": 99_999},
            )
        ),
    ]  # fmt: skip
    put_raw(valkey, *unreadable[:12], whole, *unreadable[12:])
    valkey.xadd(journal_key(0), {"other": "field"})
    posted = drain_journal()
    dead = int(valkey.xlen(dead_key(journal_key(0))))
    assert posted + dead == len(unreadable) + 2
    assert posted == 3  # the whole one, and two whose metadata and limits are JSON after all
    assert whole not in {fields[b"event"] for _, fields in valkey.xrange(dead_key(journal_key(0)))}  # type: ignore[union-attr]
    assert UsageRecord.objects.count() == posted
    lag = journal_lag(valkey, now_s=NOW.timestamp())
    assert (lag.entries, lag.dead) == (0, dead)
    assert len(caplog.records) == dead
    assert "secret words" not in caplog.text


@pytest.mark.django_db
def test_postgresql_out_leaves_everything_on_the_journal(
    valkey: redis.Redis, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on_journal(valkey, *(event(acme, NOW) for _ in range(5)))

    def out(_: Any) -> int:
        raise OperationalError("the server is gone")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "post", out)
        for _ in range(3):
            with pytest.raises(OperationalError):
                post_journal(max_s=60)
    assert on_journal(valkey) == 5
    assert post_journal(max_s=60) == 5


@pytest.mark.django_db
def test_redis_that_was_emptied_is_read_again(valkey: redis.Redis, acme: Tenant) -> None:
    put_on_journal(valkey, event(acme, NOW))
    assert drain_journal() == 1
    valkey.flushdb()
    assert drain_journal() == 0
    put_on_journal(valkey, event(acme, NOW))
    assert drain_journal() == 1


@pytest.mark.django_db
def test_one_reader_at_a_time_and_a_killed_one_is_not_waited_for_long(valkey: redis.Redis, acme: Tenant) -> None:
    put_on_journal(valkey, event(acme, NOW))
    valkey.set(posting.LOCK, "another", px=int(posting.LOCK_S * 1000))
    assert post_journal(max_s=60) == 0
    assert valkey.pttl(posting.LOCK) <= posting.LOCK_S * 1000
    valkey.delete(posting.LOCK)
    assert post_journal(max_s=60) == 1
    assert not valkey.exists(posting.LOCK)


@pytest.mark.django_db
def test_days_follow_a_changed_zone_with_the_next_turn(valkey: redis.Redis, acme: Tenant) -> None:
    ledger.post([event(acme, datetime(2026, 11, 20, 16, tzinfo=UTC))])
    Tenant.objects.filter(pk=acme.pk).update(time_zone="UTC")
    post_journal(max_s=60)
    assert DayRollup.objects.get().starts_at == datetime(2026, 11, 20, tzinfo=UTC)


@pytest.mark.django_db(transaction=True)
def test_readers_without_the_lock_post_each_event_once(
    valkey: redis.Redis, acme: Tenant, globex: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posting, "BATCH_EVENTS", 50)
    put_on_journal(valkey, *(event(tenant, NOW) for tenant in (acme, globex) for _ in range(500)))
    start = threading.Barrier(4)

    def read(_: int) -> int:
        start.wait()
        posted = drain_journal()
        assert on_journal_of_before() == 0
        connections.close_all()
        return posted

    def on_journal_of_before() -> int:
        """Whoever drained finds all of it in the ledger, also what another was posting meanwhile."""
        return 1000 - UsageRecord.objects.count()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(read, range(4))) == 1000
    assert sum(day.requests for day in DayRollup.objects.all()) == 1000
    assert on_journal(valkey) == 0


@pytest.fixture
def absent_valkey(tmp_path: Path, settings: Any) -> None:
    settings.REDIS_URL = embedded.embedded_redis_url(tmp_path / "home")


@pytest.mark.django_db
@pytest.mark.usefixtures("absent_valkey")
def test_redis_out_raises_at_once() -> None:
    with pytest.raises(redis.RedisError):
        drain_journal()
