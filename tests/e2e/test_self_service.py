"""A key asks what it has used, what it may use and what became of a call: a real gateway, a real portal, real stores."""

import concurrent.futures
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from uuid_utils.compat import uuid7

from accounts.models import Tenant
from gateway.config import publish as configuration
from gateway.models import Limit, ModelAlias
from tests import processes
from tests.e2e.conftest import Stand
from usage.posting import drain_journal

TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens")


@pytest.fixture(scope="module")
def portal_url(django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with processes.portal(tmp_path_factory.mktemp("portal")) as url:
        yield url


@pytest.fixture(scope="module")
def gateway_process(portal_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[processes.Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with processes.gateway(folder, workers=2, SEKISHO_PORTAL_URL=portal_url) as running:
        yield running


def key(stand: Stand, tenant: Tenant | None = None, *, name: str = "reader", scopes: tuple[str, ...] = ("usage",)) -> str:
    """A key that may ask, in force on both workers."""
    _key, secret = stand.issue(tenant, name=name, scopes=("chat", "models", *scopes))
    stand.until(
        lambda: all(stand.get("/v1/limits", secret=secret).ok for _ in stand.gateway.each_worker()), "the key did not arrive"
    )
    return secret


def test_usage_is_the_sum_of_the_calls(stand: Stand) -> None:
    secret = key(stand)
    calls = [stand.post({"max_tokens": 5 + n}, secret=secret) for n in range(4)]
    refused = stand.post({"model": "no-such-model"}, secret=secret)
    assert refused.status_code == 404
    stand.post()  # another key's
    drain_journal()
    body = stand.get("/v1/usage", secret=secret).json()
    total = body["total"]
    assert (body["object"], body["time_zone"]) == ("usage", stand.acme.time_zone)
    assert {name: total[name] for name in TOKENS} == {name: sum(c.json()["usage"][name] for c in calls) for name in TOKENS}
    assert (total["requests"], total["refused"], total["errors"], total["cost"]) == (5, 1, 0, "0")
    for name in (*TOKENS, "requests", "refused"):
        assert sum(row[name] for row in body["data"]) == total[name]


def test_usage_by_group_and_with_the_tenants_scope(stand: Stand) -> None:
    own, whole = key(stand), key(stand, name="controller", scopes=("usage:tenant",))
    stand.post(secret=own)
    stand.post()
    drain_journal()
    query = "/v1/usage?bucket=month&group_by=key,alias,status"
    assert [(row["key_name"], row["alias"], row["status"]) for row in stand.get(query, secret=own).json()["data"]] == [
        ("reader", "general", 200)
    ]
    assert {row["key_name"] for row in stand.get(query, secret=whole).json()["data"]} == {"reader", "ci"}
    start = (datetime.now(UTC) + timedelta(days=40)).isoformat()
    later = stand.get("/v1/usage", secret=whole, params={"start": start, "end": "2100-01-01", "bucket": "month"})
    assert (later.json()["data"], later.json()["total"]["requests"]) == ([], 0)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("bucket=week", "bucket"),
        ("start=2026-11-02&end=2026-11-01", "end"),
        ("start=2000-01-01&bucket=minute", "bucket"),
        ("start=2199-01-01&end=2199-12-31T23:59:59%2B14:00&bucket=month", None),
        ("start=2000-01-01&end=2199-12-31&bucket=month", "bucket"),
        ("start=2000-01-01T00:00:00-12:00&end=2000-01-01T00:00:01-12:00", None),
    ],
)
def test_what_may_be_asked(stand: Stand, query: str, param: str | None) -> None:
    answer = stand.get(f"/v1/usage?{query}", secret=key(stand))
    if param is None:
        assert (answer.status_code, answer.json()["total"]["requests"]) == (200, 0)
    else:
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_limits_are_told_with_what_calls_have_used(stand: Stand) -> None:
    Limit.objects.create(tenant=stand.acme, name="tokens_per_day", max=100_000)
    alias = ModelAlias.objects.get(tenant=stand.acme)
    Limit.objects.create(alias=alias, name="requests_per_minute", max=60, mode="shadow")
    secret = key(stand)
    stand.until(lambda: len(limits(stand, secret)) == 2, "the limits did not arrive")
    stand.until(lambda: "x-ratelimit-limit-tokens" in stand.post(secret=secret).headers, "the limits did not arrive")
    used = limits(stand, secret)["tenant", "tokens_per_day"]["used"]
    spent = stand.post(secret=secret).json()["usage"]["total_tokens"]
    rows = limits(stand, secret)
    day, minute = rows["tenant", "tokens_per_day"], rows["alias", "requests_per_minute"]
    assert (day["name"], day["used"], day["reserved"], day["mode"]) == ("acme", used + spent, 0, "enforce")
    assert day["remaining"] == day["max"] - day["used"]
    assert 0 < day["reset_s"] <= 86400
    assert (minute["name"], minute["max"], minute["mode"]) == ("general", 60, "shadow")


def limits(stand: Stand, secret: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["subject"], row["limit"]): row for row in stand.get("/v1/limits", secret=secret).json()["data"]}


