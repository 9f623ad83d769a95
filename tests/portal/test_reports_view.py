"""What the portal tells the gateway, and that it tells nobody else."""

import time
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
import redis
from django.http import HttpResponse
from django.test import Client
from django.urls import get_resolver
from uuid_utils.compat import uuid7

from accounts.models import Tenant
from gateway import signature
from tests.usage.made import KEY_ID, OTHER_KEY_ID, event
from tests.usage.test_unposted import settled
from usage import ledger, posting

pytestmark = pytest.mark.django_db
PATH = "/internal/reports/"
NOON = datetime(2026, 11, 20, 12, 0, 30, tzinfo=UTC)
WHOLE_DAY = {"start": "2026-11-20", "end": "2026-11-21", "bucket": "day", "group_by": []}


@pytest.fixture
def gateway() -> Client:
    """Not signed in, and checked for CSRF tokens as in earnest."""
    return Client(enforce_csrf_checks=True)


def post(client: Client, body: bytes, signed: str | None) -> HttpResponse:
    headers = {} if signed is None else {signature.HEADER: signed}
    answer: HttpResponse = client.post(PATH, body, content_type="application/json", headers=headers)
    return answer


def ask(client: Client, tenant: Tenant, report: str, *, key_id: str | None = None, **details: Any) -> HttpResponse:
    body = orjson.dumps({"report": report, "tenant_id": str(tenant.pk), "key_id": key_id, **details})
    return post(client, body, signature.sign(body, now_s=time.time()))


def usage_body(tenant: Tenant) -> bytes:
    return orjson.dumps({"report": "usage", "tenant_id": str(tenant.pk), "key_id": None, **WHOLE_DAY})


# ---- who may ask


def test_no_page_but_this_one_is_internal() -> None:
    access = {str(entry.pattern): getattr(entry.callback, "access", None) for entry in get_resolver().url_patterns}
    assert [path for path, who in access.items() if who == "internal"] == [PATH.lstrip("/")]


def test_signed_request_is_answered_without_session_or_csrf_token(gateway: Client, acme: Tenant) -> None:
    answer = ask(gateway, acme, "usage", **WHOLE_DAY)
    assert (answer.status_code, answer["content-type"]) == (200, "application/json")
    assert not answer.cookies
    assert orjson.loads(answer.content)["object"] == "usage"


def test_unsigned_request_finds_nothing(gateway: Client, acme: Tenant) -> None:
    body = usage_body(acme)
    assert [post(gateway, body, signed).status_code for signed in (None, "", ":", "1:2", f"{'9' * 30}:{'0' * 64}")] == [404] * 5
    assert gateway.get(PATH).status_code == 404


def test_tampered_body_finds_nothing(gateway: Client, acme: Tenant, globex: Tenant) -> None:
    signed = signature.sign(usage_body(acme), now_s=time.time())
    assert post(gateway, usage_body(acme), signed).status_code == 200
    assert post(gateway, usage_body(globex), signed).status_code == 404
    assert post(gateway, usage_body(acme) + b" ", signed).status_code == 404


def test_moment_cannot_be_moved_on(gateway: Client, acme: Tenant) -> None:
    body = usage_body(acme)
    moment, _, mac = signature.sign(body, now_s=time.time() - 60).partition(":")
    assert post(gateway, body, f"{moment}:{mac}").status_code == 404
    assert post(gateway, body, f"{int(moment) + 60}:{mac}").status_code == 404


@pytest.mark.parametrize(("age_s", "status"), [(-60, 404), (-10, 200), (0, 200), (10, 200), (60, 404)])
def test_replay_is_refused_after_half_a_minute(gateway: Client, acme: Tenant, age_s: int, status: int) -> None:
    body = usage_body(acme)
    assert post(gateway, body, signature.sign(body, now_s=time.time() - age_s)).status_code == status


def test_signature_of_another_installation_finds_nothing(gateway: Client, acme: Tenant, settings: Any) -> None:
    body = usage_body(acme)
    ours, settings.SECRET_KEY = settings.SECRET_KEY, "another installation's"
    foreign = signature.sign(body, now_s=time.time())
    settings.SECRET_KEY = ours
    assert post(gateway, body, foreign).status_code == 404


def test_oversized_request_finds_nothing(gateway: Client) -> None:
    body = b" " * 100_000
    assert post(gateway, body, signature.sign(body, now_s=time.time())).status_code == 404


def test_person_who_is_signed_in_finds_nothing_either(client: Client, acme: Tenant, operator: Any) -> None:
    client.force_login(operator)
    assert post(client, usage_body(acme), None).status_code == 404


