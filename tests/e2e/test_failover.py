"""A call goes on to whoever can answer it: another backend, another deployment, a longer context; and says what it waited."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.models import Backend, Deployment, ModelAlias, PoolMember
from tests.e2e.conftest import Stand
from tests.simulator import Simulator, simulator

SILENT = {"messages": [{"role": "user", "content": "[[sim first_token_ms=30000]] Hello"}]}


@pytest.fixture(scope="module")
def other_vllm() -> Iterator[Simulator]:
    with simulator("--model", "other") as running:
        yield running


@pytest.fixture
def other(stand: Stand, other_vllm: Simulator) -> Deployment:
    """Another deployment, of another model, at a backend of its own."""
    other_vllm.reset()
    backend = Backend.objects.create(name="gpu-other", url=other_vllm.url)
    deployment = Deployment.objects.create(name="other", served_model="other", max_model_len=32_768)
    PoolMember.objects.create(deployment=deployment, backend=backend)
    return deployment


def change(stand: Stand, **terms: Any) -> None:
    for name, value in terms.items():
        setattr(stand.deployment, name, value)
    stand.deployment.save()


def await_change(stand: Stand, check: Callable[[], bool]) -> None:
    """On every worker: they hear of changes one after the other."""
    stand.until(lambda: all(check() for _ in stand.gateway.each_worker()), "the change did not arrive")


def alias(stand: Stand, **terms: Any) -> None:
    row = ModelAlias.objects.get(tenant=stand.acme, name="general")
    for name, value in terms.items():
        setattr(row, name, value)
    row.save()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
def test_another_deployment_takes_over_where_every_backend_is_out(
    stand: Stand, other: Deployment, other_vllm: Simulator, stream: bool
) -> None:
    stand.vllm.knobs(status=502)
    change(stand, fallback=other)
    await_change(stand, lambda: stand.post({"stream": stream}).status_code == 200)
    response = stand.post({"stream": stream})
    assert response.status_code == 200
    assert "other" not in response.text
    assert other_vllm.requests()[-1]["body"]["model"] == "other"
    event = stand.event(response.headers["x-request-id"])
    assert (event.deployment, event.backend, event.outcome) == ("other", "gpu-other", "completed")


def test_a_prompt_that_does_not_fit_goes_where_there_is_room(stand: Stand, other: Deployment, other_vllm: Simulator) -> None:
    other_vllm.knobs(max_model_len=32_768)
    change(stand, context_fallback=other)
    long = {"messages": [{"role": "user", "content": "word " * 9_000}], "max_tokens": 20}
    await_change(stand, lambda: stand.post(long).status_code == 200)
    response = stand.post(long)
    event = stand.event(response.headers["x-request-id"])
    assert (event.deployment, event.attempts) == ("other", 1), "it was counted, not tried"
    assert event.prompt_tokens > 8192
    short = stand.post({"max_tokens": 20})
    assert stand.event(short.headers["x-request-id"]).deployment == "tiny"


def test_a_wish_for_more_than_the_context_goes_where_there_is_room(
    stand: Stand, other: Deployment, other_vllm: Simulator
) -> None:
    other_vllm.knobs(max_model_len=32_768)
    change(stand, context_fallback=other)
    wish = {"max_tokens": 10_000}
    await_change(stand, lambda: stand.post(wish).status_code == 200)
    assert stand.event(stand.post(wish).headers["x-request-id"]).deployment == "other"


def test_a_canary_gets_its_share_and_loses_no_call(stand: Stand, other: Deployment, other_vllm: Simulator) -> None:
    alias(stand, canary=other, canary_percent=50)

    def served(count: int) -> Counter[str | None]:
        ids = [stand.post({"max_tokens": 2}).headers["x-request-id"] for _ in range(count)]
        return Counter(stand.event(request_id).deployment for request_id in ids)

    stand.until(lambda: len(served(5)) == 2, "the canary gets nothing")
    other_vllm.knobs(status=502)
    responses = [stand.post({"max_tokens": 2}) for _ in range(20)]
    assert {response.status_code for response in responses} == {200}
    assert {stand.event(response.headers["x-request-id"]).deployment for response in responses} == {"tiny"}


def test_an_alias_changes_its_deployment_with_no_call_lost(stand: Stand, other: Deployment) -> None:
    stand.vllm.knobs(tokens_per_s=50)
    responses = [stand.post({"stream": True, "max_tokens": 60, "ignore_eos": True}, stream=True)]
    alias(stand, deployment=other)
    seen: set[str | None] = set()
    while seen != {"other"}:
        response = stand.post({"max_tokens": 2})
        assert response.status_code == 200
        seen = {stand.event(response.headers["x-request-id"]).deployment}
    assert responses[0].content.endswith(b"data: [DONE]\n\n")


def test_the_first_token_time_out_of_a_deployment_moves_on(stand: Stand, other: Deployment) -> None:
    change(stand, fallback=other, first_token_max_s=0.5)
    stand.vllm.knobs(first_token_ms=3_000)

    def deployment() -> str | None:
        return stand.event(stand.post({"stream": True, "max_tokens": 2}).headers["x-request-id"]).deployment

    stand.until(lambda: deployment() == "other", "nothing moves on")


def test_comments_are_no_answer_another_backend_may_still_give_it(stand: Stand, other: Deployment) -> None:
    change(stand, fallback=other, first_token_max_s=2.0)
    stand.vllm.knobs(first_token_ms=4_000)
    body, impatient = {"stream": True, "max_tokens": 5}, {"x-stainless-read-timeout": "0.6"}

    def deployment() -> str | None:
        response = stand.post(body, headers=impatient)
        assert response.status_code == 200
        assert response.content.startswith(b": keep-alive")
        assert response.content.endswith(b"data: [DONE]\n\n")
        return stand.event(response.headers["x-request-id"]).deployment

    stand.until(lambda: deployment() == "other", "nobody takes over")


def test_a_client_that_says_how_long_it_waits_is_answered_in_time(stand: Stand) -> None:
    began_s = time.monotonic()
    response = stand.post(SILENT, headers={"x-stainless-read-timeout": "1.0"})
    assert (response.status_code, response.json()["error"]["code"]) == (504, "upstream_timeout")
    assert time.monotonic() - began_s < 15
    assert stand.event(response.headers["x-request-id"]).outcome == "timeout"
    stand.until(lambda: stand.running() == 0, "the generation goes on")


def test_a_stream_is_kept_alive_as_its_client_needs_it(stand: Stand) -> None:
    body = {"stream": True, "messages": [{"role": "user", "content": "[[sim first_token_ms=2500 tokens=2]] Hello"}]}
    response = stand.post(body, headers={"x-stainless-read-timeout": "1.0"})
    assert response.status_code == 200
    assert response.content.count(b": keep-alive") >= 2
    assert response.content.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("text", ["", "none", "-1", "0", "1e3", "nan", "9" * 40])
def test_what_is_no_time_is_no_reason_to_refuse(stand: Stand, text: str) -> None:
    assert stand.post({"max_tokens": 2}, headers={"x-stainless-read-timeout": text}).status_code == 200


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
@pytest.mark.parametrize("lie", ["null", "negative", "missing"])
def test_an_answer_of_wrong_usage_is_delivered_estimated_and_told_apart(stand: Stand, lie: str, stream: bool) -> None:
    stand.vllm.knobs(usage_lies=lie)
    response = stand.post({"stream": stream})
    assert response.status_code == 200
    event = stand.event(response.headers["x-request-id"])
    assert (event.outcome, event.error_code, event.usage_source) == ("completed", "upstream_wrong_usage", "estimated")


def test_how_each_try_ended_is_counted(stand: Stand) -> None:
    def counted(result: str) -> float:
        text = stand.get("/metrics").text
        sample = f'sekisho_upstream_attempts_total{{backend="gpu-1",result="{result}"}} '
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(sample))

    before = {result: counted(result) for result in ("completed", "status_5xx", "aborted")}
    stand.post({"max_tokens": 2})
    stand.vllm.knobs(status=502)
    stand.post()
    stand.vllm.reset()
    stand.vllm.knobs(abort_after=3, tokens_per_s=50)
    stand.until(lambda: stand.post({"stream": True}).status_code == 200, "it takes no calls")
    stand.until(lambda: all(counted(result) > count for result, count in before.items()), "a try is not counted")


def test_answers_say_how_long_the_call_waited_for_a_place(stand: Stand) -> None:
    for body in ({}, {"stream": True}):
        response = stand.post(body)
        assert int(response.headers["x-gateway-queue-ms"]) == 0
    created = stand.post().json()["created"]
    assert abs(created - time.time()) < 60


def test_a_clients_clock_is_ours(stand: Stand) -> None:
    stand.vllm.knobs(clock_skew_s=86_400)
    assert abs(stand.post().json()["created"] - time.time()) < 60
    first = stand.post({"stream": True}).content.partition(b"\n\n")[0]
    assert abs(json.loads(first.removeprefix(b"data: "))["created"] - time.time()) < 60
