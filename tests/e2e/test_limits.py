"""Limits, over real sockets: what a caller is told, and that nothing ever goes beyond."""

import concurrent.futures
import random
import time

import pytest

from gateway.models import Limit
from tests.e2e.conftest import Stand
from usage.limits import BoundLimit
from usage.limits import Limit as Bound
from usage.quota import Quota


def limit(stand: Stand, **maxima: int) -> None:
    """Limits of the tenant, in force on every worker."""
    for name, most in maxima.items():
        Limit.objects.create(tenant=stand.acme, name=name, max=most)
    stand.until(lambda: all(has_limits(stand) for _ in stand.gateway.each_worker()), "the limits did not arrive")


def has_limits(stand: Stand) -> bool:
    """A request that is refused for its size shows a limit without using any of it."""
    return stand.post({"n": 0}).status_code == 400 and bool(bound(stand))


def bound(stand: Stand) -> list[BoundLimit]:
    rows = Limit.objects.filter(tenant=stand.acme)
    return [BoundLimit("tenant", str(stand.acme.id), Bound(row.name, row.max)) for row in rows]


def used(stand: Stand) -> dict[str, tuple[int, int]]:
    states = Quota(stand.store).state(str(stand.acme.id), bound(stand), time_zone=stand.acme.time_zone, now_s=time.time())
    return {state.bound.limit.name: (state.used, state.reserved) for state in states}


def test_a_success_tells_what_is_left(stand: Stand) -> None:
    limit(stand, requests_per_minute=100, tokens_per_hour=100_000)
    stand.until(lambda: "x-ratelimit-limit-tokens" in stand.post().headers, "the limits did not arrive")
    response = stand.post({"max_tokens": 10})
    assert response.headers["x-ratelimit-limit-requests"] == "100"
    assert 0 < int(response.headers["x-ratelimit-remaining-requests"]) < 100
    assert response.headers["x-ratelimit-limit-tokens"] == "100000"
    assert response.headers["x-ratelimit-reset-tokens"].endswith("s")
    assert "x-ratelimit-limit-tokens" in stand.post({"stream": True}).headers


def test_the_settled_count_is_the_backends_own(stand: Stand) -> None:
    limit(stand, tokens_per_hour=1_000_000)
    stand.until(lambda: "x-ratelimit-limit-tokens" in stand.post().headers, "the limits did not arrive")
    before, _ = used(stand)["tokens_per_hour"]
    total = 0
    for stream in (True, False, True):
        response = stand.post({"stream": stream, "max_tokens": 12, "ignore_eos": True})
        event = stand.event(response.headers["x-request-id"])
        total += event.prompt_tokens + event.completion_tokens
    assert used(stand)["tokens_per_hour"] == (before + total, 0)


@pytest.mark.parametrize(
    ("name", "words"),
    [("tokens_per_hour", "Hourly"), ("tokens_per_day", "Daily"), ("tokens_per_month", "Monthly")],
)
def test_used_up_tokens_are_a_429_in_the_contracts_words(stand: Stand, name: str, words: str) -> None:
    limit(stand, **{name: 2000})
    stand.until(lambda: stand.post({"max_tokens": 1900, "ignore_eos": True}).status_code in (200, 429), "no answer")
    stand.until(lambda: stand.post({"max_tokens": 1900, "ignore_eos": True}).status_code == 429, "never used up")
    response = stand.post({"max_tokens": 1900})
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (429, "rate_limited", "token_quota_exceeded")
    assert error["message"].startswith(f"{words} token limit exceeded. Current usage: ")
    assert error["message"].endswith(", Limit: 2000")
    assert int(response.headers["retry-after"]) >= 1
    assert response.headers["x-should-retry"] == "false"
    assert stand.event(response.headers["x-request-id"]).outcome == "refused"


def test_concurrent_requests_are_held_to_their_number_and_come_free_at_once(stand: Stand) -> None:
    limit(stand, concurrent_requests=2)
    stand.vllm.knobs(first_token_ms=2000)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        statuses = sorted(r.status_code for r in pool.map(lambda _: stand.post({"max_tokens": 2}), range(8)))
    assert statuses.count(200) >= 2
    assert statuses.count(429) == 8 - statuses.count(200)
    stand.vllm.reset()
    for stream in (True, False) * 5:  # whoever has read the end may call again: no slot lags behind
        assert stand.post({"stream": stream}).status_code == 200


def test_a_client_that_leaves_frees_its_slot(stand: Stand) -> None:
    limit(stand, concurrent_requests=1)
    stand.vllm.knobs(tokens_per_s=10)
    response = stand.post({"stream": True, "max_tokens": 1000, "ignore_eos": True}, stream=True)
    next(response.iter_content(64))
    response.close()
    stand.vllm.reset()
    stand.until(lambda: stand.post().status_code == 200, "the slot is never freed")


