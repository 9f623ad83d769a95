"""The worker's own strictness, in both of its loops: what HTTP it refuses, in which words, and when it ends the connection."""

import json
import socket
from collections.abc import Iterator

import gevent
import gevent.socket
import pytest

from gateway.server.strictness import is_host
from gateway.server.worker import FairSocket
from tests import processes

GET = b"GET /v1/models HTTP/1.1\r\nHost: sekisho.test\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: sekisho.test\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module", params=["true", "false"], ids=["fast loop", "stock loop"])
def running(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[processes.Gateway]:
    with processes.gateway(tmp_path_factory.mktemp("worker"), SEKISHO_FAST_HTTP=request.param) as started:
        yield started


def exchange(running: processes.Gateway, sent: bytes) -> bytes:
    """Everything the server says until it ends the connection, or stays silent for two seconds."""
    with running.connect() as client:
        client.sendall(sent)
        client.settimeout(2)
        received = b""
        try:
            while data := client.recv(65536):
                received += data
        except TimeoutError:
            received += b"[kept open]"
        except ConnectionResetError:
            received += b"[reset]"
    return received


def parse(received: bytes) -> tuple[int, dict[str, str], dict[str, object]]:
    head, _, rest = received.partition(b"\r\n\r\n")
    status_line, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = rest[: int(headers["content-length"])]
    return int(status_line.split()[1]), headers, json.loads(body)


REFUSED = {
    "two authorization headers": GET + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
    "two hosts": GET + b"Host: other.test\r\n\r\n",
    "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "host with a path": b"GET /v1/models HTTP/1.1\r\nHost: a.test/evil\r\n\r\n",
    "host with userinfo": b"GET /v1/models HTTP/1.1\r\nHost: a@b.test\r\n\r\n",
    "host with a space": b"GET /v1/models HTTP/1.1\r\nHost: a b\r\n\r\n",
    "empty host": b"GET /v1/models HTTP/1.1\r\nHost: \r\n\r\n",
    "gzip, chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "identity coding": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "codings in two headers": POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "length and chunked": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "negative length": POST + b"Content-Length: -1\r\n\r\n",
    "length in words": POST + b"Content-Length: two\r\n\r\n{}",
    "absolute target of a foreign host": b"GET http://evil.test/v1/models HTTP/1.1\r\nHost: sekisho.test\r\n\r\n",
    "target without a slash": b"GET v1/models HTTP/1.1\r\nHost: sekisho.test\r\n\r\n",
    "obsolete folding": GET + b"X-A: 1\r\n 2\r\n\r\n",
    "bare line feeds": b"GET /v1/models HTTP/1.1\nHost: sekisho.test\n\n",
    "space before the colon": GET + b"X-A : 1\r\n\r\n",
    "NUL in a header": GET + b"X-A: a\x00b\r\n\r\n",
    "no request": b"garbage\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/3": b"GET /v1/models HTTP/3.0\r\nHost: sekisho.test\r\n\r\n",
    "HTTP/1.2": b"GET /v1/models HTTP/1.2\r\nHost: sekisho.test\r\n\r\n",
    "target with a fragment": b"GET /v1/models#a HTTP/1.1\r\nHost: sekisho.test\r\n\r\n",
    "target with a line end": b"GET /v1/models%0a HTTP/1.1\r\nHost: sekisho.test\r\n\r\n",
    "bad chunk size": POST + b"Authorization: Bearer sk-none\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_plain_http_is_refused_in_json_and_the_connection_ends(running: processes.Gateway, sent: bytes) -> None:
    received = exchange(running, sent)
    status, headers, body = parse(received)
    assert status in (400, 401)  # 401: the key is asked for before the body is read
    assert headers["content-type"] == "application/json"
    assert headers["connection"] == "close"
    assert headers["x-request-id"]
    assert body["detail"] == body["error"]["message"]  # type: ignore[index]
    assert not received.endswith(b"[kept open]")
    assert received.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a.test\r\n\r\n", 414),
        (GET + b"X-A: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (GET + b"".join(b"X-%d: 1\r\n" % i for i in range(300)) + b"\r\n", 431),
    ],
    ids=["long line", "long header", "many headers"],
)
def test_an_oversized_head_is_refused_in_json(running: processes.Gateway, sent: bytes, status: int) -> None:
    got, _headers, body = parse(exchange(running, sent))
    assert got == status
    assert body["error"]["code"] == "request_too_large"  # type: ignore[index]


def test_an_absolute_target_of_this_host_is_served(running: processes.Gateway) -> None:
    sent = b"GET http://sekisho.test/v1/models HTTP/1.1\r\nHost: sekisho.test\r\nConnection: close\r\n\r\n"
    assert parse(exchange(running, sent))[0] == 401


def test_an_unread_trailer_is_never_taken_for_the_next_request(running: processes.Gateway) -> None:
    smuggled = b"GET /metrics HTTP/1.1\r\nHost: sekisho.test\r\n\r\n"
    sent = POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Trailer: 1\r\n\r\n" + smuggled
    received = exchange(running, sent)
    assert parse(received)[0] == 401
    assert received.count(b"HTTP/1.1 ") == 1


def test_a_refused_client_reads_the_refusal_although_it_is_still_sending(running: processes.Gateway) -> None:
    body = b"x" * 3_000_000
    sent = POST + b"Content-Length: %d\r\n\r\n" % len(body)
    with running.connect() as client:
        client.sendall(sent)
        client.sendall(body)
        client.settimeout(10)
        received = b""
        while data := client.recv(65536):
            received += data
    status, headers, _body = parse(received)
    assert (status, headers["connection"]) == (401, "close")


def test_a_connection_is_kept_where_the_next_request_is_to_be_found(
    running: processes.Gateway, subtests: pytest.Subtests
) -> None:
    body = b'{"model": "general"}'
    sized = b"Content-Length: %d\r\n\r\n" % len(body) + body
    for name, sent, status in (
        ("no body", GET + b"\r\n", 401),
        ("a small body that nobody reads", POST + sized, 401),
        ("a small body for a wrong method", POST.replace(b"POST", b"PUT") + sized, 405),
        ("a small body for no endpoint", POST.replace(b"chat", b"chit") + sized, 404),
        ("a Content-Type of mail's", GET + b"Content-Type: application/json; charset*=none''x\r\n\r\n", 401),
    ):
        with subtests.test(name):
            received = exchange(running, sent * 3)
            assert received.count(b"HTTP/1.1 %d " % status) == received.count(b"HTTP/1.1 ") == 3
            assert parse(received)[1]["connection"] == "keep-alive"
            assert received.endswith(b"[kept open]")


@pytest.mark.parametrize("header", [b"close", b"Close", b"keep-alive, close"])
def test_a_connection_ends_where_the_client_wishes_it(running: processes.Gateway, header: bytes) -> None:
    received = exchange(running, GET + b"Connection: " + header + b"\r\n\r\n" + GET + b"\r\n")
    assert parse(received)[1]["connection"] == "close"
    assert received.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("host", ["a", "a.test:8001", "a_b.test.", "127.0.0.1", "[::1]", "[::ffff:10.0.0.1]:80"])
def test_a_plain_host_is_taken(host: str) -> None:
    assert is_host(host)


@pytest.mark.parametrize(
    "host", ["", "a b", "a/b", "a@b", "a:", "a:b", "a:65536", "::1", "[::1", "[::::]", "[1.2]", "-a", "あ"]
)
def test_what_is_no_plain_host_is_not(host: str) -> None:
    assert not is_host(host)


def test_a_client_that_never_pauses_does_not_hold_the_loop() -> None:
    ours, theirs = gevent.socket.socketpair()
    turns: list[int] = []
    with FairSocket(fileno=ours.detach()) as fair, theirs:
        theirs.sendall(b"ab")
        gevent.spawn(turns.append, 1)
        assert (fair.recv(1), turns) == (b"a", [1])


def test_half_a_head_is_dropped(running: processes.Gateway) -> None:
    with running.connect() as client:
        client.sendall(GET)
        client.settimeout(30)
        assert client.recv(65536) == b""


def test_a_client_that_resets_leaves_the_worker_serving(running: processes.Gateway) -> None:
    for _ in range(20):
        with running.connect() as client:
            client.sendall(GET)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    assert parse(exchange(running, GET + b"Connection: close\r\n\r\n"))[0] == 401