# ---- usage


def test_usage_is_the_tenants_and_with_a_key_the_keys(gateway: Client, acme: Tenant, globex: Tenant) -> None:
    ledger.post([event(acme, NOON), event(acme, NOON, key_id=OTHER_KEY_ID), event(globex, NOON)])

    def requests(tenant: Tenant, key_id: str | None = None) -> int:
        body = orjson.loads(ask(gateway, tenant, "usage", key_id=key_id, **WHOLE_DAY).content)
        count: int = body["total"]["requests"]
        return count

    assert requests(acme) == 2
    assert requests(acme, KEY_ID) == requests(acme, OTHER_KEY_ID) == 1
    assert requests(globex) == requests(globex, KEY_ID) == 1
    assert requests(globex, OTHER_KEY_ID) == 0


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"start": "2026-11-21", "end": "2026-11-20"}, "end"),
        ({"start": "2020-01-01", "end": "2026-11-20", "bucket": "minute"}, "bucket"),
    ],
)
def test_impossible_time_is_told_with_its_parameter(gateway: Client, acme: Tenant, changes: dict[str, str], param: str) -> None:
    answer = ask(gateway, acme, "usage", **(WHOLE_DAY | changes))
    assert (answer.status_code, answer["content-type"]) == (400, "application/json")
    told = orjson.loads(answer.content)
    assert told["param"] == param
    assert told["message"].endswith(".")


def test_tenant_that_was_deleted_is_a_matter_of_a_moment(gateway: Client, acme: Tenant) -> None:
    tenant = Tenant(pk=uuid7(), slug="gone")
    assert ask(gateway, tenant, "usage", **WHOLE_DAY).status_code == 503


# ---- one call


def test_call_is_told_to_its_tenant_and_key_alone(gateway: Client, acme: Tenant, globex: Tenant, valkey: redis.Redis) -> None:
    call = event(acme, NOON, limits=[{"subject": "tenant", "name": str(acme.pk), "limit": "tokens_per_day", "used": 7}])
    ledger.post([call])
    told = orjson.loads(ask(gateway, acme, "request", request_id=call.request_id).content)
    assert (told["object"], told["id"], told["outcome"]) == ("request", call.request_id, "completed")
    assert told["limits"] == [{"subject": "tenant", "name": "acme", "limit": "tokens_per_day", "used": 7}]
    assert ask(gateway, acme, "request", request_id=call.request_id, key_id=KEY_ID).status_code == 200
    assert ask(gateway, acme, "request", request_id=call.request_id, key_id=OTHER_KEY_ID).status_code == 204
    assert ask(gateway, globex, "request", request_id=call.request_id).status_code == 204
    assert ask(gateway, acme, "request", request_id=str(uuid7())).status_code == 204


@pytest.mark.django_db(transaction=True)
def test_call_on_the_journal_is_told_as_it_will_be_from_the_ledger(gateway: Client, acme: Tenant, valkey: redis.Redis) -> None:
    money = {"subject": "key", "name": KEY_ID, "limit": "money_per_month", "used": 1_500_000_000, "max": 2_000_000_000}
    for changes in (
        {"limits": [money], "queue_ms": 12},
        {"outcome": "refused", "status": 429, "error_code": "rate_limited", "backend": None, "first_token_ms": None},
    ):
        request_id = settled(valkey, acme, **changes)
        before = ask(gateway, acme, "request", request_id=request_id)
        assert posting.drain_journal() == 1
        after = ask(gateway, acme, "request", request_id=request_id)
        assert before.status_code == after.status_code == 200
        assert orjson.loads(before.content) == orjson.loads(after.content)


def test_call_on_the_journal_is_its_tenants_and_keys_alone(
    gateway: Client, acme: Tenant, globex: Tenant, valkey: redis.Redis
) -> None:
    request_id = settled(valkey, acme)
    assert ask(gateway, acme, "request", request_id=request_id, key_id=KEY_ID).status_code == 200
    assert ask(gateway, acme, "request", request_id=request_id, key_id=OTHER_KEY_ID).status_code == 204
    assert ask(gateway, globex, "request", request_id=request_id).status_code == 204


def test_store_that_is_out_is_a_503(gateway: Client, acme: Tenant, settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert ask(gateway, acme, "request", request_id=str(uuid7())).status_code == 503
    # What the ledger holds is told all the same.
    call = event(acme, NOON)
    ledger.post([call])
    assert ask(gateway, acme, "request", request_id=call.request_id).status_code == 200
