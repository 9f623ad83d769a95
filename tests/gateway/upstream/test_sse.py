"""Whatever the reads: the same events, with our names in place of the backend's and everything else as it was."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.exceptions import InvalidRequest
from gateway.upstream import sse
from gateway.upstream.errors import MalformedStream, UpstreamError, UpstreamReported
from gateway.upstream.sse import USUAL_END, EventKind, EventRewriter, EventSplitter
from tests.gateway.upstream.recordings import (
    ALIAS,
    COMPLETION_ID,
    DONE,
    HEAD,
    RECORDED,
    STREAMS,
    content_event,
    event,
    every_stream,
    parsed,
    seen_by_client,
    usage,
)

RUNNING = RECORDED / "chat-stream-usage-continuous.body"

every_wish = pytest.mark.parametrize(("shows_usage", "shows_running_usage"), [(False, False), (True, False), (True, True)])

HOSTILE = [
    '"usage":{"prompt_tokens":1}}',
    '}],"usage":{"prompt_tokens":24}}',
    '\\"system_fingerprint\\":\\"x\\"',
    '"system_fingerprint":"vllm-1"',
    '"finish_reason":"abort"',
    '{"finish_reason": "abort"}',
    "data: [DONE]",
    "data: [DONE]\n\ndata: [DONE]\n\n",
    "\n\n",
    "\\n\\n",
    "\r\n\r\n",
    "\u2028\u2029\u0085\x0b\x0c\x1c",
    '"',
    "\\",
    '","choices":[{"',
    "event: error\ndata: {}",
    '{"error": {"code": 500}}',
    '"model":"tiny","choices":[{',
]


def rewriter(*, shows_usage: bool = False, shows_running_usage: bool = False, created_s: int | None = None) -> EventRewriter:
    return EventRewriter(
        completion_id=COMPLETION_ID,
        alias=ALIAS,
        created_s=created_s,
        shows_usage=shows_usage,
        shows_running_usage=shows_running_usage,
    )


def relayed(reads: list[bytes], **wish: bool) -> bytes:
    """What comes out for these reads, up to an error."""
    splitter, rewrite = EventSplitter(), rewriter(**wish).rewrite
    out = b""
    try:
        for event in (event for read in reads for event in splitter.feed(read)):
            out += rewrite(event)[1]
    except UpstreamError as error:
        return out + type(error).__name__.encode()
    assert not splitter.rest
    return out


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(at)]


def shown(data: bytes) -> Any:
    return json.loads(data.removeprefix(b"data: "))


def test_there_are_recordings() -> None:
    assert len(STREAMS) >= 25


@every_stream
@every_wish
def test_a_client_sees_all_but_what_names_the_backend(path: Path, shows_usage: bool, shows_running_usage: bool) -> None:
    stream = path.read_bytes()
    out = relayed([stream], shows_usage=shows_usage, shows_running_usage=shows_running_usage)
    expected = seen_by_client(stream, shows_usage=shows_usage, shows_running_usage=shows_running_usage)
    assert parsed(out) == expected
    upstream_id = re.search(rb'"id":"([^"]*)"', stream)
    assert upstream_id
    assert upstream_id[1] not in out
    assert b"vllm-" not in out
    assert not re.search(rb'"model":\s*"tiny"', out)


@every_stream
def test_every_cut_in_two_gives_the_same_events(path: Path) -> None:
    stream = path.read_bytes()
    whole = EventSplitter().feed(stream)
    for cut in range(len(stream) + 1):
        splitter = EventSplitter()
        assert splitter.feed(stream[:cut]) + splitter.feed(stream[cut:]) == whole


@every_stream
@every_wish
def test_a_byte_a_read_gives_the_same_bytes(path: Path, shows_usage: bool, shows_running_usage: bool) -> None:
    stream = path.read_bytes()
    wish = {"shows_usage": shows_usage, "shows_running_usage": shows_running_usage}
    assert relayed([stream[at : at + 1] for at in range(len(stream))], **wish) == relayed([stream], **wish)


@settings(max_examples=200, deadline=None)
@given(
    path=st.sampled_from(STREAMS),
    cuts=st.lists(st.integers(0, 20_000), max_size=30),
    line_end=st.sampled_from([b"\n", b"\r\n"]),
    blank_lines=st.integers(1, 3),
)
def test_any_cutting_gives_the_same_bytes(path: Path, cuts: list[int], line_end: bytes, blank_lines: int) -> None:
    stream = path.read_bytes()
    other = stream.replace(b"\n\n", line_end * (1 + blank_lines))
    assert relayed(pieces(other, cuts), shows_usage=True) == relayed([stream], shows_usage=True)


@every_wish
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_passes_unchanged(text: str, shows_usage: bool, shows_running_usage: bool) -> None:
    stream = (
        content_event("", usage=usage(1, 0))
        + content_event(text, usage=usage(1, 1))
        + content_event(text)
        + b"data: [DONE]\n\n"
    )
    out = relayed([stream], shows_usage=shows_usage, shows_running_usage=shows_running_usage)
    contents = [dict(value)["choices"][0] for value in parsed(out)[:-1]]
    assert [dict(dict(choice)["delta"])["content"] for choice in contents] == ["", text, text]
    assert parsed(out)[-1] == DONE
    assert relayed([bytes([byte]) for byte in stream], shows_usage=shows_usage, shows_running_usage=shows_running_usage) == out


@settings(max_examples=200, deadline=None)
@given(
    texts=st.lists(st.text() | st.sampled_from(HOSTILE), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 5000), max_size=8),
)
def test_any_text_passes_unchanged(texts: list[str], cuts: list[int]) -> None:
    stream = b"".join(content_event(text, usage=usage(9, count)) for count, text in enumerate(texts))
    out = relayed(pieces(stream, cuts))
    assert out == relayed([stream])
    assert parsed(out) == seen_by_client(stream, shows_usage=False, shows_running_usage=False)


@every_stream
@pytest.mark.parametrize(
    "rewritten",
    [
        lambda text: json.dumps(json.loads(text)),  # spaces behind : and ,
        lambda text: json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")),
        lambda text: json.dumps(json.loads(text), ensure_ascii=True, indent=1).replace("\n", "\ndata: "),
        lambda text: text + "\nid: 7\nretry: 10\n: a comment",
    ],
    ids=["spaces", "other order", "several data lines", "other fields"],
)
def test_another_form_of_the_same_events_reads_the_same(path: Path, rewritten: Any) -> None:
    values = parsed(path.read_bytes())
    texts = path.read_bytes().decode().split("\n\n")[: len(values)]
    stream = "".join(f"data: {text[6:] if text[6:] == DONE else rewritten(text[6:])}\n\n" for text in texts).encode()
    usual = "".join(f"{text}\n\n" for text in texts).encode()
    for shows_running_usage in (False, True):
        wish = {"shows_usage": True, "shows_running_usage": shows_running_usage}
        assert as_dicts(relayed([stream], **wish)) == as_dicts(relayed([usual], **wish))


def as_dicts(stream: bytes) -> list[Any]:
    return [shown(text) if not text.endswith(DONE.encode()) else DONE for text in stream.split(b"\n\n")[:-1]]


def test_running_events_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *content, last, final, _, _ = RUNNING.read_bytes().split(b"\n\n")
    rewrite = rewriter().rewrite
    assert rewrite(first)[0] is EventKind.CONTENT
    monkeypatch.setattr(sse.orjson, "loads", None)
    assert {rewrite(event)[0] for event in (*content, last)} == {EventKind.CONTENT}
    assert rewrite(final) == (EventKind.USAGE, b"")


ALONE = b'"choices":[],"usage":{"prompt_tokens":1,"total_tokens":3,"completion_tokens":2'


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(ALONE, id="cut short"),
        pytest.param(ALONE + b"}", id="without its end"),
        pytest.param(ALONE + b"}}}", id="with an end too many"),
        pytest.param(ALONE + b'},"error":{"code":500}}', id="an error beside it"),
        pytest.param(ALONE + b"}}\nevent: error", id="an event named error"),
        pytest.param(ALONE + b"}}\nwhat is this", id="a line that is no field"),
        pytest.param(ALONE.replace(b'"choices":[]', b'"choices":{}') + b"}}", id="no list of choices"),
    ],
)
def test_a_final_usage_that_is_none_is_not_taken_for_one(event: bytes) -> None:
    rewrite = rewriter().rewrite
    first = content_event("first").removesuffix(b"\n\n")
    rewrite(first)
    head = first.partition(b'"choices"')[0]
    assert rewrite(head + ALONE + b"}}") == (EventKind.USAGE, b"")
    with pytest.raises((MalformedStream, UpstreamReported)):
        rewrite(head + event)


@every_wish
@pytest.mark.parametrize("text", [*HOSTILE, "a", ""])
@pytest.mark.parametrize("more", [{}, {"usage": usage(1, 1)}])
def test_a_usual_read_is_rewritten_as_its_event_is(
    text: str, more: dict[str, Any], shows_usage: bool, shows_running_usage: bool
) -> None:
    usual = rewriter(shows_usage=shows_usage, shows_running_usage=shows_running_usage)
    read = b"12f\r\n" + content_event(text, **more) + b"\r\n"
    within = 5, len(read) - 4
    assert usual.usual_rest(read, *within) is None, "the head of this stream is not known yet"
    usual.rewrite(content_event("first").removesuffix(b"\n\n"))
    rest = usual.usual_rest(read, *within)
    assert rest is not None
    assert parsed(usual.shown_head + rest + USUAL_END) == seen_by_client(
        content_event(text, **more), shows_usage=shows_usage, shows_running_usage=shows_running_usage
    )


@pytest.mark.parametrize(
    "read",
    [
        content_event("a") + b"\n",
        content_event("a") + content_event("b"),
        content_event("a") + b"\n\n\n\n",
        content_event("a")[:-4] + b"\n\n",
        content_event("a").replace(b"\n", b"\r\n"),
        b"\n" + content_event("a"),
        content_event("a", finish_reason="abort"),
        content_event("a", finish_reason="stop"),
        content_event("a").replace(b'"a"', b'"a\ndata: "'),
        content_event("a").replace(b'"a"', b'"a\\\ndata: "'),
        content_event("a").replace(b"}]}", b'}],"system_fingerprint":"vllm-1"}'),
        content_event("a", usage=usage(1, 1)).replace(b"}}\n", b'},"system_fingerprint":"vllm-1"}\n'),
        content_event("a", usage=usage(1, 1)).replace(b"}}\n", b'}},"system_fingerprint":{"a":1}}\n'),
        content_event("a").replace(b"}]}", b'},{"index":1,"delta":{},"finish_reason":"abort"}]}'),
        b"data: [DONE]\n\n",
        b"",
    ],
)
def test_what_is_not_one_usual_event_alone_is_left_to_the_splitter(read: bytes) -> None:
    usual = rewriter()
    usual.rewrite(content_event("first").removesuffix(b"\n\n"))
    event = read.removesuffix(b"\n\n")
    assert usual.usual_rest(event, 0, len(event)) is None


def test_events_without_running_usage_are_not_parsed_either(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = [content_event(text, **more) for text in ("a", "}]", '"') for more in ({}, {"finish_reason": "stop"})]
    expected = [json.loads(one.removeprefix(b"data: ")) | {"id": COMPLETION_ID, "model": ALIAS} for one in stream]
    monkeypatch.setattr(sse, "_chat_event", pytest.fail)
    rewrite = rewriter().rewrite
    shown = [rewrite(one.removesuffix(b"\n\n")) for one in stream]
    assert [kind for kind, _ in shown] == [EventKind.CONTENT] * len(stream)
    assert [json.loads(one.removeprefix(b"data: ")) for _, one in shown] == expected


@pytest.mark.parametrize(
    "behind",
    [
        b',"system_fingerprint":"vllm-1","more":[{"a":1}]}',
        b',"more":[{"a":1}],"system_fingerprint":"vllm-1"}',
        b'}\ndata: {"error":[{"a":1}]}',
        b'}\revent: error\rdata: {"error":[{"a":1}]}',
    ],
)
def test_what_stands_behind_the_choices_is_looked_at(behind: bytes) -> None:
    rewrite = rewriter().rewrite
    plain = content_event("a").removesuffix(b"\n\n")
    rewrite(plain)
    try:
        _, shown = rewrite(plain.removesuffix(b"}") + behind)
    except UpstreamError:
        return
    assert b"vllm-1" not in shown
    assert b"error" not in shown


@pytest.mark.parametrize("key", ["system_fingerprint", "kv_transfer_params", "ec_transfer_params"])
@pytest.mark.parametrize("place", ["before usage", "behind usage", "behind choices alone"])
def test_what_names_the_backend_is_hidden_wherever_it_stands(key: str, place: str) -> None:
    choices = [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}]
    secret = {key: {"host": "gpu-1", "usage": {"a": 1}}}
    if place == "behind choices alone":
        value = {**HEAD, "choices": choices, **secret}
    elif place == "before usage":
        value = {**HEAD, "choices": choices, **secret, "usage": usage(1, 1)}
    else:
        value = {**HEAD, "choices": choices, "usage": usage(1, 1), **secret}
    out = relayed([content_event("a", usage=usage(1, 0)) + event(value)])
    assert shown(out.split(b"\n\n")[1]) == {**HEAD, "id": COMPLETION_ID, "model": ALIAS, "choices": choices}


@pytest.mark.parametrize(
    "odd",
    [
        usage(1, 1, completion_tokens_details={"reasoning_tokens": 1}),
        usage(1, 1, note="}],"),
        usage(1, 1, note='}}","x":{'),
        {},
    ],
)
def test_usage_of_any_shape_is_taken_out_whole(odd: dict[str, Any]) -> None:
    stream = content_event("a", usage=usage(1, 0)) + content_event("b", usage=odd, metrics=None) + content_event("c", usage=odd)
    assert ["usage" in value for value in as_dicts(relayed([stream]))] == [False] * 3
    shown_usages = [value["usage"] for value in as_dicts(relayed([stream], shows_running_usage=True))]
    assert shown_usages == [usage(1, 0), odd, odd]


def test_a_usage_of_null_is_absent() -> None:
    out = relayed([event({**HEAD, "choices": [{"index": 0, "delta": {}, "finish_reason": None}], "usage": None})])
    assert "usage" not in shown(out)


def test_created_is_the_backends_unless_given() -> None:
    stream = content_event("a", usage=usage(1, 0)).removesuffix(b"\n\n")
    odd = b"data: " + json.dumps(json.loads(stream[6:])).encode()
    for made in (stream, odd):
        assert shown(rewriter().rewrite(made)[1])["created"] == HEAD["created"]
        assert shown(rewriter(created_s=7).rewrite(made)[1])["created"] == 7


def test_a_backend_that_changes_its_names_midway_is_still_hidden() -> None:
    other = (
        content_event("b", usage=usage(1, 1)).replace(b"chatcmpl-9790d84b5d2f9a0f", b"chatcmpl-other").replace(b"tiny", b"huge")
    )
    out = relayed([content_event("a", usage=usage(1, 0)) + other])
    assert b"other" not in out
    assert b"huge" not in out


@pytest.mark.parametrize(
    "data",
    [
        b'data: {"error":{"message":"secret","code":500}}',
        b'data:{ "error" : "secret" }',
        b'data: {"error":{"code":"400"}}',
        b'event: error\ndata: {"message": "secret"}',
        b"event:error\ndata: secret",
    ],
)
def test_an_error_event_is_no_refusal_of_the_request(data: bytes) -> None:
    with pytest.raises(UpstreamReported) as caught:
        rewriter().rewrite(data)
    assert caught.value.refusal is None
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("token_id(s) [402] in logit_bias contain out-of-vocab token ids. secret", "logit_bias"),
        ("secret", None),
    ],
)
def test_an_error_event_of_400_refuses_the_request_in_our_words(message: str, param: str | None) -> None:
    data = b'data: {"error": {"message": "%b", "type": "BadRequestError", "param": null, "code": 400}}' % message.encode()
    with pytest.raises(UpstreamReported) as caught:
        rewriter().rewrite(data)
    refusal = caught.value.refusal
    assert isinstance(refusal, InvalidRequest)
    assert refusal.param == param
    assert "secret" not in f"{caught.value} {refusal} {refusal.details}"


@pytest.mark.parametrize(
    "data",
    [
        b"data: ",
        b"data: {",
        b"data: 5",
        b"data: []",
        b"data: null",
        b"data: {}",
        b"data: \xff",
        b"data: [done]",
        b'data: {"choices":1}',
        b'data: {"choices":[1]}',
    ],
)
def test_what_is_no_chat_event_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedStream):
        rewriter().rewrite(data)


@pytest.mark.parametrize("data", [b"", b": ping", b"\n", b"\r\n\r\n", b"event: message", b"id: 1\nretry: 5"])
def test_what_carries_no_data_is_nothing(data: bytes) -> None:
    assert rewriter().rewrite(data) == (EventKind.NOTHING, b"")


def test_an_aborted_generation_is_told_apart() -> None:
    rewrite = rewriter().rewrite
    assert rewrite(content_event("a", usage=usage(1, 0)).strip())[0] is EventKind.CONTENT
    assert rewrite(content_event("b", usage=usage(1, 1), finish_reason="abort").strip()) == (EventKind.ABORTED, b"")
    spaced = json.dumps(json.loads(content_event("b", finish_reason="abort")[6:])).encode()
    assert rewrite(b"data: " + spaced) == (EventKind.ABORTED, b"")


def test_the_end_is_recognised_and_sent_on() -> None:
    assert rewriter().rewrite(b"data: [DONE]") == (EventKind.DONE, b"data: [DONE]\n\n")
    assert rewriter().rewrite(b"data:[DONE]") == (EventKind.DONE, b"data: [DONE]\n\n")


def test_an_unfinished_event_is_left_over() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: [DONE]\n") == []
    assert splitter.rest


def test_an_event_without_end_is_malformed_before_it_fills_the_memory() -> None:
    splitter = EventSplitter()
    half = b"x" * (sse.EVENT_MAX_BYTES // 2)
    assert splitter.feed(half) + splitter.feed(half) == []
    with pytest.raises(MalformedStream):
        splitter.feed(b"x")


def test_a_large_event_passes() -> None:
    stream = content_event("x" * 3_000_000, usage=usage(1, 1))
    out = relayed([stream[at : at + 65_536] for at in range(0, len(stream), 65_536)])
    assert parsed(out) == seen_by_client(stream, shows_usage=False, shows_running_usage=False)
