"""How a backend can end an answer, and what the client, the journal and the backend itself see of it."""

import json
import socket
import time
from typing import Any

import pytest

from gateway.models import Backend, PoolMember
from tests.e2e.conftest import CHAT, Stand, on_both_loops

pytestmark = on_both_loops


def raw_stream(stand: Stand, body: dict[str, Any]) -> socket.socket:
    """A client that has sent its request and reads as it likes."""
    whole = {"model": "general", "stream": True, "messages": [{"role": "user", "content": "Hello"}]} | body
    payload = json.dumps(whole).encode()
    client = stand.gateway.connect()
    client.sendall(
        f"POST {CHAT} HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {stand.secret}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n".encode()
        + payload
    )
    return client


def read_events(client: socket.socket, count: int) -> bytes:
    received = b""
    while received.count(b"data: {") < count:
        data = client.recv(65536)
        assert data
        received += data
    return received


def request_id(head: bytes) -> str:
    (line,) = (line for line in head.split(b"\r\n") if line.lower().startswith(b"x-request-id: "))
    return line.split(b": ")[1].decode()


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("way", ["close", "reset", "half-close"])
def test_a_client_that_leaves_a_stream_ends_it_upstream_and_is_metered_so_far(stand: Stand, count: int, way: str) -> None:
    stand.vllm.knobs(tokens_per_s=20)
    client = raw_stream(stand, {"max_tokens": 2000, "ignore_eos": True})
    received = read_events(client, count)
    if way == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    if way == "half-close":
        client.shutdown(socket.SHUT_WR)
    else:
        client.close()
    left = time.monotonic()
    stand.until(lambda: stand.running() == 0, "the generation goes on")
    print(f"the backend was free {(time.monotonic() - left) * 1000:.0f} ms after the client left")
    event = stand.event(request_id(received))
    assert (event.outcome, event.usage_source, event.stream) == ("client_left", "backend", True)
    generated = stand.vllm.requests()[-1]["completion_tokens"]
    assert count - 1 <= event.completion_tokens == generated
    client.close()


