"""The fleet: its figures are the ledger's, its one part renews itself, and members never see it."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
import redis
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries

from accounts.models import Tenant, User
from gateway.models import Backend, Deployment, PoolMember
from gateway.routing import in_flight
from gateway.routing.shared_queue import SharedQueue
from gateway.routing.waiting import Pool, Ticket
from portal import fleet
from tests.portal.test_usage_pages import text_of
from tests.usage.made import event
from usage import ledger
from usage.models import UsageRecord
from usage.traffic import lately

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]


@pytest.fixture
def seen(signed_in: SignedIn, operator: User, valkey: redis.Redis) -> Client:
    return signed_in(operator)


def page_of(client: Client, path: str = "") -> str:
    answer = client.get(f"/admin/fleet/{path}")
    assert answer.status_code == 200
    return re.sub(r"\s+", " ", unescape(answer.content.decode()))


def figure_of(page: str, name: str) -> str:
    found = re.search(rf'id="card-{name}">.*?<strong>([^<]*)</strong>', page)
    assert found is not None
    return found[1]


def test_an_empty_platform_is_led_to_its_first_backend(seen: Client) -> None:
    page = page_of(seen)
    assert "No backend yet" in page
    assert "no call waits in the gateway" in page
    assert "Nothing in the last 60 minutes." in page
    assert figure_of(page, "requests") == "0"


@pytest.mark.parametrize("path", ["", "live/"])
def test_the_page_and_its_live_part_show_what_the_ledger_has(seen: Client, acme: Tenant, globex: Tenant, path: str) -> None:
    now = timezone.now()
    ledger.post(
        [
            event(acme, now, completion_tokens=600),
            event(acme, now, status=502, outcome="failed", error_code="upstream_unavailable"),
            event(globex, now, status=429, outcome="refused", error_code="rate_limited"),
            event(globex, now, status=403, outcome="refused", error_code="content_blocked"),
            event(globex, now - timedelta(minutes=61)),  # an hour ago: not shown
        ]
    )
    page = page_of(seen, path)
    assert [figure_of(page, name) for name in ("requests", "errors", "refused", "blocked")] == ["4", "1", "1", "1"]
    assert float(figure_of(page, "rate")) > 0
    assert "admin/usage/?range=1h&tenant=acme&group=alias" in page
    assert "metric=blocked" in page
    assert "data-poll" in page


def test_a_deleted_tenants_use_counts_and_is_named_by_its_id(seen: Client, globex: Tenant) -> None:
    ledger.post([event(globex, timezone.now())])
    pk = str(globex.pk)
    globex.delete()
    page = page_of(seen)
    assert figure_of(page, "requests") == "1"
    assert pk in page
    assert "deleted" in page


def test_calls_in_flight_are_those_of_all_workers(seen: Client, valkey: redis.Redis) -> None:
    Backend.objects.create(name="gpu-1", url="http://192.0.2.7:8000")
    now_s = time.time()
    for worker in ("one", "two"):
        valkey.hset(in_flight.KEY, worker, in_flight.encode({"gpu-1": 2}, at_s=now_s))
    page = page_of(seen)
    assert figure_of(page, "in-flight") == "4"
    assert "/admin/backends/gpu-1/" in page


def test_calls_that_wait_in_the_gateway_are_told_by_deployment(seen: Client, valkey: redis.Redis) -> None:
    Deployment.objects.create(name="full", served_model="tiny", max_concurrent_calls=2)
    of_members = Deployment.objects.create(name="quiet", served_model="tiny")
    backend = Backend.objects.create(name="gpu-1", url="http://192.0.2.7:8000")
    PoolMember.objects.create(deployment=of_members, backend=backend, max_concurrent_calls=4)
    Deployment.objects.create(name="open", served_model="tiny")
    shared = SharedQueue(valkey, "worker")
    for n in range(5):
        shared.take("full", Ticket(f"id-{n}", "acme", 10), Pool(2))
    shared.take("gone", Ticket("other", "acme", 10), Pool(2))
    page = text_of(page_of(seen, "live/"))
    assert "3 wait in the gateway" in page
    assert "full Waiting 3 Places in use 2 of 2" in page
    assert "quiet Waiting 0 Places in use 0" in page
    assert "open Waiting" not in page
    shared.release("full", ["id-0", "id-1"], Pool(2))
    valkey.zadd("sekisho:{slots}:full:due", {"id-4": 1})  # its worker renews its lease no more
    assert "full Waiting 0 Places in use 2 of 2" in text_of(page_of(seen))


def test_without_redis_the_ledger_is_shown_all_the_same(seen: Client, acme: Tenant, settings: Any) -> None:
    ledger.post([event(acme, timezone.now())])
    settings.REDIS_URL = "redis://127.0.0.1:9/0"
    page = page_of(seen)
    assert "Redis does not answer" in page
    assert figure_of(page, "requests") == "1"
    assert figure_of(page, "in-flight") == "–"


def test_members_find_nothing_there(signed_in: SignedIn, acme_owner: User) -> None:
    for path in ("", "live/"):
        assert signed_in(acme_owner).get(f"/admin/fleet/{path}").status_code == 404


def test_the_live_part_is_cheap_however_many_tenants(
    seen: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    tenants = Tenant.objects.bulk_create(Tenant(slug=f"t{n}", name=f"T {n}") for n in range(30))
    ledger.post([event(tenant, timezone.now()) for tenant in tenants])
    Backend.objects.bulk_create(Backend(name=f"gpu-{n}", url=f"http://192.0.2.{n}:8000") for n in range(30))
    Deployment.objects.bulk_create(Deployment(name=f"d{n}", served_model="x", max_concurrent_calls=8) for n in range(30))
    with django_assert_max_num_queries(12):
        page = page_of(seen, "live/")
    assert page.count("group=alias") == fleet.TENANTS_SHOWN


CALLS = st.lists(
    st.tuples(
        st.sampled_from(["acme", "globex"]),
        st.integers(0, 70),
        st.sampled_from([(200, "completed", None), (502, "failed", "upstream_unavailable"), (429, "refused", "rate_limited")]),
        st.integers(0, 5000),
    ),
    max_size=20,
)


@hypothesis_settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=CALLS)
def test_its_sums_equal_the_records(
    acme: Tenant, globex: Tenant, calls: list[tuple[str, int, tuple[int, Any, Any], int]]
) -> None:
    before = {pk for (pk,) in UsageRecord.objects.values_list("request_id")}
    since = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=fleet.MINUTES - 1)
    was = lately(since).total
    tenants = {"acme": acme, "globex": globex}
    now = datetime.now(UTC)
    ledger.post(
        [
            event(
                tenants[slug],
                now - timedelta(minutes=ago),
                status=how[0],
                outcome=how[1],
                error_code=how[2],
                completion_tokens=tokens,
            )
            for slug, ago, how, tokens in calls
        ]
    )
    records = [row for row in UsageRecord.objects.filter(created_at__gte=since) if row.request_id not in before]
    found = lately(since)
    assert found.total.requests - was.requests == len(records)
    assert found.total.completion_tokens - was.completion_tokens == sum(row.completion_tokens for row in records)
    assert found.total.errors - was.errors == sum(row.outcome == "failed" for row in records)
    assert found.total.refused - was.refused == sum(row.outcome == "refused" for row in records)
    assert sum(sums.requests for sums in found.tenants.values()) == found.total.requests
