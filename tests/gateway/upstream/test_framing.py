"""Heads and bodies, cut at every byte; what is not HTTP/1.1 is garbage."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.errors import UpstreamGarbage
from gateway.upstream.framing import (
    HEAD_MAX_BYTES,
    Body,
    ChunkedBody,
    ResponseHead,
    SizedBody,
    UnboundedBody,
    body_of,
    split_head,
)
from tests.gateway.upstream.recordings import every_stream

CHUNKED = b"5\r\nhello\r\n1;ext=1;more\r\n \r\n00000B\r\n\r\n\r\n\r\n data\r\n0\r\ntrailer: 1\r\nother: 2\r\n\r\n"
TEXT = b"hello \r\n\r\n\r\n data"


def fed(body: Body, reads: list[bytes]) -> bytes:
    return b"".join(body.feed(read) for read in reads)


def test_chunks_cut_at_every_byte_give_the_same_text() -> None:
    for cut in range(len(CHUNKED) + 1):
        body = ChunkedBody()
        assert fed(body, [CHUNKED[:cut], CHUNKED[cut:]]) == TEXT
        assert body.is_complete
        assert not body.surplus


def test_chunks_byte_by_byte_are_complete_at_the_last_one() -> None:
    body = ChunkedBody()
    assert fed(body, [CHUNKED[at : at + 1] for at in range(len(CHUNKED) - 1)]) == TEXT
    assert not body.is_complete
    body.feed(CHUNKED[-1:])
    assert body.is_complete


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=10), st.lists(st.integers(0, 600), max_size=10))
def test_any_chunks_in_any_reads_give_their_text(chunks: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(b"%X\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    at = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    body = ChunkedBody()
    assert fed(body, [wire[at[i] : at[i + 1]] for i in range(len(at) - 1)]) == b"".join(chunks)
    assert body.is_complete


@every_stream
def test_recorded_answers_come_out_of_their_framing(path: Path) -> None:
    found = split_head(path.with_suffix(".resp").read_bytes())
    assert found is not None
    head, rest = found
    assert head.status == 200
    assert head.headers["content-type"].startswith("text/event-stream")
    body = body_of(head)
    assert body.feed(rest) == path.read_bytes()
    assert body.is_complete


@pytest.mark.parametrize(
    "wire",
    [
        b"\r\n",
        b"g\r\n",
        b"0x5\r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"-5\r\nhello\r\n",
        b"5_0\r\n",
        b" 5\r\nhello\r\n",
        b"5\r\nhello!\r\n",
        b"5\r\nhello\n\n",
        b"5\r\nhello\r0",
        b"f" * 17 + b"\r\n",
        b";ext\r\n",
        b"1" * 9000,
        b"0\r\n" + b"x: y\r\n" * 20_000,
    ],
)
def test_a_chunk_that_is_none_is_garbage_whatever_the_reads(wire: bytes) -> None:
    with pytest.raises(UpstreamGarbage):
        ChunkedBody().feed(wire)
    with pytest.raises(UpstreamGarbage):
        fed(ChunkedBody(), [wire[at : at + 1] for at in range(len(wire))])


def test_bytes_behind_the_end_are_surplus() -> None:
    chunked, sized = ChunkedBody(), SizedBody(2)
    assert chunked.feed(b"0\r\n\r\nHTTP") == b""
    assert sized.feed(b"okHTTP") == b"ok"
    assert chunked.surplus
    assert sized.surplus


def test_a_sized_body_is_as_long_as_it_says() -> None:
    body = SizedBody(5)
    assert body.feed(b"hel") == b"hel"
    assert not body.is_complete
    assert body.feed(b"lo") == b"lo"
    assert body.is_complete


def head(text: bytes) -> ResponseHead:
    found = split_head(text.replace(b"\n", b"\r\n") + b"\r\n\r\nrest")
    assert found is not None
    assert found[1] == b"rest"
    return found[0]


def test_a_head_is_read() -> None:
    found = head(b"HTTP/1.1 503 Service Unavailable\nServer: x\nVARY:  a \nvary: b\nempty:")
    assert found == ResponseHead(503, {"server": "x", "vary": "a, b", "empty": ""})
    assert head(b"HTTP/1.1 200").status == 200
    assert head(b"HTTP/1.0 204 ").is_http_1_0


def test_a_head_cut_at_every_byte_is_not_there_yet() -> None:
    text = b"HTTP/1.1 200 OK\r\na: b\r\n\r\n"
    for cut in range(1, len(text)):
        assert split_head(text[:cut]) is None


@pytest.mark.parametrize(
    "text",
    [
        b"SSH-2.0-OpenSSH",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 600 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 \xb2\xb2\xb2 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: b\r\n\r\n",
        b"<html>",
        b"HTTP/1.1 200 OK\r\na: " + b"b" * HEAD_MAX_BYTES,
        b"HTTP/1.1 200 OK\r\na: " + b"b" * HEAD_MAX_BYTES + b"\r\n\r\n",
    ],
)
def test_a_head_that_is_none_is_garbage(text: bytes) -> None:
    with pytest.raises(UpstreamGarbage):
        split_head(text)


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"transfer-encoding": "Chunked", "content-length": "5"}, ChunkedBody),
        ({"content-length": "5"}, SizedBody),
        ({"content-length": "5, 5"}, SizedBody),
        ({}, UnboundedBody),
    ],
)
def test_the_framing_follows_the_head(headers: dict[str, str], kind: type) -> None:
    assert type(body_of(ResponseHead(200, headers))) is kind


@pytest.mark.parametrize(
    "headers",
    [
        {"content-length": "5, 6"},
        {"content-length": "-5"},
        {"content-length": "+5"},
        {"content-length": "0x5"},
        {"content-length": ""},
        {"content-length": "٥"},
        {"content-length": "9" * 19},
        {"transfer-encoding": "gzip, chunked"},
        {"transfer-encoding": "identity"},
    ],
)
def test_a_framing_in_doubt_is_garbage(headers: dict[str, str]) -> None:
    with pytest.raises(UpstreamGarbage):
        body_of(ResponseHead(200, headers))


def test_an_answer_without_body_is_complete_at_once() -> None:
    assert body_of(ResponseHead(204, {})).is_complete
    assert body_of(ResponseHead(200, {"content-length": "0"})).is_complete


@pytest.mark.parametrize(
    ("is_http_1_0", "connection", "keeps"),
    [(False, None, True), (False, "close", False), (False, "Close", False), (True, None, False), (True, "Keep-Alive", True)],
)
def test_a_connection_is_kept_as_the_head_says(is_http_1_0: bool, connection: str | None, keeps: bool) -> None:
    headers = {"connection": connection} if connection else {}
    assert ResponseHead(200, headers, is_http_1_0=is_http_1_0).keeps_alive is keeps
