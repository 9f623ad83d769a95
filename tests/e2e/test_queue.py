"""Above a ceiling calls wait their turn, tenants in turn; over two workers, on the road that clients take."""

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import uuid4

import pytest
import requests
from django.core.management import call_command
from django.db import connections

from accounts.models import Tenant
from gateway.models import Backend, ModelAlias, PoolMember
from tests.e2e.conftest import CHAT, Stand
from tests.processes import frozen
from tests.simulator import Simulator, simulator

LONG = {"stream": True, "ignore_eos": True, "max_tokens": 5000}
FLOOD = 100
STREAMS_MOST = 40


@contextmanager
def together(most: int) -> Iterator[ThreadPoolExecutor]:
    """So many callers at once; whoever still calls at the end is waited for."""
    with ThreadPoolExecutor(most) as pool:
        yield pool


def cap(stand: Stand, ceiling: int, **terms: Any) -> None:
    """A ceiling of the deployment, in force on each worker: a call says so by having asked Redis for its place."""
    for name, value in {"max_concurrent_calls": ceiling, **terms}.items():
        setattr(stand.deployment, name, value)
    stand.deployment.save()

    def has_asked() -> bool:
        before = stand.store.hget("sekisho:{slots}:tiny:state", "arrivals")
        return stand.post({"max_tokens": 1}).ok and stand.store.hget("sekisho:{slots}:tiny:state", "arrivals") != before

    stand.until(lambda: all(has_asked() for _ in stand.gateway.each_worker()), "the ceiling did not arrive")


def say(stand: Stand, words: str, **options: Any) -> requests.Response:
    """Calls that begin alike go to the same backend: these words decide where."""
    return stand.post({"max_tokens": 1, "messages": [{"role": "user", "content": words}]}, **options)


def waiting(stand: Stand) -> int:
    return int(stand.store.hlen("sekisho:{slots}:tiny:tickets"))


@contextmanager
def full(stand: Stand, ceiling: int) -> Iterator[list[requests.Response]]:
    """Endless streams at every place."""
    stand.vllm.knobs(tokens_per_s=20)
    with ExitStack() as stack:
        streams = [stack.enter_context(stand.post(LONG, stream=True)) for _ in range(ceiling)]
        assert all(stream.ok for stream in streams)
        yield streams


def test_above_the_ceiling_calls_wait_and_say_for_how_long(stand: Stand) -> None:
    cap(stand, 3)
    stand.vllm.knobs(first_token_ms=200)
    running: list[int] = []
    with together(16) as pool:
        calls = [pool.submit(stand.post, {"stream": number % 2 == 0, "max_tokens": 2}) for number in range(15)]
        while not all(call.done() for call in calls):
            running.append(stand.running())
    assert max(running) <= 3
    answers = [call.result() for call in calls]
    assert {answer.status_code for answer in answers} == {200}
    waits = {answer.headers["x-request-id"]: int(answer.headers["x-gateway-queue-ms"]) for answer in answers}
    assert max(waits.values()) >= 200
    assert {request_id: stand.event(request_id).queue_ms for request_id in waits} == waits


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
def test_past_the_bound_a_call_is_told_when_to_come_back(stand: Stand, stream: bool) -> None:
    cap(stand, 2, queue_max_s=0.4)
    with full(stand, 2):
        served = len(stand.vllm.requests())
        answer = stand.post({"stream": stream})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
        assert int(answer.headers["x-gateway-queue-ms"]) >= 400
        assert len(stand.vllm.requests()) == served
        assert waiting(stand) == 0
        event = stand.event(answer.headers["x-request-id"])
        assert (event.error_code, event.usage_source, event.prompt_tokens) == ("overloaded", "none", 0)
    stand.until(lambda: stand.post({"stream": stream}).ok, "the places do not come free")