@pytest.mark.parametrize("way", ["close", "half-close"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_before_the_first_byte_ends_the_call(stand: Stand, stream: bool, way: str) -> None:
    stand.vllm.knobs(first_token_ms=30_000)
    before = len(stand.events_of_acme())
    client = raw_stream(stand, {"stream": stream, "max_tokens": 100})
    stand.until(lambda: stand.running() == 1, "the call did not arrive")
    if way == "half-close":
        client.shutdown(socket.SHUT_WR)
        assert client.recv(65536) == b"", "nobody is told anything"
    client.close()
    stand.until(lambda: stand.running() == 0, "the generation goes on")
    stand.until(lambda: len(stand.events_of_acme()) == before + 1, "no usage event")
    event = stand.events_of_acme()[-1]
    assert (event.outcome, event.status) == ("client_left", 499)
    if stream:
        assert (event.completion_tokens, event.usage_source in ("none", "estimated")) == (0, True)
    else:  # the pace of earlier calls tells what it had probably generated
        assert (event.completion_tokens <= 100, event.usage_source) == (True, "estimated")
    stand.until(lambda: any(event.request_id in line for line in stand.gateway.lines()), "it has no line in the log")
    assert not any("unexpected" in line for line in stand.gateway.lines())


def test_a_client_that_leaves_a_pipelined_request_behind_is_seen_to_leave(stand: Stand) -> None:
    stand.vllm.knobs(tokens_per_s=20)
    client = raw_stream(stand, {"max_tokens": 2000, "ignore_eos": True})
    read_events(client, 2)
    client.sendall(b"GET /v1/models HTTP/1.1\r\nHost: gateway.test\r\n\r\n")
    time.sleep(0.1)
    client.close()
    stand.until(lambda: stand.running() == 0, "the generation goes on")


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "cut": ({"cut_after": 3}, "upstream_cut"),
    "reset": ({"reset_after": 3}, "upstream_cut"),
    "reset in a chunk": ({"half_event_after": 3, "half_event_end": "reset"}, "upstream_cut"),
    "half an event": ({"half_event_after": 3}, "upstream_cut"),
    "an error event": ({"error_event_after": 3, "tokens_per_s": 20}, "upstream_error_event"),  # slow: others are out by then
    "stopped by SIGTERM": ({"abort_after": 3, "tokens_per_s": 20}, "upstream_aborted"),
    "no [DONE]": ({"no_done": True, "tokens": 4}, "upstream_cut"),
}


@pytest.mark.parametrize(("knobs", "recorded"), BROKEN.values(), ids=BROKEN.keys())
def test_a_stream_that_breaks_ends_with_one_error_event_and_no_done(stand: Stand, knobs: dict[str, Any], recorded: str) -> None:
    stand.vllm.knobs(**knobs)
    response = stand.post({"stream": True})
    assert response.status_code == 200
    *chunks, last = [event for event in response.content.split(b"\n\n") if event]
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert (error["type"], error["code"]) == ("upstream_unavailable", "upstream_unavailable")
    assert error["message"] == "The requested model alias 'general' is temporarily unavailable."
    assert b"[DONE]" not in response.content
    assert all(b'"error"' not in chunk for chunk in chunks)
    event = stand.event(response.headers["x-request-id"])
    assert (event.outcome, event.error_code) == ("failed", recorded)
    assert event.completion_tokens >= 1


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
@pytest.mark.parametrize(
    ("knobs", "status", "code", "recorded"),
    [
        ({"fail_rate": 1, "status": 500}, 502, "upstream_unavailable", "upstream_engine_dead"),
        ({"fail_rate": 1, "status": 502}, 502, "upstream_unavailable", "upstream_status_5xx"),
        ({"fail_rate": 1, "status": 503}, 503, "overloaded", "overloaded"),
        ({"fail_rate": 1, "status": 429}, 503, "overloaded", "overloaded"),
        ({"fail_rate": 1, "status": 404}, 502, "upstream_unavailable", "upstream_status_other"),
        ({"fail_rate": 1, "status": 401}, 502, "upstream_unavailable", "upstream_status_other"),
        ({"html": True, "status": 500}, 502, "upstream_unavailable", "upstream_status_5xx"),
        ({"garbage": True}, 502, "upstream_unavailable", "upstream_garbage"),
        ({"error_body_200": True}, 502, "upstream_unavailable", "upstream_error_body"),
        ({"cut_after": 0}, 502, "upstream_unavailable", "upstream_cut"),
        ({"redirect": "http://127.0.0.1:9/elsewhere"}, 502, "upstream_unavailable", "upstream_status_other"),
    ],
)  # fmt: skip
def test_a_failure_before_the_first_byte_is_a_status(
    stand: Stand, stream: bool, knobs: dict[str, Any], status: int, code: str, recorded: str
) -> None:
    stand.vllm.knobs(**knobs)
    response = stand.post({"stream": stream})
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert ("retry-after" in response.headers) is (status == 503)
    event = stand.event(response.headers["x-request-id"])
    assert (event.status, event.error_code, event.completion_tokens) == (status, recorded, 0)


def test_a_backend_that_says_nothing_is_a_504(stand: Stand, fresh_gateway: Any) -> None:
    stand.gateway = fresh_gateway(SEKISHO_CALL_MAX_S="1")
    stand.until(lambda: stand.get("/v1/models").status_code == 200, "not configured")
    stand.vllm.knobs(hang=True)
    for stream in (False, True):
        response = stand.post({"stream": stream})
        assert (response.status_code, response.json()["error"]["code"]) == (504, "upstream_timeout")


def test_a_call_that_takes_too_long_in_all_ends_with_an_error_event(stand: Stand, fresh_gateway: Any) -> None:
    stand.gateway = fresh_gateway(SEKISHO_CALL_MAX_S="1")
    stand.until(lambda: stand.get("/v1/models").status_code == 200, "not configured")
    stand.vllm.knobs(tokens_per_s=10)
    response = stand.post({"stream": True, "max_tokens": 1000, "ignore_eos": True})
    last = response.content.rstrip().split(b"\n\n")[-1]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "upstream_timeout"
    assert stand.event(response.headers["x-request-id"]).outcome == "timeout"
    stand.until(lambda: stand.running() == 0, "the generation goes on")


def test_another_backend_answers_when_one_refuses(stand: Stand) -> None:
    dead = Backend.objects.create(name="gpu-dead", url="http://127.0.0.1:9")
    PoolMember.objects.create(deployment=stand.deployment, backend=dead, weight=1000)
    stand.until(lambda: stand.event(stand.post().headers["x-request-id"]).attempts == 2, "the dead backend is never tried")
    responses = [stand.post({"stream": stream}) for stream in (True, False) for _ in range(5)]
    assert {response.status_code for response in responses} == {200}


def test_all_backends_down_is_a_502(stand: Stand) -> None:
    Backend.objects.filter(name="gpu-1").get()
    backend = Backend.objects.get(name="gpu-1")
    backend.url = "http://127.0.0.1:9"
    backend.save()
    stand.until(lambda: stand.post().status_code == 502, "the change did not arrive")
    assert stand.post().json()["error"]["message"] == "The requested model alias 'general' is temporarily unavailable."


def test_a_prompt_that_does_not_fit_is_told_in_our_words(stand: Stand) -> None:
    response = stand.post({"messages": [{"role": "user", "content": "word " * 40_000}]})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")
    assert "8192" in error["message"]
    assert "tiny" not in response.text


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
@pytest.mark.parametrize(
    "knobs",
    [
        {}, {"fail_rate": 1, "status": 500}, {"fail_rate": 1, "status": 400}, {"fail_rate": 1, "status": 404},
        {"fail_rate": 1, "status": 503}, {"html": True, "status": 500}, {"error_event_after": 2}, {"error_event_after": 0},
        {"error_body_200": True}, {"redirect": "http://127.0.0.1:9/elsewhere"}, {"garbage": True},
    ],
)  # fmt: skip
def test_nothing_that_names_the_backend_reaches_the_client(stand: Stand, stream: bool, knobs: dict[str, Any]) -> None:
    stand.vllm.knobs(canary="canary-7f3a", **knobs)
    response = stand.post({"stream": stream})
    seen = response.text + json.dumps(dict(response.headers))
    assert "canary" not in seen.lower()
    assert "vllm-" not in seen
    assert stand.vllm.url.removeprefix("http://") not in seen
    assert "uvicorn" not in seen
