"""All that holds of connections, calls and relays on plain sockets holds on gevent's, as a worker has them."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import gevent.socket
import pytest

from gateway.upstream.receiver import GeventReceiver, PlainReceiver, receiver_of

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


def test_a_gevent_socket_is_read_the_cheaper_way() -> None:
    plain, other = socket.socketpair()
    ours, theirs = gevent.socket.socketpair()
    assert isinstance(receiver_of(ours), GeventReceiver)
    assert isinstance(receiver_of(plain), PlainReceiver)
    for sock in (plain, other, ours, theirs):
        sock.close()


def test_every_wait_has_the_whole_time() -> None:
    """A timer that goes on where it was stopped would end the second wait early, and the third at once."""
    ours, theirs = gevent.socket.socketpair()
    receiver = receiver_of(ours)
    gevent.spawn_later(0.2, theirs.sendall, b"x")
    assert receiver.receive(0.3) == b"x"
    for _ in range(2):
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            receiver.receive(0.3)
        assert time.monotonic() - started > 0.25
    receiver.close()
    ours.close()
    theirs.close()
