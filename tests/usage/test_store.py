"""Connections to a server that does not accept them."""

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
# As in a gateway worker: there the connection waits, where a thread's would be refused at once.
PROGRAM = """
from gevent import monkey
monkey.patch_all()
import socket, sys
from usage.store import RedisError, connect
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen(0)
    queued = socket.socket(socket.AF_UNIX)
    queued.connect(sys.argv[1])
    try:
        connect(f"unix://{sys.argv[1]}?db=0", timeout_s=0.1).ping()
    except RedisError as error:
        print(type(error).__name__)
"""


def test_a_unix_socket_that_is_not_accepted_is_a_redis_error(tmp_path: Path) -> None:
    """As all are once a frozen server's queue is full."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "valkey.sock")]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("TimeoutError\n", 0), done.stderr
