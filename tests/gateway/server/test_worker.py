"""The worker's own strictness: what HTTP it refuses, in which words, and when it ends the connection."""

import json
import socket
from collections.abc import Iterator

import pytest

from tests import processes

GET = b"GET /v1/models HTTP/1.1\r\nHost: sekisho.test\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: sekisho.test\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[processes.Gateway]:
    with processes.gateway(tmp_path_factory.mktemp("worker")) as started:
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


def test_a_connection_is_kept_after_a_request_that_was_read_whole(running: processes.Gateway) -> None:
    with running.connect() as client:
        client.settimeout(10)
        for _ in range(3):
            client.sendall(GET + b"\r\n")
            received = b""
            while not received.endswith(b"}"):  # head and body may come apart
                received += client.recv(65536)
            assert received.startswith(b"HTTP/1.1 401 ")


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
