"""All that holds of connections, calls and relays on plain sockets holds on gevent's, as a worker has them."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent.socket
import pytest

from gateway.upstream.receiver import GeventReceiver, PlainReceiver, StreamReceiver, beneath, receiver_of

HERE = Path(__file__).parent
PATCHED = "from gevent import monkey; monkey.patch_all(); import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"


@pytest.mark.parametrize("module", ["test_connection.py", "test_client.py", "test_relay.py"])
def test_the_same_holds_under_gevent(module: str) -> None:
    """In a process of its own: patching cannot be undone. Without conftest, which starts stores that are not needed."""
    bare = [
        "--noconftest",
        "-p",
        "no:django",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
        "--rootdir",
        str(HERE.parents[2]),
        "-q",
    ]
    run = subprocess.run(
        [sys.executable, "-c", PATCHED, *bare, str(HERE / module)],
        cwd=HERE.parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]


def after(seconds: float) -> float:
    return time.monotonic() + seconds


def test_a_gevent_socket_is_read_the_cheaper_way() -> None:
    plain, other = socket.socketpair()
    ours, theirs = gevent.socket.socketpair()
    assert isinstance(receiver_of(ours), StreamReceiver)
    assert isinstance(receiver_of(plain), PlainReceiver)
    assert beneath(ours) is ours._sock
    assert beneath(plain) is plain
    for sock in (plain, other, ours, theirs):
        sock.close()


def test_nothing_goes_past_what_encrypts_it() -> None:
    class Encrypting(gevent.socket.socket):  # type: ignore[misc]  # gevent ships no types
        """As gevent's own for TLS is made."""

    with Encrypting() as encrypting:
        assert beneath(encrypting) is encrypting
        assert isinstance(receiver_of(encrypting), PlainReceiver)


@pytest.mark.parametrize("kind", [GeventReceiver, StreamReceiver])
def test_every_wait_has_the_whole_time(kind: type[GeventReceiver | StreamReceiver]) -> None:
    """A timer that goes on where it was stopped would end the second wait early, and the third at once."""
    ours, theirs = gevent.socket.socketpair()
    receiver = kind(ours)

    def receive(within_s: float) -> bytes:
        return receiver.receive(within_s if isinstance(receiver, GeventReceiver) else after(within_s))

    gevent.spawn_later(0.2, theirs.sendall, b"x")
    assert receive(0.3) == b"x"
    for _ in range(2):
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            receive(0.3)
        assert time.monotonic() - started > 0.25
    receiver.close()
    ours.close()
    theirs.close()


@pytest.fixture
def pair() -> Iterator[tuple[StreamReceiver, Any]]:
    ours, theirs = gevent.socket.socketpair()
    receiver = StreamReceiver(ours)
    yield receiver, theirs
    receiver.close()
    ours.close()
    theirs.close()


def test_a_stream_is_read_as_it_comes_and_its_end_is_told(pair: tuple[StreamReceiver, Any]) -> None:
    receiver, theirs = pair

    def send() -> None:
        for number in range(200):
            theirs.sendall(b"%d\n" % number)
            if number % 3 == 0:
                gevent.sleep(0.001)
        theirs.shutdown(socket.SHUT_WR)

    sending = gevent.spawn(send)
    came = b""
    while data := receiver.receive(after(10)):
        came += data
    assert came == b"".join(b"%d\n" % number for number in range(200))
    assert receiver.receive(after(10)) == b""
    sending.get()


def test_what_comes_while_nobody_waits_is_read_later_and_keeps_no_loop_busy(pair: tuple[StreamReceiver, Any]) -> None:
    receiver, theirs = pair
    theirs.sendall(b"1")
    assert receiver.receive(after(10)) == b"1"
    theirs.sendall(b"2")
    turns = 0
    for _ in range(20):
        gevent.sleep(0.001)
        turns += receiver._is_watching
    assert turns <= 1, "the loop looks again and again"
    assert receiver.receive(after(10)) == b"2"


