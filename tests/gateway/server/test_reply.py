"""An answer's items go out whole and in their order, whoever hands them over: the application, or the loop meanwhile."""

import socket
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.socket
import pytest

from gateway.server.reply import Reply
from tests.gateway.upstream.scripted import chunk

LONG_S = 60.0
HEADERS = [("Content-Type", "text/event-stream")]


@pytest.fixture
def ends() -> Iterator[tuple[Any, Any]]:
    """The server's end, with little room for what was not read yet, and the client's."""
    ours, theirs = gevent.socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    yield ours, theirs
    ours.close()
    theirs.close()


def begun(ours: Any) -> Reply:
    reply = Reply(ours)
    reply.start_response("200 OK", HEADERS)
    reply._write(b"first")
    return reply


def received(theirs: Any) -> bytes:
    """The items, without head and framing."""
    with gevent.Timeout(LONG_S):
        data = b"".join(iter(lambda: theirs.recv(65536), b""))
    rest, body = data.partition(b"\r\n\r\n")[2], b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        body += rest[: int(size, 16)]
        assert rest[int(size, 16) :][:2] == b"\r\n"
        rest = rest[int(size, 16) + 2 :]
        if size == b"0":
            assert rest == b""
            return body


def test_an_item_goes_out_between_two_of_the_applications(ends: tuple[Any, Any]) -> None:
    ours, theirs = ends
    reply = begun(ours)
    assert reply.send_on(chunk(b" second"))
    reply.send([b" third"])
    ours.close()
    assert received(theirs) == b"first second third"


def test_what_will_not_go_at_once_follows_before_anything_else(ends: tuple[Any, Any]) -> None:
    ours, theirs = ends
    reply = begun(ours)
    item = b"0123456789" * 20_000
    assert reply.send_on(chunk(item)), "a part of it has gone"
    assert not reply.send_on(chunk(b"too early"))
    ending = gevent.spawn(reply.send, [b"last"])
    gevent.sleep(0.01)
    assert not ending.ready()
    reading = gevent.spawn(received, theirs)
    ending.get(timeout=LONG_S)
    ours.close()
    assert reading.get(timeout=LONG_S) == b"first" + item + b"last"


def test_where_nothing_can_go_nothing_has_gone(ends: tuple[Any, Any]) -> None:
    ours, theirs = ends
    reply = begun(ours)
    sent = b""
    while reply.send_on(chunk(b"x" * 100)) and reply._rest is None:
        sent += b"x" * 100
    if reply._rest is not None:
        sent += b"x" * 100
    ending = gevent.spawn(reply.send, [])
    reading = gevent.spawn(received, theirs)
    ending.get(timeout=LONG_S)
    ours.close()
    assert reading.get(timeout=LONG_S) == b"first" + sent


def test_before_the_head_and_into_a_body_of_known_length_nothing_is_sent_on(ends: tuple[Any, Any]) -> None:
    ours, _ = ends
    reply = Reply(ours)
    assert not reply.send_on(chunk(b"x"))
    reply.start_response("200 OK", [("Content-Length", "2")])
    assert not reply.send_on(chunk(b"x"))
    reply._write(b"ab")
    assert not reply.send_on(chunk(b"x"))


@pytest.mark.parametrize("size", [10, 200_000], ids=["a small item", "one that is too large to go at once"])
def test_a_client_that_has_gone_is_told_to_the_application(ends: tuple[Any, Any], size: int) -> None:
    ours, theirs = ends
    reply = begun(ours)
    reply.send_on(chunk(b"x" * size))
    theirs.close()
    gevent.sleep(0.01)
    assert not reply.send_on(chunk(b"y"))
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        reply.send([b"z"])
