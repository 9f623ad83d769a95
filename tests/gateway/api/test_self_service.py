"""What a key is told of itself, and what it may ask. Limits are in the real Redis; the portal answers from a script."""

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from django.conf import settings as django_settings
from django.http.response import HttpResponseBase
from django.test import RequestFactory
from django.urls import resolve
from rest_framework.test import force_authenticate
from uuid_utils.compat import uuid7

from gateway import lifecycle, reports, signature
from gateway.api.middleware import edge
from gateway.config.documents import Alias, ErrorDialect, Key, Tenant
from gateway.principal import Principal
from tests.scripted import ScriptedBackend, scripted_backend
from usage.degraded import LocalLimiter
from usage.events import UsageEvent
from usage.limits import Limit, bind
from usage.partitions import partition
from usage.quota import Quota
from usage.reservation import Reservation
from usage.settling import Settling
from usage.spool import Spool
from usage.store import connect

TENANT_ID, KEY_ID = "0198c0de-0000-7000-8000-000000000001", "0198c0de-0000-7000-8000-00000000000a"
GENERAL = Alias("general", "tiny", 0, limits=(Limit("tokens_per_hour", 10_000), Limit("concurrent_requests", 4)))
SECURE = Alias("secure", "tiny", 0, limits=(Limit("requests_per_minute", 60),))
ACME = Tenant(
    TENANT_ID, "acme", "Acme", True, "openai", "drop", "Asia/Tokyo",
    aliases={alias.name: alias for alias in (SECURE, GENERAL)},
    limits=(Limit("money_per_month", 20_000_000_000), Limit("tokens_per_day", 100, mode="shadow")),
)  # fmt: skip
OWN, WHOLE = frozenset({"chat", "usage"}), frozenset({"usage:tenant"})
USAGE_NOTHING = orjson.dumps({"object": "usage", "data": []})


def principal(scopes: frozenset[str] = OWN, **changes: Any) -> Principal:
    key = Key(
        KEY_ID, "lookup", TENANT_ID, "ci", "p1", "digest", True, None, scopes, frozenset({"general"}), (), None,
        limits=(Limit("tokens_per_month", 50_000),),
    )  # fmt: skip
    return Principal(ACME, replace(key, **changes))


Get = Callable[..., Any]


@pytest.fixture
def get(settings: Any) -> Get:
    """GET a path of the gateway as a principal."""
    settings.ROOT_URLCONF = "gateway.urls"

    def answer(path: str, who: Principal | None = None) -> HttpResponseBase:
        request = RequestFactory().get(path)
        force_authenticate(request, user=who or principal())
        view, _, arguments = resolve(request.path)
        return edge(lambda given: view(given, **arguments))(request)

    return answer


def settling(client: redis.Redis, spool: Path) -> Settling:
    return Settling(client, Spool(spool, max_bytes=2**20), LocalLimiter(1, max_s=60))


