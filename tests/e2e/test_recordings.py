"""Every recorded answer of real vLLM, through the whole gateway: clients get it whole, with nothing that names the backend."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.models import Backend, Deployment, ModelAlias, PoolMember
from tests.e2e.conftest import Stand
from tests.scripted import ScriptedBackend, scripted_backend

RECORDED = Path(__file__).parent.parent / "recorded"
FILES = sorted(p for folder in (RECORDED, RECORDED / "flags") for p in folder.glob("*.resp"))
HIDDEN = ("system_fingerprint", "kv_transfer_params", "ec_transfer_params")


def status_of(path: Path) -> int:
    return int(path.read_bytes().split(b" ", 2)[1])


def is_stream(path: Path) -> bool:
    return b"text/event-stream" in path.read_bytes().split(b"\r\n\r\n", 1)[0]


def is_chat(path: Path) -> bool:
    return b'"object":"chat.completion' in path.read_bytes()


ANSWERS = [p for p in FILES if status_of(p) == 200 and is_chat(p) and not is_stream(p)]
STREAMS = [p for p in FILES if status_of(p) == 200 and is_chat(p) and is_stream(p)]
REFUSALS = [p for p in FILES if status_of(p) == 400]


@pytest.fixture
def replay(stand: Stand) -> Iterator[tuple[Stand, ScriptedBackend]]:
    with scripted_backend() as backend:
        deployment = Deployment.objects.create(name="replay", served_model="tiny")
        row = Backend.objects.create(name="recorded", url=backend.url)
        PoolMember.objects.create(deployment=deployment, backend=row)
        ModelAlias.objects.create(tenant=stand.acme, name="replayed", deployment=deployment)
        stand.until(
            lambda: all(stand.get("/v1/models/replayed").ok for _ in stand.gateway.each_worker()), "the alias did not arrive"
        )
        yield stand, backend


def without_what_is_hidden(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in (*HIDDEN, "id", "model", "created")}


def test_there_are_recordings() -> None:
    assert len(ANSWERS) > 40
    assert len(STREAMS) > 20
    assert len(REFUSALS) > 30


def test_plain_answers(replay: tuple[Stand, ScriptedBackend]) -> None:
    stand, backend = replay
    for path in ANSWERS:
        backend.reply = path.read_bytes()
        recorded = json.loads(backend.reply.split(b"\r\n\r\n", 1)[1])
        response = stand.post({"model": "replayed"})
        assert response.status_code == 200, path.name
        assert without_what_is_hidden(response.json()) == without_what_is_hidden(recorded), path.name
        assert list(without_what_is_hidden(response.json())) == list(without_what_is_hidden(recorded)), path.name
        assert response.json()["model"] == "replayed"
        assert abs(response.json()["created"] - time.time()) < 60
        assert response.json()["id"] == f"chatcmpl-{response.headers['x-request-id']}"
        assert recorded["id"] not in response.text
        event = stand.event(response.headers["x-request-id"])
        assert (event.prompt_tokens, event.completion_tokens) == (
            recorded["usage"]["prompt_tokens"],
            recorded["usage"]["completion_tokens"],
        ), path.name


def events_of(stream: bytes) -> list[dict[str, Any]]:
    parts = [part.removeprefix(b"data: ") for part in stream.split(b"\n\n") if part.strip()]
    return [json.loads(part) for part in parts if part != b"[DONE]"]


def unchunked(path: Path) -> bytes:
    return path.with_suffix(".body").read_bytes()


@pytest.mark.parametrize("shows_usage", [False, True])
def test_streams(replay: tuple[Stand, ScriptedBackend], shows_usage: bool) -> None:
    stand, backend = replay
    for path in STREAMS:
        backend.reply = path.read_bytes()
        recorded = events_of(unchunked(path))
        if any("error" in event for event in recorded):
            continue
        options = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}} if shows_usage else {}
        response = stand.post({"model": "replayed", "stream": True} | options)
        expected = [without_what_is_hidden(event) for event in recorded]
        if not shows_usage:
            expected = [{k: v for k, v in event.items() if k != "usage"} for event in expected if event["choices"]]
        got = events_of(response.content)
        assert [without_what_is_hidden(event) for event in got] == expected, path.name
        assert {event["model"] for event in got} == {"replayed"}
        assert all(abs(event["created"] - time.time()) < 60 for event in got)
        assert {event["id"] for event in got} == {f"chatcmpl-{response.headers['x-request-id']}"}
        assert response.content.endswith(b"data: [DONE]\n\n")
        assert recorded[0]["id"].encode() not in response.content
        assert b"vllm-0" not in response.content
        assert b'"tiny"' not in response.content


def test_a_stream_that_holds_an_error_event(replay: tuple[Stand, ScriptedBackend]) -> None:
    stand, backend = replay
    path = RECORDED / "chat-echo-stream.resp"
    backend.reply = path.read_bytes()
    response = stand.post({"model": "replayed", "stream": True})
    assert b"pydantic" not in response.content
    assert b"[DONE]" not in response.content
    assert "error" in (events_of(response.content)[-1] if response.status_code == 200 else response.json())


def test_refusals(replay: tuple[Stand, ScriptedBackend]) -> None:
    stand, backend = replay
    for path in REFUSALS:
        backend.reply = path.read_bytes()
        for stream in (False, True):
            response = stand.post({"model": "replayed", "stream": stream})
            assert response.status_code == 400, path.name
            error = response.json()["error"]
            assert error["code"] in ("invalid_request", "context_length_exceeded")
            assert "tiny" not in response.text
            assert "pydantic" not in response.text
