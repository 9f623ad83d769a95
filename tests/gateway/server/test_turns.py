"""Who works without waiting lets all others have their turn: counted in turns, with no clock."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.socket
import pytest
from gevent import get_hub
from gunicorn.config import Config
from gunicorn.glogging import Logger

from gateway.server.fast_worker import FastWorker
from gateway.server.turns import Turnstile, give_way
from gateway.server.worker import GatewayWorker

TURNS = 200
ASKING = 50  # connections
ROUND_TRIPS = 10
REFUSED = b"GET /refused HTTP/1.1\r\nHost: a.test\r\n\r\n"
SERVED = b"GET /served HTTP/1.1\r\nHost: a.test\r\n\r\n"


class Reader:
    """Sends itself a byte and waits for it, again and again: what a call does that waits for Redis or a backend."""

    def __init__(self) -> None:
        self._ours, self._theirs = gevent.socket.socketpair()

    def wait(self) -> None:
        hub = get_hub()
        self._theirs.send(b"x")
        readable = hub.loop.io(self._ours.fileno(), 1)
        try:
            hub.wait(readable)
        finally:
            readable.close()
        self._ours.recv(1)

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader()
    yield made
    made.close()


def worked_while_it_read(reader: Reader, work: Callable[[], None]) -> int:
    """How often `work` was done, by as many greenlets as ask, while the reader waited for ROUND_TRIPS answers."""
    done: list[None] = []

    def go_on() -> None:
        while True:
            work()
            done.append(None)

    working = [gevent.spawn(go_on) for _ in range(ASKING)]
    reader.wait()
    before = len(done)
    for _ in range(ROUND_TRIPS):
        reader.wait()
    gevent.killall(working)
    return len(done) - before


def test_who_gives_way_lets_all_sockets_be_looked_at(reader: Reader) -> None:
    assert worked_while_it_read(reader, give_way) <= 3 * ROUND_TRIPS * ASKING


def test_of_those_at_the_turnstile_one_goes_on_a_turn(reader: Reader) -> None:
    assert worked_while_it_read(reader, Turnstile().pass_through) <= 3 * ROUND_TRIPS


def test_the_turnstile_keeps_the_order_and_forgets_who_was_killed() -> None:
    turnstile, passed = Turnstile(), list[int]()

    def pass_through(number: int) -> None:
        turnstile.pass_through()
        passed.append(number)

    waiting = [gevent.spawn(pass_through, number) for number in range(20)]
    gevent.sleep(0)
    gevent.killall([waiting[0], waiting[7]])
    gevent.joinall(waiting)
    assert passed == [number for number in range(20) if number not in (0, 7)]


@pytest.fixture(params=[FastWorker, GatewayWorker])
def worker(request: pytest.FixtureRequest, reader: Reader) -> Iterator[Any]:
    """A worker whose application refuses all but /served, which takes ROUND_TRIPS; `answers` counts both."""
    cfg = Config()
    cfg.set("http_parser", "python")
    cfg.set("forwarded_allow_ips", "")
    cfg.set("keepalive", 60)
    made = request.param(1, os.getppid(), [], None, 30, cfg, Logger(cfg))
    made.answers = Counter()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        path = environ["PATH_INFO"]
        for _ in range(ROUND_TRIPS if path == "/served" else 0):
            reader.wait()
        made.answers[path] += 1
        start_response("200 OK" if path == "/served" else "401 Unauthorized", [("content-length", "2")])
        return [b"{}"]

    made.wsgi = application
    yield made
    made.tmp.close()


@pytest.fixture
def connect(worker: Any) -> Iterator[Callable[[], Any]]:
    """Open a connection that the worker serves."""
    listener = gevent.socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(ASKING + 1)
    opened: list[Any] = []

    def open_one() -> Any:
        client = gevent.socket.create_connection(listener.getsockname())
        opened.append(client)
        gevent.spawn(worker.handle, listener, *listener.accept())
        return client

    yield open_one
    for client in opened:
        client.close()
    listener.close()


@pytest.mark.parametrize("at_once", [1, 8])
def test_a_call_passes_between_the_answers_of_those_who_ask_for_refusals(
    worker: Any, connect: Callable[[], Any], at_once: int
) -> None:
    """at_once: so many requests are on their way on each connection."""

    def ask_on_and_on(client: Any) -> None:
        client.sendall(REFUSED * at_once)
        while client.recv(65536):
            client.sendall(REFUSED)

    asking = [gevent.spawn(ask_on_and_on, connect()) for _ in range(ASKING)]
    while worker.answers["/refused"] < 2 * ASKING * at_once:
        gevent.sleep(0.001)
    client, before = connect(), worker.answers["/refused"]
    client.sendall(SERVED)
    assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    # Less than one for each connection a round trip; without the turnstile it is that, or much more.
    assert worker.answers["/refused"] - before < 5 * ROUND_TRIPS
    gevent.killall(asking)
