"""One connection to a backend: what came is handed out at once, what is cut, late or garbage is told apart."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from gateway.upstream import connection as connection_module
from gateway.upstream.connection import Connection
from gateway.upstream.errors import UpstreamAborted, UpstreamCut, UpstreamGarbage, UpstreamRefused, UpstreamSilence
from tests.gateway.upstream.scripted import LAST_CHUNK, PATIENCE_S, STREAM_HEAD, at_the_same_time, chunk, nobody_listens, sized

SOON_S = 0.02  # to wait for what never comes


@pytest.fixture
def ends() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection, and the backend's end of it."""
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    with contextlib.closing(theirs), contextlib.closing(connection):
        yield connection, theirs


Ends = tuple[Connection, socket.socket]


def deadline() -> float:
    return time.monotonic() + PATIENCE_S


def read_body(connection: Connection) -> bytes:
    parts = []
    while part := connection.read_some(deadline()):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize(
    "answer",
    [
        sized(b"hello"),
        STREAM_HEAD + chunk(b"he") + chunk(b"llo") + LAST_CHUNK,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + sized(b"hello"),
    ],
    ids=["sized", "chunked", "interim"],
)
def test_an_answer_cut_at_every_byte_reads_the_same(ends: Ends, answer: bytes) -> None:
    connection, backend = ends
    for cut in range(1, len(answer)):
        connection.send(b"x", deadline())
        assert backend.recv(9) == b"x"
        backend.sendall(answer[:cut])
        later = threading.Timer(0.0005, backend.sendall, [answer[cut:]])
        later.start()
        assert connection.read_head(deadline()).status == 200
        assert read_body(connection) == b"hello"
        assert connection.is_reusable
        later.join()


def test_a_request_goes_out_whole(ends: Ends) -> None:
    connection, backend = ends
    request = b"POST / HTTP/1.1\r\n\r\n" + b"x" * 1_000_000
    received: list[bytes] = []

    def read() -> None:
        while sum(map(len, received)) < len(request):
            received.append(backend.recv(65_536))

    reader = threading.Thread(target=read)
    reader.start()
    connection.send(request, deadline())
    reader.join(PATIENCE_S)
    assert b"".join(received) == request


def test_what_is_there_is_handed_out_without_waiting_for_more(ends: Ends) -> None:
    connection, backend = ends
    backend.sendall(STREAM_HEAD + chunk(b"data: 1\n\n") + b"9\r\ndata:")
    connection.read_head(deadline())
    assert connection.read_some(deadline()) == b"data: 1\n\ndata:"
    backend.sendall(b" 2\n\n")
    assert connection.read_some(deadline()) == b" 2\n\n"
    with pytest.raises(UpstreamSilence):
        connection.read_some(time.monotonic() + SOON_S)
    backend.sendall(b"\r\n" + chunk(b"data: 3\n\n"))
    assert connection.read_some(deadline()) == b"data: 3\n\n"
    assert not connection.is_complete


def test_framing_alone_does_not_break_the_silence(ends: Ends) -> None:
    connection, backend = ends
    backend.sendall(STREAM_HEAD)
    connection.read_head(deadline())
    stop = threading.Event()

    def drip() -> None:
        backend.sendall(b"5;")
        while not stop.wait(0.005):
            backend.sendall(b"x")

    dripping = threading.Thread(target=drip)
    dripping.start()
    with pytest.raises(UpstreamSilence):
        connection.read_some(time.monotonic() + 0.1)
    stop.set()
    dripping.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello",
        STREAM_HEAD + b"5\r\nhel",
        STREAM_HEAD + chunk(b"hello"),
        STREAM_HEAD + chunk(b"hello") + b"0\r\n",
    ],
)
def test_an_answer_that_ends_too_early_is_cut(ends: Ends, answer: bytes) -> None:
    connection, backend = ends
    backend.sendall(answer)
    backend.close()
    with pytest.raises(UpstreamCut):  # noqa: PT012 (head or body)
        connection.read_head(deadline())
        read_body(connection)
    assert connection.has_answered is bool(answer)
    assert not connection.is_reusable


def test_a_body_without_length_ends_with_the_connection(ends: Ends) -> None:
    connection, backend = ends
    backend.sendall(b"HTTP/1.1 200 OK\r\n\r\nhello")
    backend.close()
    connection.read_head(deadline())
    assert read_body(connection) == b"hello"
    assert connection.is_complete
    assert not connection.is_reusable


@pytest.mark.parametrize(
    "answer",
    [
        sized(b"hello", headers=b"connection: close\r\n"),
        sized(b"hello") + b"H",
        b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        STREAM_HEAD + chunk(b"hello") + LAST_CHUNK + b"H",
    ],
    ids=["close", "surplus", "1.0", "surplus after chunks"],
)
def test_a_connection_out_of_step_or_closing_is_not_reused(ends: Ends, answer: bytes) -> None:
    connection, backend = ends
    backend.sendall(answer)
    connection.read_head(deadline())
    assert read_body(connection) == b"hello"
    assert not connection.is_reusable


def test_surplus_behind_an_empty_answer_is_noticed(ends: Ends) -> None:
    connection, backend = ends
    backend.sendall(sized(b"") + b"HTTP")
    connection.read_head(deadline())
    assert read_body(connection) == b""
    assert not connection.is_reusable


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0\r\n", b"HTTP/1.1 101 Switching\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000]
)
def test_what_is_no_answer_is_garbage(ends: Ends, answer: bytes) -> None:
    connection, backend = ends
    sending = threading.Thread(target=backend.sendall, args=[answer])
    sending.start()
    with pytest.raises(UpstreamGarbage):
        connection.read_head(deadline())
    connection.close()
    sending.join(PATIENCE_S)