def test_a_shorter_wait_after_a_long_one_ends_in_its_own_time(pair: tuple[StreamReceiver, Any]) -> None:
    receiver, theirs = pair
    theirs.sendall(b"1")
    assert receiver.receive(after(600)) == b"1"
    with gevent.Timeout(30), pytest.raises(TimeoutError):
        receiver.receive(after(0.2))
    theirs.sendall(b"2")
    assert receiver.receive(after(600)) == b"2"


def test_a_wait_that_was_broken_off_leaves_a_receiver_that_works(pair: tuple[StreamReceiver, Any]) -> None:
    receiver, theirs = pair
    waits = gevent.spawn(receiver.receive, after(600))
    gevent.sleep(0.01)
    waits.kill()
    theirs.sendall(b"later")
    assert receiver.receive(after(10)) == b"later"


def test_who_is_woken_by_another_waits_on(pair: tuple[StreamReceiver, Any]) -> None:
    receiver, theirs = pair
    waits = gevent.spawn(receiver.receive, after(600))
    gevent.sleep(0.01)
    gevent.get_hub().loop.run_callback(waits.switch)
    gevent.sleep(0.01)
    assert not waits.ready()
    theirs.sendall(b"at last")
    assert waits.get(timeout=30) == b"at last"


def test_what_is_said_to_be_readable_and_is_not_is_waited_for(pair: tuple[StreamReceiver, Any]) -> None:
    receiver, theirs = pair
    waits = gevent.spawn(receiver.receive, after(600))
    gevent.sleep(0.01)
    gevent.get_hub().loop.run_callback(receiver._wake)
    gevent.sleep(0.01)
    assert not waits.ready()
    theirs.sendall(b"at last")
    assert waits.get(timeout=30) == b"at last"


def test_a_deadline_that_has_passed_is_not_waited_for(pair: tuple[StreamReceiver, Any]) -> None:
    receiver, theirs = pair
    with pytest.raises(TimeoutError):
        receiver.receive(after(-1))
    theirs.sendall(b"1")
    assert receiver.receive(after(600)) == b"1"
    with gevent.Timeout(30), pytest.raises(TimeoutError):
        receiver.receive(after(-1))


def test_nobody_is_woken_for_what_is_taken(pair: tuple[StreamReceiver, Any]) -> None:
    receiver, theirs = pair
    taken: list[bytes] = []

    def take(read: bytes) -> float:
        if read == b"wake up":
            return 0.0
        taken.append(read)
        return after(600)

    waits = gevent.spawn(receiver.receive, after(600), take)
    gevent.sleep(0.001)
    for number in range(5):
        theirs.sendall(b"%d" % number)
        with gevent.Timeout(30):
            while len(taken) <= number:
                gevent.sleep(0.001)
    assert taken == [b"0", b"1", b"2", b"3", b"4"]
    assert not waits.ready()
    theirs.sendall(b"wake up")
    assert waits.get(timeout=30) == b"wake up"
    theirs.sendall(b"5")
    assert receiver.receive(after(600)) == b"5", "of the next wait this is"


def test_what_is_taken_moves_the_deadline_and_silence_after_it_ends_the_wait(pair: tuple[StreamReceiver, Any]) -> None:
    receiver, theirs = pair
    last_s = 0.0

    def take(_read: bytes) -> float:
        nonlocal last_s
        last_s = time.monotonic()
        return last_s + 1.5

    waits = gevent.spawn(receiver.receive, time.monotonic() + 1.5, take)
    for _ in range(4):
        gevent.sleep(0.6)
        theirs.sendall(b"x")
    with pytest.raises(TimeoutError):
        waits.get(timeout=30)
    assert time.monotonic() - last_s >= 1.5


def test_the_end_of_the_connection_comes_to_who_waits(pair: tuple[StreamReceiver, Any]) -> None:
    receiver, theirs = pair
    waits = gevent.spawn(receiver.receive, after(600), lambda _read: 0.0)
    gevent.sleep(0.002)
    theirs.close()
    assert waits.get(timeout=30) == b""
