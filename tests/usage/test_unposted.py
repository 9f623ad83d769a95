"""A call that has ended is told before it is posted."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
import redis
from uuid_utils.compat import uuid7

from accounts.models import Tenant
from tests.usage.made import KEY_ID, OTHER_KEY_ID, event, put_on_journal
from usage.partitions import base, journal_key, partition
from usage.store import StoreUnavailable, connect
from usage.unposted import PAGE_ENTRIES, unposted_report

pytestmark = pytest.mark.django_db
NOW = datetime.now(UTC)


def settled(store: redis.Redis, tenant: Tenant, **changes: Any) -> str:
    """A call that is on the journal, with the mark that settling leaves. Its id."""
    call = event(tenant, NOW, **changes)
    put_on_journal(store, call)
    store.set(f"{base(partition(call.tenant_id))}s:{call.request_id}", "settled")
    return call.request_id


def test_call_is_its_tenants_and_keys_alone(valkey: redis.Redis, acme: Tenant, globex: Tenant) -> None:
    request_id = settled(valkey, acme)
    told = unposted_report(valkey, request_id, acme, key_id=KEY_ID)
    assert told is not None
    assert (told["id"], told["usage"]["total_tokens"]) == (request_id, 120)
    assert unposted_report(valkey, request_id, acme) == told
    assert unposted_report(valkey, request_id, acme, key_id=OTHER_KEY_ID) is None
    assert unposted_report(valkey, request_id, globex) is None


def test_stranger_gets_nothing_where_both_share_a_partition(valkey: redis.Redis, acme: Tenant, globex: Tenant) -> None:
    request_id = settled(valkey, acme)
    ours, theirs = (partition(str(tenant.pk)) for tenant in (acme, globex))
    if ours != theirs:
        valkey.copy(journal_key(ours), journal_key(theirs))
    valkey.set(f"{base(theirs)}s:{request_id}", "settled")
    assert unposted_report(valkey, request_id, globex) is None


def test_call_is_found_behind_thousands_of_others(valkey: redis.Redis, acme: Tenant) -> None:
    other = {"event": orjson.dumps(event(acme, NOW).to_dict())}
    with valkey.pipeline(transaction=False) as pipe:
        for _ in range(3 * PAGE_ENTRIES):
            pipe.xadd(journal_key(partition(str(acme.pk))), other)
        pipe.execute()
    assert unposted_report(valkey, settled(valkey, acme), acme) is not None


def test_lost_call_that_ended_after_all_is_told_with_all_its_tokens(valkey: redis.Redis, acme: Tenant) -> None:
    request_id = settled(valkey, acme, outcome="lost", completion_tokens=5)
    settled(valkey, acme, request_id=request_id, part=1, prompt_tokens=0, cached_tokens=0, completion_tokens=15)
    told = unposted_report(valkey, request_id, acme)
    assert told is not None
    assert (told["outcome"], told["usage"]["completion_tokens"], told["usage"]["total_tokens"]) == ("completed", 20, 120)


def test_journal_is_not_read_for_an_id_that_nobody_settled(valkey: redis.Redis, acme: Tenant) -> None:
    call = event(acme, NOW)
    put_on_journal(valkey, call)
    assert unposted_report(valkey, call.request_id, acme) is None


@pytest.mark.parametrize(
    "request_id", ["", "x", "01a1fbc7-78db-77d2-84f9-3044151bb42b", "ffffffff-ffff-ffff-ffff-ffffffffffff"]
)
def test_id_of_no_call_is_none(valkey: redis.Redis, acme: Tenant, request_id: str) -> None:
    settled(valkey, acme)
    valkey.set(f"{base(partition(str(acme.pk)))}s:ffffffff-ffff-ffff-ffff-ffffffffffff", "settled")
    assert unposted_report(valkey, request_id, acme) is None


def test_redis_that_is_out_is_said(acme: Tenant) -> None:
    with pytest.raises(StoreUnavailable):
        unposted_report(connect("redis://127.0.0.1:1/0"), str(uuid7()), acme)
