"""The watch over a client's socket while its call runs."""

from collections.abc import Iterator
from typing import Any

import gevent
import gevent.socket
import pytest
from gevent.event import Event

from gateway.api.disconnect import watch

Pair = tuple[Any, Any]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The gateway's end of a connection, and its client's."""
    with gevent.socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with gevent.socket.create_connection(listener.getsockname()) as theirs:
            ours, _ = listener.accept()
            with ours:
                yield ours, theirs


def watched(ours: Any) -> tuple[Event, Any]:
    gone = Event()
    return gone, watch({"gunicorn.socket": ours}, gone.set)


@pytest.mark.parametrize(
    "leave", [lambda theirs: theirs.close(), lambda theirs: theirs.shutdown(1)], ids=["closed", "half-closed"]
)
def test_a_client_that_leaves_is_noticed(pair: Pair, leave: Any) -> None:
    ours, theirs = pair
    gone, _stop = watched(ours)
    assert not gone.wait(0.05)
    leave(theirs)
    assert gone.wait(10)


def test_a_further_request_is_no_end_and_the_end_behind_it_is(pair: Pair) -> None:
    ours, theirs = pair
    gone, _stop = watched(ours)
    theirs.sendall(b"GET / HTTP/1.1")
    assert not gone.wait(0.5)
    theirs.close()
    assert gone.wait(10)


def test_after_its_end_nothing_is_told(pair: Pair) -> None:
    ours, theirs = pair
    gone, stop = watched(ours)
    stop()
    stop()
    theirs.close()
    assert not gone.wait(0.5)


def test_it_may_end_while_it_follows_a_client_that_has_said_more(pair: Pair) -> None:
    ours, theirs = pair
    gone, stop = watched(ours)
    theirs.sendall(b"x")
    gevent.sleep(0.1)
    stop()
    theirs.close()
    assert not gone.wait(0.5)


def test_a_socket_that_is_closed_already_is_gone(pair: Pair) -> None:
    ours, _theirs = pair
    ours.close()
    assert watched(ours)[0].wait(10)


def test_without_a_socket_nothing_is_watched() -> None:
    watch({}, pytest.fail)()