@pytest.fixture
def quota(valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Quota:
    """The worker's settling on an empty Redis whose counters are whole."""
    client = connect(django_settings.REDIS_URL)
    monkeypatch.setattr(lifecycle, "_settling", settling(client, tmp_path / "spool"))
    quota = Quota(client)
    assert quota.mark_alive(partition(TENANT_ID), journal_end="0-0", now_s=time.time())
    return quota


@pytest.fixture
def portal(settings: Any) -> Iterator[ScriptedBackend]:
    with scripted_backend() as backend:
        settings.PORTAL_URL = backend.url
        reply(backend, USAGE_NOTHING)
        yield backend


def reply(portal: ScriptedBackend, body: bytes = b"", *, status: int = 200, kind: str = "application/json") -> None:
    head = f"HTTP/1.1 {status} Whatever\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    portal.reply = head.encode() + body


def asked(portal: ScriptedBackend) -> dict[str, Any]:
    """The body of the only request that the portal got."""
    (request,) = portal.asked
    body: dict[str, Any] = orjson.loads(request.partition(b"\r\n\r\n")[2])
    return body


def error_of(answer: Any) -> dict[str, Any]:
    error: dict[str, Any] = orjson.loads(answer.content)["error"]
    return error


# ---- scopes


@pytest.mark.parametrize("path", ["/v1/usage", "/v1/limits", "/v1/requests/01a1fbc7-78db-77d2-84f9-3044151bb42b"])
def test_key_without_the_scope_is_refused(get: Get, path: str) -> None:
    answer = get(path, principal(frozenset({"chat", "models"})))
    assert answer.status_code == 403
    assert (error_of(answer)["code"], error_of(answer)["message"]) == (
        "insufficient_scope",
        "This API key is not authorized to read usage.",
    )


def test_key_asks_for_its_own_and_with_the_tenants_scope_for_all(get: Get, portal: ScriptedBackend) -> None:
    assert get("/v1/usage", principal(OWN)).status_code == 200
    assert (asked(portal)["tenant_id"], asked(portal)["key_id"]) == (TENANT_ID, KEY_ID)
    portal.asked.clear()
    assert get("/v1/usage", principal(WHOLE)).status_code == 200
    assert (asked(portal)["tenant_id"], asked(portal)["key_id"]) == (TENANT_ID, None)


# ---- /v1/limits


def test_limits_are_those_of_key_aliases_and_tenant_as_they_stand(get: Get, quota: Quota) -> None:
    me = principal()
    held, done = (reserve(quota, me, tokens=tokens) for tokens in (1000, 500))
    assert held.tokens == 1000
    quota.settle(done, ended(done, tokens=120, cost_nano=250_000_000), now_s=time.time())
    body = orjson.loads(get("/v1/limits", me).content)
    assert body["object"] == "list"
    rows = {(row["subject"], row["name"], row["limit"]): row for row in body["data"]}
    assert list(rows) == [
        ("key", "ci", "tokens_per_month"),
        ("alias", "general", "tokens_per_hour"),
        ("alias", "general", "concurrent_requests"),
        ("tenant", "acme", "money_per_month"),
        ("tenant", "acme", "tokens_per_day"),
    ]
    month = rows["key", "ci", "tokens_per_month"]
    assert month.pop("reset_s") > 0
    assert month == {
        "subject": "key", "name": "ci", "limit": "tokens_per_month", "max": 50_000, "used": 120, "reserved": 1000,
        "remaining": 48_880, "mode": "enforce",
    }  # fmt: skip
    slots = rows["alias", "general", "concurrent_requests"]
    assert (slots["used"], slots["reserved"], slots["remaining"]) == (0, 1, 3)
    money = rows["tenant", "acme", "money_per_month"]
    assert (money["max"], money["used"], money["reserved"], money["remaining"]) == ("20", "0.25", "1", "18.75")
    day = rows["tenant", "acme", "tokens_per_day"]
    assert (day["used"] + day["reserved"], day["remaining"], day["mode"]) == (1120, 0, "shadow")


def test_tenants_scope_shows_the_limits_of_aliases_the_key_may_not_use(get: Get, quota: Quota) -> None:
    own, whole = (orjson.loads(get("/v1/limits", principal(scopes)).content)["data"] for scopes in (OWN, WHOLE))
    assert {row["name"] for row in own} == {"ci", "general", "acme"}
    assert {row["name"] for row in whole} == {"ci", "general", "secure", "acme"}


def test_limits_are_told_in_more_than_one_turn_where_they_are_many(get: Get, quota: Quota) -> None:
    many = {f"alias-{n:03}": replace(GENERAL, name=f"alias-{n:03}") for n in range(120)}
    data = orjson.loads(get("/v1/limits", Principal(replace(ACME, aliases=many), principal(aliases=None).key)).content)["data"]
    assert [row["name"] for row in data] == ["ci", *(name for name in many for _ in range(2)), "acme", "acme"]


def test_key_without_limits_has_none_and_needs_no_redis(get: Get) -> None:
    free = Principal(replace(ACME, limits=(), aliases={}), replace(principal().key, limits=()))
    assert orjson.loads(get("/v1/limits", free).content) == {"object": "list", "data": []}


def test_limits_wait_while_redis_is_empty_or_out(
    get: Get, quota: Quota, valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    valkey.flushdb()
    assert_waits(get("/v1/limits"))
    monkeypatch.setattr(lifecycle, "_settling", settling(connect("redis://127.0.0.1:1/0"), tmp_path / "other"))
    assert_waits(get("/v1/limits"))


# ---- /v1/usage: what may be asked


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ("", {}),
        ("?start=&end=&bucket=&group_by=", {}),
        ("?bucket=month&group_by=alias,key,status", {"bucket": "month", "group_by": ["alias", "key", "status"]}),
        ("?group_by=alias&group_by=status,", {"group_by": ["alias", "status"]}),
        ("?start=2026-11-01&end=2026-11-20T12:30Z", {"start": "2026-11-01T00:00:00", "end": "2026-11-20T12:30:00+00:00"}),
        ("?start=2026-11-01T00:00:00%2B09:00", {"start": "2026-11-01T00:00:00+09:00"}),
        ("?start=2026-11-01T00:00:00+09:00", {"start": "2026-11-01T00:00:00+09:00"}),
        ("?start=2026-11-01%2009:00", {"start": "2026-11-01T09:00:00"}),
    ],
)
def test_usage_passes_on_what_was_asked(get: Get, portal: ScriptedBackend, query: str, sent: dict[str, Any]) -> None:
    answer = get(f"/v1/usage{query}")
    assert (answer.status_code, answer.content) == (200, USAGE_NOTHING)
    whole = {"start": None, "end": None, "bucket": "hour", "group_by": []} | sent
    assert asked(portal) == {"report": "usage", "tenant_id": TENANT_ID, "key_id": KEY_ID} | whole


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("start=yesterday", "start"),
        ("end=2026-13-01", "end"),
        ("start=0001-01-01", "start"),
        ("end=9999-12-31T23:59:59-12:00", "end"),
        ("start=1700000000", "start"),
        ("bucket=week", "bucket"),
        ("bucket=Hour", "bucket"),
        ("group_by=alias,backend", "group_by"),
        ("group_by=alias&group_by=tenant", "group_by"),
        ("bucket=day&bucket=hour", "bucket"),
        ("groupby=alias", "groupby"),
        ("key_id=0198c0de-0000-7000-8000-00000000000b", "key_id"),
        ("tenant_id=x", "tenant_id"),
        ("&".join(f"p{n}" for n in range(2000)), None),
    ],
)
def test_bad_parameter_is_named_and_asks_nobody(get: Get, portal: ScriptedBackend, query: str, param: str | None) -> None:
    answer = get(f"/v1/usage?{query}")
    error = error_of(answer)
    assert (answer.status_code, error["type"], error["code"]) == (400, "invalid_request_error", "invalid_request")
    assert error["param"] == param
    assert error["details"][0]["message"].endswith(".")
    assert portal.asked == []