def test_a_head_that_drips_meets_its_deadline(ends: Ends) -> None:
    connection, backend = ends
    stop = threading.Event()

    def drip() -> None:
        backend.sendall(b"HTTP/1.1 200 OK\r\na: ")
        while not stop.wait(0.005):
            backend.sendall(b"b")

    dripping = threading.Thread(target=drip)
    dripping.start()
    with pytest.raises(UpstreamSilence):
        connection.read_head(time.monotonic() + 0.1)
    stop.set()
    dripping.join()


def test_a_backend_that_does_not_read_meets_the_deadline(ends: Ends) -> None:
    connection, _ = ends
    with pytest.raises(UpstreamSilence):
        connection.send(b"x" * 50_000_000, time.monotonic() + 0.1)


def test_no_time_left_is_silence(ends: Ends) -> None:
    connection, _ = ends
    with pytest.raises(UpstreamSilence):
        connection.send(b"x", time.monotonic() - 1)
    with pytest.raises(UpstreamSilence):
        connection.read_head(time.monotonic())


@pytest.mark.parametrize("answer", [b"", STREAM_HEAD], ids=["waiting for the head", "in the stream"])
def test_abort_wakes_a_blocked_reader(ends: Ends, answer: bytes) -> None:
    connection, backend = ends
    backend.sendall(answer)
    if answer:
        connection.read_head(deadline())
    started = time.monotonic()
    threading.Timer(0.05, connection.abort).start()
    with pytest.raises(UpstreamAborted):
        connection.read_some(started + 60) if answer else connection.read_head(started + 60)
    assert time.monotonic() - started < PATIENCE_S
    assert backend.recv(1) == b""


def test_abort_wakes_a_blocked_writer(ends: Ends) -> None:
    connection, _ = ends
    threading.Timer(0.05, connection.abort).start()
    with pytest.raises(UpstreamAborted):
        connection.send(b"x" * 50_000_000, time.monotonic() + 60)


def test_after_an_abort_nothing_more_is_read(ends: Ends) -> None:
    connection, backend = ends
    backend.sendall(sized(b"hello"))
    connection.abort()
    with pytest.raises(UpstreamAborted):
        connection.read_head(deadline())
    connection.close()
    connection.abort()


def test_what_was_on_its_way_at_an_abort_is_still_handed_out(ends: Ends) -> None:
    connection, backend = ends
    backend.sendall(STREAM_HEAD + chunk(b"read"))
    connection.read_head(deadline())
    assert connection.read_some(deadline()) == b"read"
    backend.sendall(chunk(b"unread"))
    connection.abort()
    assert backend.recv(1) == b""
    backend.sendall(chunk(b", late"))
    backend.close()
    assert b"".join(connection.rest()) == b"unread, late"


def test_the_bytes_that_wake_an_aborted_reader_are_still_handed_out(ends: Ends) -> None:
    connection, backend = ends
    backend.sendall(STREAM_HEAD)
    connection.read_head(deadline())

    def abort_and_send() -> None:
        time.sleep(SOON_S)
        connection.abort()
        backend.sendall(chunk(b"late"))
        backend.close()

    with at_the_same_time(abort_and_send), pytest.raises(UpstreamAborted):
        connection.read_some(deadline())
    assert b"".join(connection.rest()) == b"late"


@pytest.mark.parametrize("sends", [True, False])
def test_a_backend_that_does_not_end_its_side_is_left(ends: Ends, monkeypatch: pytest.MonkeyPatch, *, sends: bool) -> None:
    monkeypatch.setattr(connection_module, "REST_MAX_S", SOON_S)
    monkeypatch.setattr(connection_module, "REST_SILENCE_MAX_S", SOON_S)
    connection, backend = ends
    backend.sendall(STREAM_HEAD)
    connection.read_head(deadline())

    def send_for_ever() -> None:
        with contextlib.suppress(OSError):
            while sends:
                backend.sendall(chunk(b"x"))

    with at_the_same_time(send_for_ever):
        assert set(b"".join(connection.rest())) <= set(b"x")
        connection.close()


def test_an_idle_connection_is_stale_once_readable(ends: Ends) -> None:
    connection, backend = ends
    backend.sendall(sized(b""))
    connection.read_head(deadline())
    assert not connection.is_stale()
    backend.sendall(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert connection.is_stale()


def test_an_idle_connection_is_stale_once_closed(ends: Ends) -> None:
    connection, backend = ends
    backend.close()
    assert connection.is_stale()


def test_the_first_segment_of_a_request_is_not_held_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Connection.open("127.0.0.1", listener.getsockname()[1], tls=None, connect_s=PATIENCE_S)
        assert connection._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        connection.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_what_cannot_be_connected_to_refuses(host: str) -> None:
    with nobody_listens() as port, pytest.raises(UpstreamRefused):
        Connection.open(host, port, tls=None, connect_s=PATIENCE_S)


class BusySocket(socket.socket):
    """Its process was busy for so long that the time-out is seen before the connection."""

    def connect(self, address: tuple[str, int]) -> None:  # type: ignore[override]
        with contextlib.suppress(OSError):
            super().connect(address)
        raise TimeoutError


def test_a_connection_that_is_there_is_not_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(connection_module.socket, "socket", BusySocket)
        Connection.open("127.0.0.1", listener.getsockname()[1], tls=None, connect_s=PATIENCE_S).close()


def test_a_connection_that_is_not_there_in_time_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module.socket, "socket", BusySocket)
    with nobody_listens() as port, pytest.raises(UpstreamRefused):
        Connection.open("127.0.0.1", port, tls=None, connect_s=PATIENCE_S)
