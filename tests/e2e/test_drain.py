"""A gateway that ends, or is rolled, loses no stream: new calls go elsewhere, running ones end in their own time."""

import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests import processes
from tests.e2e.conftest import CHAT, Stand, on_both_loops

pytestmark = on_both_loops

Fresh = Callable[..., processes.Gateway]
LONG = {"stream": True, "ignore_eos": True, "messages": [{"role": "user", "content": "[[sim tokens_per_s=50]]"}]}


class Streams:
    """Calls that run in the background; whole() waits for their ends."""

    def __init__(self, stand: Stand, count: int, **body: Any) -> None:
        self.bodies: list[bytes] = []
        self._stand = stand
        self._threads = [threading.Thread(target=self._read, args=(LONG | body,)) for _ in range(count)]
        for thread in self._threads:
            thread.start()
        stand.until(lambda: stand.running() == count, "the streams did not begin")

    def _read(self, body: dict[str, Any]) -> None:
        self.bodies.append(self._stand.post(body).content)

    def whole(self) -> list[bytes]:
        for thread in self._threads:
            thread.join(60)
        return self.bodies


def get(client: socket.socket, path: str) -> bytes:
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: gateway.test\r\n\r\n".encode())
    received = b""
    while b"\r\n\r\n" not in received:
        data = client.recv(65536)
        if not data:
            break
        received += data
    return received


def configured(stand: Stand, gateway: processes.Gateway) -> None:
    stand.gateway = gateway
    for _ in stand.gateway.each_worker():
        stand.until(lambda: stand.get("/v1/models").status_code == 200, "not configured")


def test_on_sigterm_live_streams_end_in_their_own_time_and_nothing_new_is_taken(stand: Stand, fresh_gateway: Fresh) -> None:
    configured(stand, fresh_gateway(workers=2))
    streams = Streams(stand, 6, max_tokens=200)
    kept = [stand.gateway.connect() for _ in range(3)]
    assert all(b" 200 " in get(client, "/readyz") for client in kept)
    stand.gateway.process.send_signal(signal.SIGTERM)
    stand.until(lambda: not _connects(stand.gateway), "new connections are still taken")
    assert all(b" 503 " in get(client, "/readyz") for client in kept)
    bodies = streams.whole()
    assert all(body.endswith(b"data: [DONE]\n\n") for body in bodies)
    assert [body.count(b'"content"') for body in bodies] == [201] * 6
    assert stand.gateway.process.wait(30) == 0
    events = [event for event in stand.events_of_acme() if event.stream]
    assert {(event.outcome, event.completion_tokens) for event in events} == {("completed", 200)}


def _connects(gateway: processes.Gateway) -> bool:
    try:
        gateway.connect().close()
    except OSError:  # refused; or reset, in the backlog at the moment it closed
        return False
    return True


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
def test_what_outlives_the_grace_is_told_so_and_metered(stand: Stand, fresh_gateway: Fresh, stream: bool) -> None:
    configured(stand, fresh_gateway(SEKISHO_GRACE_S="1"))
    streams = Streams(stand, 1, max_tokens=5000, stream=stream)
    stand.gateway.process.send_signal(signal.SIGTERM)
    (body,) = streams.whole()
    last = body.rstrip().split(b"\n\n")[-1].removeprefix(b"data: ")
    assert json.loads(last)["error"]["code"] == "overloaded"
    assert b"[DONE]" not in body
    assert stand.gateway.process.wait(30) == 0
    stand.until(lambda: stand.running() == 0, "the generation goes on")
    (event,) = stand.events_of_acme()
    assert (event.outcome, event.error_code) == ("failed", "overloaded")
    assert (event.completion_tokens > 10) is stream


def test_workers_are_rolled_without_a_lost_stream_or_a_refused_call(stand: Stand, fresh_gateway: Fresh) -> None:
    configured(stand, fresh_gateway(workers=2))
    streams = Streams(stand, 6, max_tokens=300)
    before = set(stand.gateway.workers())
    os.kill(stand.gateway.process.pid, signal.SIGHUP)
    statuses = []
    while before & set(stand.gateway.workers()):
        statuses.append(stand.post({"max_tokens": 2}).status_code)
    assert set(statuses) == {200}
    assert all(body.endswith(b"data: [DONE]\n\n") for body in streams.whole())
    assert len(stand.gateway.workers()) == 2
    assert stand.post().status_code == 200
    assert CHAT in stand.post().request.url