def test_a_tenant_that_floods_delays_another_by_no_more_than_a_turn(stand: Stand) -> None:
    """100 callers against one, on both workers: each call of the one is among the next that are served."""
    quiet = Tenant.objects.create(slug="quiet", name="Quiet")
    ModelAlias.objects.create(tenant=quiet, name="general", deployment=stand.deployment)
    _, secret = stand.issue(quiet, name="ci")
    cap(stand, 2, queue_max_s=60.0)
    stand.until(lambda: all(stand.post(secret=secret).ok for _ in stand.gateway.each_worker()), "no key")
    stand.vllm.knobs(first_token_ms=300)
    is_over = False

    def flood() -> None:
        while not is_over:
            assert stand.post({"max_tokens": 1}).ok

    passed: list[int] = []
    with together(FLOOD) as pool:
        floods: list[Future[None]] = [pool.submit(flood) for _ in range(FLOOD)]
        try:
            stand.until(lambda: waiting(stand) > FLOOD // 2, "there is no flood")
            for number in range(8):
                before = len(stand.vllm.requests())
                words = f"A quiet word, number {number}"
                assert say(stand, words, secret=secret).ok
                served = [one["body"]["messages"][-1]["content"] for one in stand.vllm.requests()[before:]]
                passed.append(served.index(words))
        finally:
            is_over = True
            stand.vllm.reset()
    for one in floods:
        one.result()
    # Two places, and those that came free while it was on its way, which takes its time on a busy machine.
    assert max(passed) <= FLOOD // 8, "in one line with the flood it would be FLOOD"
    assert sorted(passed)[len(passed) // 2] <= 4


def test_a_client_that_leaves_the_line_never_comes_to_a_backend(stand: Stand) -> None:
    cap(stand, 1, queue_max_s=60.0)
    with full(stand, 1) as (stream,):
        client = stand.gateway.connect()
        body = json.dumps({"model": "general", "messages": [{"role": "user", "content": "I shall be gone"}]}).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {stand.secret}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        stand.until(lambda: waiting(stand) == 1, "it does not wait")
        with together(1) as pool:
            other = pool.submit(stand.post, {"max_tokens": 2})
            stand.until(lambda: waiting(stand) == 2, "the other does not wait")
            client.close()
            stand.until(lambda: waiting(stand) == 1, "it waits on")
            stream.close()
            assert other.result().ok
    seen = [request["body"]["messages"][-1]["content"] for request in stand.vllm.requests()]
    assert "I shall be gone" not in seen
    stand.until(lambda: "client_left" in {event.outcome for event in stand.events_of_acme()}, "it is in no book")


@pytest.fixture
def second(stand: Stand) -> Iterator[Simulator]:
    """Another backend of the same deployment."""
    with simulator() as running:
        backend = Backend.objects.create(name="gpu-2", url=running.url)
        PoolMember.objects.create(deployment=stand.deployment, backend=backend)
        stand.until(lambda: say(stand, str(uuid4())).ok and bool(running.requests()), "it gets no calls")
        yield running


def test_a_backend_is_drained_of_live_calls_and_gets_no_new_ones(stand: Stand, second: Simulator) -> None:
    """The switch an operator uses before an upgrade: the command returns when the last stream has ended in its own time."""
    stand.until(lambda: are_both_asked(stand, second), "one of them gets no calls", seconds=120)
    stand.vllm.knobs(tokens_per_s=30)
    second.knobs(tokens_per_s=30)
    with together(STREAMS_MOST + 1) as pool:
        streams: list[Future[requests.Response]] = []

        def run_at_both() -> bool:
            """Where a stream goes its words decide: more of them, until there are some at either."""
            for number in range(len(streams), min(STREAMS_MOST, len(streams) + 10)):
                body = LONG | {"max_tokens": 180, "messages": [{"role": "user", "content": str(number)}]}
                streams.append(pool.submit(stand.post, body))
            return stand.running() > 0 and second.metrics()["num_requests_running"] > 0

        stand.until(run_at_both, "the streams do not begin")
        drained = pool.submit(drain, "gpu-1")
        stand.until(lambda: Backend.objects.get(name="gpu-1").is_draining, "the switch is not set")
        stand.until(lambda: all(is_passed_over(stand) for _ in range(4)), "it gets calls")
        assert not drained.done() or stand.running() == 0
        drained.result()
        assert stand.running() == 0
    assert all(stream.result().content.endswith(b"data: [DONE]\n\n") for stream in streams)
    call_command("backend", "resume", "gpu-1")
    stand.vllm.reset()
    second.reset()
    stand.until(lambda: are_both_asked(stand, second), "it gets no calls again", seconds=120)


def are_both_asked(stand: Stand, second: Simulator) -> bool:
    """By every worker? One that a worker has found the slower it asks again after some 200 calls elsewhere."""
    for _ in stand.gateway.each_worker():
        before = len(stand.vllm.requests()), len(second.requests())
        for number in range(10):
            assert say(stand, f"{number}").ok
        if before[0] == len(stand.vllm.requests()) or before[1] == len(second.requests()):
            return False
    return True


def drain(backend: str) -> None:
    """In a thread, whose connection would keep the database from being dropped."""
    try:
        call_command("backend", "drain", backend, "--wait")
    finally:
        connections.close_all()


def is_passed_over(stand: Stand) -> bool:
    """By every worker, whatever the calls begin with."""
    before = len(stand.vllm.requests())
    for _ in stand.gateway.each_worker():
        for number in range(10):
            assert say(stand, f"{number}").ok
    return len(stand.vllm.requests()) == before


def test_the_places_of_a_killed_worker_are_not_lost(stand: Stand, fresh_gateway: Any) -> None:
    stand.gateway = fresh_gateway(workers=2)
    cap(stand, 2, queue_max_s=60.0)
    victim, other = stand.gateway.workers()
    with frozen(other):
        streams = [stand.post(LONG, stream=True) for _ in range(2)]
    os.kill(victim, signal.SIGKILL)
    answer = stand.post({"max_tokens": 2})
    assert answer.ok
    assert int(answer.headers["x-gateway-queue-ms"]) <= 31_000, "a lease"
    for stream in streams:
        stream.close()