def test_refused_calls_use_nothing_up(stand: Stand) -> None:
    limit(stand, requests_per_minute=1000, tokens_per_hour=100_000)
    stand.until(lambda: "x-ratelimit-limit-tokens" in stand.post().headers, "the limits did not arrive")
    before = used(stand)
    for body in ({"n": 0}, {"model": "nothing"}, {"temperature": 9}, {"messages": []}):
        assert stand.post(body).status_code in (400, 404)
    stand.vllm.knobs(status=500)
    assert stand.post().status_code == 502
    assert used(stand) == before


def test_no_limit_is_overrun_by_a_race(stand: Stand) -> None:
    most = 6000
    limit(stand, tokens_per_hour=most, concurrent_requests=1000)
    stand.until(lambda: "x-ratelimit-limit-tokens" in stand.post({"max_tokens": 1}).headers, "the limits did not arrive")
    dice = random.Random(7)
    seen: list[int] = []

    def call(_: int) -> int:
        body = {"max_tokens": dice.randint(1, 120), "stream": dice.random() < 0.5, "ignore_eos": dice.random() < 0.5}
        response = stand.post(body, stream=bool(body["stream"]))
        if body["stream"] and response.status_code == 200 and dice.random() < 0.3:
            next(response.iter_content(32), None)
            response.close()
        seen.append(sum(used(stand)["tokens_per_hour"]))
        return response.status_code

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        statuses = list(pool.map(call, range(400)))
    assert max(seen) <= most
    assert 429 in statuses
    stand.until(lambda: used(stand)["tokens_per_hour"][1] == 0, "something stays reserved")
    settled, _ = used(stand)["tokens_per_hour"]
    total = sum(e.prompt_tokens + e.completion_tokens for e in stand.events_of_acme())
    assert settled == total <= most


def test_an_output_that_does_not_fit_is_shortened_where_the_limit_says_so(stand: Stand) -> None:
    Limit.objects.create(tenant=stand.acme, name="tokens_per_hour", max=500, clamps=True)
    stand.until(lambda: "x-ratelimit-limit-tokens" in stand.post({"max_tokens": 1}).headers, "the limit did not arrive")
    response = stand.post({"max_tokens": 4000, "ignore_eos": True})
    assert (response.status_code, response.headers["x-gateway-clamped"]) == (200, "max_tokens")
    assert response.json()["usage"]["completion_tokens"] < 500


def test_a_limit_in_shadow_refuses_nothing(stand: Stand) -> None:
    Limit.objects.create(tenant=stand.acme, name="tokens_per_hour", max=1, mode="shadow")
    for _ in range(3):
        response = stand.post()
        assert response.status_code == 200
    stand.until(lambda: bool(stand.event(stand.post().headers["x-request-id"]).limits), "the limit did not arrive")


def test_what_a_call_may_cost_is_sent_upstream_as_its_limit(stand: Stand) -> None:
    limit(stand, tokens_per_hour=1_000_000)
    stand.until(lambda: "x-ratelimit-limit-tokens" in stand.post({"max_tokens": 1}).headers, "the limits did not arrive")
    assert stand.post().status_code == 200
    assert 0 < stand.vllm.requests()[-1]["body"]["max_tokens"] <= 8192


def test_the_tenants_money_is_a_limit_too(stand: Stand) -> None:
    alias = stand.deployment.aliases.get(name="general") if hasattr(stand.deployment, "aliases") else None
    from gateway.models import ModelAlias

    alias = alias or ModelAlias.objects.get(tenant=stand.acme, name="general")
    alias.price_prompt = alias.price_completion = 1000
    alias.save()
    limit(stand, money_per_month=200_000_000)  # 0.2
    stand.until(lambda: stand.post({"max_tokens": 300, "ignore_eos": True}).status_code == 429, "never used up")
    error = stand.post({"max_tokens": 300}).json()["error"]
    assert error["message"].startswith("Monthly budget exceeded. Current usage: ")
    assert error["code"] == "token_quota_exceeded"


def test_what_the_backend_reported_is_in_the_ledger(stand: Stand) -> None:
    from usage.models import UsageRecord
    from usage.posting import drain_journal

    ids = [stand.post({"stream": s, "n": 2, "temperature": 1, "max_tokens": 5}).headers["x-request-id"] for s in (True, False)]
    for request_id in ids:
        stand.event(request_id)
    sent = {r["id"]: r for r in stand.vllm.requests()}
    drain_journal()
    drain_journal()
    rows = UsageRecord.objects.filter(request_id__in=ids)
    assert rows.count() == 2
    told = sum(r["prompt_tokens"] + r["completion_tokens"] for r in sent.values())
    assert sum(row.prompt_tokens + row.completion_tokens for row in rows) == told
