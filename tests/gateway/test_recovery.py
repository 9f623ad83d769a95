"""Counters are restored while calls go on, and not before all that was used is on the journal."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from django.utils import timezone

from accounts.models import Tenant
from gateway import recovery
from gateway.models import Limit
from tests.usage.made import event
from usage import ledger
from usage.partitions import partition
from usage.quota import Quota
from usage.settling import RESENDING

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def quota(valkey: redis.Redis, acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> Quota:
    """Of an emptied Redis, which has run for a while; acme has a limit and has used 120 tokens."""
    monkeypatch.setattr(recovery, "YOUNG_S", 0)
    Limit.objects.create(tenant=acme, name="tokens_per_day", max=1000)
    ledger.post([event(acme, timezone.now())])
    return Quota(valkey)


def used(quota: Quota, acme: Tenant) -> int:
    (state,) = quota.state(str(acme.pk), recovery.bound_limits(acme), time_zone=acme.time_zone, now_s=time.time())
    return state.used


def test_counters_are_restored_while_calls_without_limits_go_on(quota: Quota, acme: Tenant) -> None:
    stop = threading.Event()

    def call_on() -> None:
        while not stop.is_set():
            quota.settle_again([(None, event(acme, timezone.now(), outcome="refused", usage_source="none"))], now_s=time.time())

    with ThreadPoolExecutor(2) as pool:
        calling = [pool.submit(call_on) for _ in range(2)]
        try:
            assert recovery.restore_counters() == 16
        finally:
            stop.set()
        for one in calling:
            one.result()
    assert quota.is_alive(partition(str(acme.pk)))
    assert recovery.restore_counters() == 0


def test_what_a_worker_is_still_sending_is_waited_for(quota: Quota, acme: Tenant, valkey: redis.Redis) -> None:
    valkey.zadd(RESENDING, {"a worker": time.time() + 60})
    assert recovery.restore_counters() == 0
    valkey.zadd(RESENDING, {"a worker": time.time() - 1})  # it died, or has not told for a while
    assert recovery.restore_counters() == 16
    assert used(quota, acme) == 120


def test_a_server_that_has_just_started_is_given_to_workers_first(
    quota: Quota, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "YOUNG_S", 10**9)
    assert recovery.restore_counters() == 0
    monkeypatch.setattr(recovery, "YOUNG_S", 0)
    assert recovery.restore_counters() == 16
    assert used(quota, acme) == 120


def test_on_the_first_day_nothing_is_waited_for(valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "YOUNG_S", 10**9)
    assert recovery.restore_counters() == 16
