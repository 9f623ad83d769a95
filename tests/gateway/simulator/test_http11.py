"""Requests are read whole however they are cut, and what is no request is refused."""

import pytest

from gateway.simulator.http11 import ChunkedBody, Malformed, take_head

HEAD = b"POST /v1/models?x=1 HTTP/1.1\r\nHost: a\r\nX-Two:  b \r\nContent-Length: 3\r\n\r\n"
CHUNKS = b"3\r\nabc\r\nA;name=value\r\n0123456789\r\n0\r\ntrailer: x\r\n\r\n"


@pytest.mark.parametrize("cut", range(len(HEAD)))
def test_a_head_cut_anywhere_is_the_same(cut: int) -> None:
    inbox = bytearray(HEAD[:cut])
    assert take_head(inbox) is None
    inbox += HEAD[cut:] + b"abc"
    head = take_head(inbox)
    assert head is not None
    assert (head.method, head.path, head.headers["x-two"], head.length_bytes) == ("POST", "/v1/models", "b", 3)
    assert inbox == b"abc"


@pytest.mark.parametrize("cut", range(len(CHUNKS)))
def test_a_chunked_body_cut_anywhere_is_the_same(cut: int) -> None:
    body, inbox = ChunkedBody(), bytearray(CHUNKS[:cut])
    assert body.take(inbox) is None
    inbox += CHUNKS[cut:] + b"next"
    assert body.take(inbox) == b"abc0123456789"
    assert inbox == b"next"


@pytest.mark.parametrize(
    "text",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    ],
)
def test_what_is_no_request_is_malformed(text: bytes) -> None:
    with pytest.raises(Malformed):
        take_head(bytearray(text))


@pytest.mark.parametrize("text", [b"x\r\n", b"-1\r\n\r\n", b"3\r\nabcd\r\n", b"ffffffffffffffff\r\n"])
def test_a_bad_chunk_is_malformed(text: bytes) -> None:
    with pytest.raises(Malformed):
        ChunkedBody().take(bytearray(text))


def test_an_absolute_target_is_its_path() -> None:
    head = take_head(bytearray(b"GET http://a.example/health HTTP/1.0\r\n\r\n"))
    assert head is not None
    assert (head.path, head.keeps_alive) == ("/health", False)
