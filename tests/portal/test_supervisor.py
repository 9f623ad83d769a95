"""The supervisor: what it starts it prefixes, watches and ends, and whatever ends it leaves nothing behind."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from portal.supervisor import Role, RoleFailed, Supervisor, http_answers
from tests.processes import PROJECT, wait_until

SLEEP = "import time; print('here', flush=True); time.sleep(60)"


def role(name: str, script: str, *, serves: bool = True) -> Role:
    return Role(name, [sys.executable, "-c", script], os.environ, answers=lambda: serves)


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def supervisor(output: io.StringIO, tmp_path: Path) -> Supervisor:
    return Supervisor(output, folder=tmp_path)


def test_lines_bear_the_name_of_their_role(supervisor: Supervisor, output: io.StringIO) -> None:
    supervisor.start(role("gateway", SLEEP))
    supervisor.await_ready()
    wait_until(lambda: "gateway   | here\n" in output.getvalue(), "no line came through")
    supervisor.stop()


def test_output_that_nobody_reads_stops_nobody(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    closed = os.fdopen(writer, "w")
    supervisor = Supervisor(closed, folder=tmp_path)
    supervisor.start(role("talker", "for n in range(50000): print('a line', n, flush=True)\nraise SystemExit(7)"))
    with pytest.raises(RoleFailed, match="exit code 7"):
        supervisor.run()
    supervisor.stop()
    with contextlib.suppress(BrokenPipeError):
        closed.close()


def test_a_child_that_ends_is_named_with_its_last_lines(supervisor: Supervisor) -> None:
    supervisor.start(role("portal", SLEEP))
    supervisor.start(role("worker", "print('the reason'); raise SystemExit(3)"))
    with pytest.raises(RoleFailed, match=r"worker ended with exit code 3\. Its last lines:\n    the reason"):
        supervisor.run()
    supervisor.stop()


def test_a_killed_child_is_reported_by_its_signal(supervisor: Supervisor) -> None:
    supervisor.start(role("worker", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", serves=False))
    with pytest.raises(RoleFailed, match="worker was killed by SIGKILL"):
        supervisor.await_ready()
    supervisor.stop()


def test_a_child_that_never_serves_is_reported(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portal.supervisor.READY_S", 0.3)
    supervisor.start(role("gateway", SLEEP, serves=False))
    with pytest.raises(RoleFailed, match="gateway did not answer within"):
        supervisor.await_ready()
    supervisor.stop()


def test_children_end_in_the_order_of_their_groups(supervisor: Supervisor, tmp_path: Path) -> None:
    script = (
        "import pathlib, signal, sys, time\n"
        "def end(*_):\n"
        "    time.sleep(0.2)\n"
        "    with open('order', 'a') as f: f.write({name!r} + '\\n')\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "pathlib.Path({name!r}).touch()\n"
        "while True: time.sleep(1)\n"
    )
    names = ("store", "simulator", "gateway")
    for name in names:
        supervisor.start(role(name, script.format(name=name)))
    wait_until(lambda: all((tmp_path / name).exists() for name in names), "not all came up")
    supervisor.stop(("gateway",), ("simulator",))
    assert (tmp_path / "order").read_text().split() == ["gateway", "simulator", "store"]


def test_what_does_not_end_is_killed_and_so_are_its_own_children(
    supervisor: Supervisor, output: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portal.supervisor.STOP_S", 0.3)
    stubborn = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('pid', os.getpid(), flush=True);"
        "time.sleep(60)"
    )
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {stubborn!r}]); time.sleep(60)"
    supervisor.start(role("stubborn", stubborn))
    supervisor.start(role("parent", parent))
    wait_until(lambda: output.getvalue().count("pid") == 2, "not all came up")
    pids = [int(line.split()[-1]) for line in output.getvalue().splitlines()]
    supervisor.stop()
    wait_until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids), "somebody was left behind", seconds=20)


def test_a_signal_ends_the_wait(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys\n"
        "from portal.supervisor import Role, Stopped, Supervisor\n"
        "s = Supervisor(sys.stdout, folder=pathlib.Path('.'))\n"
        "s.catch_signals()\n"
        "s.start(Role('child', ['sleep', '60'], os.environ, lambda: True))\n"
        "s.await_ready()\n"
        "print('ready', flush=True)\n"
        "try:\n    s.run()\n"
        "except Stopped:\n    s.stop()\n    print('stopped', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "stopped\n"
    assert process.returncode == 0


def test_an_http_server_counts_as_ready_when_it_answers_200() -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/ready" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert http_answers(f"{url}/ready")
        assert not http_answers(f"{url}/other")
        server.shutdown()
    assert not http_answers(f"{url}/ready")