@pytest.mark.parametrize(("dialect", "members"), [("openai", {"error"}), ("detail", {"detail"}), ("both", {"error", "detail"})])
def test_refusals_speak_the_keys_dialect(get: Get, dialect: ErrorDialect, members: set[str]) -> None:
    answer = get("/v1/usage?bucket=week", principal(error_dialect=dialect))
    body = orjson.loads(answer.content)
    assert (answer.status_code, set(body)) == (400, members)
    if "detail" in members:
        assert body["detail"] == "Invalid usage request. bucket: Must be one of minute, hour, day, month."


def test_what_the_portal_will_not_answer_names_the_parameter_too(get: Get, portal: ScriptedBackend) -> None:
    reply(portal, orjson.dumps({"param": "end", "message": "The end must be after the start."}), status=400)
    answer = get("/v1/usage?start=2026-11-02&end=2026-11-01")
    assert answer.status_code == 400
    assert error_of(answer)["details"] == [{"param": "end", "message": "The end must be after the start."}]


# ---- the portal


def test_what_is_asked_is_signed(get: Get, portal: ScriptedBackend) -> None:
    get("/v1/usage")
    head, _, body = portal.asked[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /internal/reports/ HTTP/1.1\r\n")
    (signed,) = (line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(signature.HEADER.encode()))
    assert signature.is_signed(body, signed.decode(), now_s=time.time())


@pytest.mark.parametrize("path", ["/v1/usage", "/v1/requests/01a1fbc7-78db-77d2-84f9-3044151bb42b"])
@pytest.mark.parametrize("status", [502, 503, 504])
def test_portal_without_its_stores_is_a_503_with_a_time_to_wait(
    get: Get, portal: ScriptedBackend, path: str, status: int
) -> None:
    reply(portal, b"<html>", status=status, kind="text/html")
    assert_waits(get(path))


def test_portal_that_is_out_hangs_or_hangs_up_is_a_503(get: Get, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "TIMEOUT_S", (1.0, 0.1))
    with socket.create_server(("127.0.0.1", 0)) as hanging, scripted_backend() as hangs_up:
        for url in ("http://127.0.0.1:1", f"http://127.0.0.1:{hanging.getsockname()[1]}", hangs_up.url):
            settings.PORTAL_URL = url
            assert_waits(get("/v1/usage"))


def test_worker_asks_for_a_few_reports_at_once(get: Get, portal: ScriptedBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "WAIT_S", 0.05)
    for _ in range(reports.AT_ONCE):
        reports._turns.acquire()
    assert_waits(get("/v1/usage"))
    assert portal.asked == []
    reports._turns.release(reports.AT_ONCE)
    monkeypatch.setattr(reports, "WAIT_S", 10)
    assert [get("/v1/usage").status_code for _ in range(2 * reports.AT_ONCE)] == [200] * (2 * reports.AT_ONCE)


@pytest.mark.parametrize("status", [302, 400, 404, 500])
def test_refusal_that_is_the_installations_fault_tells_the_client_nothing(
    get: Get, portal: ScriptedBackend, status: int
) -> None:
    reply(portal, b"<html>Traceback: secret", status=status, kind="text/html")
    answer = get("/v1/usage")
    assert (answer.status_code, error_of(answer)["code"]) == (500, "internal_error")
    assert b"secret" not in answer.content


def test_proxy_of_the_environment_is_not_asked(get: Get, portal: ScriptedBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    assert get("/v1/usage").status_code == 200


# ---- /v1/requests/{id}


def test_call_is_told_as_the_portal_tells_it(get: Get, portal: ScriptedBackend) -> None:
    request_id = str(uuid7())
    story = orjson.dumps({"object": "request", "id": request_id})
    reply(portal, story)
    for path in (f"/v1/requests/{request_id}", f"/v1/requests/{request_id}/", f"/v1/requests/chatcmpl-{request_id}"):
        portal.asked.clear()
        answer = get(path)
        assert (answer.status_code, answer.content) == (200, story)
        assert asked(portal) == {
            "report": "request", "tenant_id": TENANT_ID, "key_id": KEY_ID, "request_id": request_id
        }  # fmt: skip


def test_call_of_nobody_or_of_a_stranger_is_a_404(get: Get, portal: ScriptedBackend) -> None:
    reply(portal, status=204)
    answer = get(f"/v1/requests/{uuid7()}")
    error = error_of(answer)
    assert (answer.status_code, error["type"], error["code"]) == (404, "invalid_request_error", "request_not_found")


@pytest.mark.parametrize("request_id", ["x", "chatcmpl-", "0198c0de", "%00", "..%2f..%2flivez"])
def test_id_of_another_form_is_a_404_and_asks_nobody(get: Get, portal: ScriptedBackend, request_id: str) -> None:
    assert get(f"/v1/requests/{request_id}").status_code == 404
    assert portal.asked == []


# ----


def reserve(quota: Quota, me: Principal, *, tokens: int) -> Reservation:
    held = quota.reserve(
        str(uuid7()), TENANT_ID, bind(me.tenant, me.key, GENERAL), prompt_tokens=100, output_tokens=tokens - 100,
        cost_nano=1_000_000_000, time_zone=ACME.time_zone, now_s=time.time(), meta=b"{}",
    )  # fmt: skip
    assert isinstance(held, Reservation)
    return held


def ended(held: Reservation, *, tokens: int, cost_nano: int) -> UsageEvent:
    return UsageEvent(
        request_id=held.request_id, created_s=time.time(), tenant="acme", tenant_id=TENANT_ID, key_id=KEY_ID, key_name="ci",
        alias="general", deployment="tiny", backend="gpu-1", status=200, outcome="completed", error_code=None, stream=False,
        prompt_tokens=tokens - 20, cached_tokens=0, completion_tokens=20, usage_source="backend", first_token_ms=None,
        duration_ms=5, attempts=1, cost_nano=cost_nano,
    )  # fmt: skip


def assert_waits(answer: Any) -> None:
    assert (answer.status_code, error_of(answer)["code"]) == (503, "overloaded")
    assert int(answer["retry-after"]) >= 1
