"""What was sent to a real vLLM is sent again.

Status, headers, keys, their order and their kinds are the same; errors are the same word for word.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.simulator.wire import Answer, exchange, post
from tests.simulator import Simulator, simulator

RECORDED = Path(__file__).parents[2] / "recorded"
# Not simulated: echo, prompt_logprobs, beam search, two experimental routes.
LEFT_OUT = {
    "chat-echo",
    "chat-echo-stream",
    "chat-prompt-logprobs",
    "chat-batch-route",
    "chat-render",
    "err-beam-search",
    "err-beam-search-stream",
    # Depend on the recorded model's own tokenizer: other texts are too long, other ids are out of its vocabulary, and
    # other texts stop.
    "err-prompt-fills-context",
    "err-prompt-just-over",
    "err-logit-bias-range",
    # What a random model says was steered there by logit_bias, a regex, or was no call at all.
    "chat-natural-stop",
    "chat-natural-stop-stream",
    "tools-auto-call",
    "tools-auto-call-stream",
    "tools-required-not-strict",
    # /v1/completions is not simulated.
    "cached-comp",
    "usage-forced-comp-stream",
}
# vLLM lists the failures of every class of message, and shows a number beyond 64 bits with all its digits.
OTHER_TEXT = {"chat-content-null", "chat-content-number", "err-message-no-role", "priority-huge"}
# The recorded model was cut by max_tokens in its endless text; these answers end before.
OTHER_END = {"tools-required-stream", "tools-required", "tools-required-n2"}


def names(folder: Path) -> list[str]:
    return sorted(p.stem for p in folder.glob("*.req") if p.stem not in LEFT_OUT)


def recorded(path: Path) -> Answer:
    """A recording as the same object that a raw client makes."""
    raw = path.with_suffix(".resp").read_bytes()
    raw = raw.split(b"HTTP/1.1 100 Continue\r\n\r\n", 1)[-1]
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = [(n, v) for n, v in (line.split(": ", 1) for line in lines)]
    chunks = []
    if ("transfer-encoding", "chunked") in headers:
        while body:
            size, _, rest = body.partition(b"\r\n")
            chunks.append(rest[: int(size, 16)])
            body = rest[int(size, 16) + 2 :]
        body = b"".join(chunks)
    return Answer(int(first.split(" ")[1]), headers, body, [c for c in chunks if c])


def shape(value: Any) -> Any:
    """Keys in their order and the kinds of values, without the values."""
    if isinstance(value, dict):
        return tuple((key, shape(item)) for key, item in value.items())
    if isinstance(value, list):
        return ("list", *sorted({repr(shape(item)) for item in value}))
    return type(value).__name__


def event_shapes(answer: Answer) -> list[Any]:
    """The different events in the order in which they first come."""
    return list(dict.fromkeys(shape(event) for event in answer.events))


def said(answer: Answer) -> Iterator[tuple[str, Any]]:
    for choice in (c for e in answer.events if e != "[DONE]" for c in e["choices"]):
        if choice["finish_reason"]:
            yield choice["index"], choice["finish_reason"]


def assert_alike(name: str, ours: Answer, theirs: Answer) -> None:
    assert ours.status == theirs.status, ours.body
    assert ours.names == theirs.names
    assert ours.header("content-type") == theirs.header("content-type")
    if theirs.chunks:
        assert len(ours.chunks) == len(ours.events), "one event, one chunk"
        assert event_shapes(ours) == event_shapes(theirs)
        assert sorted(said(ours)) == sorted(said(theirs)) or name in OTHER_END
    elif theirs.status != 200 and name not in OTHER_TEXT:
        assert ours.body == theirs.body
    elif theirs.body.startswith(b"{"):
        assert shape(ours.json) == shape(theirs.json)
    else:
        assert ours.body == theirs.body


@pytest.fixture(scope="module")
def plain() -> Iterator[Simulator]:
    with simulator("--no-tools", "--max-model-len", "512") as sim:
        yield sim


@pytest.fixture(scope="module")
def flagged() -> Iterator[Simulator]:
    """With the flags of the second recorded server."""
    flags = ["force-include-usage", "prompt-tokens-details", "per-request-metrics", "request-id-headers"]
    options = [f"--enable-{flag}" for flag in flags]
    with simulator(*options, "--max-model-len", "512", "--api-key", "sk-test") as sim:
        yield sim


@pytest.mark.parametrize("name", names(RECORDED))
def test_chat_answers_as_recorded(plain: Simulator, name: str) -> None:
    path = RECORDED / f"{name}.req"
    assert_alike(name, exchange(plain.address, path.read_bytes()), recorded(path))


@pytest.mark.parametrize("name", names(RECORDED / "http"))
def test_http_is_spoken_as_recorded(plain: Simulator, name: str) -> None:
    path = RECORDED / "http" / f"{name}.req"
    theirs = recorded(path)
    ours = exchange(plain.address, path.read_bytes())
    assert_alike(name, ours, theirs)
    assert ours.header("allow") == theirs.header("allow")


@pytest.mark.parametrize("name", names(RECORDED / "flags"))
def test_flags_change_answers_as_recorded(flagged: Simulator, name: str) -> None:
    path = RECORDED / "flags" / f"{name}.req"
    assert_alike(name, exchange(flagged.address, path.read_bytes()), recorded(path))


@pytest.mark.parametrize("name", ["tools-auto-call", "tools-auto-call-stream"])
def test_a_called_tool_looks_as_recorded(flagged: Simulator, name: str) -> None:
    path = RECORDED / "flags" / f"{name}.req"
    body = json.loads(path.read_bytes().partition(b"\r\n\r\n")[2])
    body["messages"][0]["content"] = "call:get_weather"
    ours = exchange(flagged.address, post("/v1/chat/completions", body, "authorization: Bearer sk-test"))
    assert_alike(name, ours, recorded(path))


def test_metrics_have_the_recorded_names(plain: Simulator) -> None:
    """Every sample of the stand-in is one of vLLM's, labels included."""
    ours = exchange(plain.address, b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n")
    theirs = recorded(RECORDED / "http" / "metrics-after.req")
    assert ours.names == theirs.names
    assert ours.header("content-type") == theirs.header("content-type")
    assert samples(ours) <= samples(theirs)


def samples(answer: Answer) -> set[str]:
    return {line.rpartition(" ")[0] for line in answer.body.decode().splitlines() if not line.startswith("#")}