def test_call_is_told_before_it_is_posted_and_after(stand: Stand) -> None:
    secret = key(stand)
    call = stand.post({"max_tokens": 9}, secret=secret)
    request_id = call.headers["x-request-id"]
    stand.until(lambda: stand.get(f"/v1/requests/{request_id}", secret=secret).status_code == 200, "the call is not told")
    before = stand.get(f"/v1/requests/{call.json()['id']}", secret=secret).json()
    assert drain_journal() >= 1
    after = stand.get(f"/v1/requests/{request_id}", secret=secret).json()
    assert before == after
    assert (after["object"], after["id"], after["alias"], after["outcome"]) == ("request", request_id, "general", "completed")
    assert {name: after["usage"][name] for name in TOKENS} == {name: call.json()["usage"][name] for name in TOKENS}
    assert not {"backend", "deployment"} & set(after)


def test_call_is_told_to_its_own_key_and_tenant_alone(stand: Stand, globex: Tenant) -> None:
    own, sibling, whole = (
        key(stand, name=name, scopes=scopes)
        for name, scopes in (("own", ("usage",)), ("sibling", ("usage",)), ("whole", ("usage:tenant",)))
    )
    configuration.publish_all()
    stranger = key(stand, globex, name="stranger", scopes=("usage", "usage:tenant"))
    path = f"/v1/requests/{stand.post(secret=own).headers['x-request-id']}"
    for is_posted in (False, True):
        if is_posted:
            drain_journal()
        stand.until(lambda: stand.get(path, secret=own).status_code == 200, "the call is not told")
        assert stand.get(path, secret=whole).status_code == 200
        absent = stand.get(f"/v1/requests/{uuid7()}", secret=stranger)
        for secret in (sibling, stranger):
            answer = stand.get(path, secret=secret)
            assert (answer.status_code, answer.json()) == (404, absent.json())


def test_reports_asked_by_many_at_once_all_come_or_say_when(stand: Stand) -> None:
    secret = key(stand)
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: stand.get("/v1/usage", secret=secret), range(64)))
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert answers[0].status_code == 200
    assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 503)


def test_the_portal_can_be_out(stand: Stand, tmp_path: Any) -> None:
    secret = key(stand)
    with processes.gateway(tmp_path, SEKISHO_PORTAL_URL="http://127.0.0.1:1") as alone:
        stand.gateway = alone
        stand.until(lambda: stand.post(secret=secret).status_code == 200, "calls do not go on")
        assert stand.get("/v1/limits", secret=secret).status_code == 200
        for path in ("/v1/usage", f"/v1/requests/{uuid7()}"):
            answer = stand.get(path, secret=secret)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1


def test_a_portal_without_its_database_is_out_too(stand: Stand, tmp_path: Any) -> None:
    secret = key(stand)
    with (
        processes.portal(tmp_path / "portal", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none") as portal_url,
        processes.gateway(tmp_path / "gateway", SEKISHO_PORTAL_URL=portal_url) as gateway,
    ):
        stand.gateway = gateway
        stand.until(lambda: stand.get("/v1/models", secret=secret).status_code == 200, "the gateway has no configuration")
        answer = stand.get("/v1/usage", secret=secret)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
        log = (tmp_path / "portal" / "portal.log").read_text()
        assert "report_waits" in log
        assert "Traceback" not in log


def test_an_unsupported_path_names_these_endpoints(stand: Stand) -> None:
    message = stand.get("/v1/no-such-thing").json()["error"]["message"]
    assert all(path in message for path in ("/v1/usage", "/v1/limits", "/v1/requests/{id}"))
