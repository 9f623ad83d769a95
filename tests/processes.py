"""Starts the real processes of the product for tests: gunicorn with the shipped configuration, on free ports."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

import requests
from django.conf import settings
from django.db import connection

PROJECT = Path(__file__).parent.parent
GATEWAY = PROJECT / "deploy/gunicorn/gateway.py"
PORTAL = PROJECT / "deploy/gunicorn/portal.py"
START_S = 60


@dataclass
class Gateway:
    """A running gateway. `url` ends without /v1; `log` holds its JSON lines."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()

    def workers(self) -> list[int]:
        """Its worker processes."""
        master = self.process.pid
        return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]

    def each_worker(self) -> Iterator[int]:
        """One after the other, each with all new connections to itself: left to chance, one may get dozens in a row."""
        for worker in self.workers():
            with ExitStack() as stack:
                for other in set(self.workers()) - {worker}:
                    stack.enter_context(frozen(other))
                yield worker

    def connect(self) -> socket.socket:
        """A raw TCP connection, for requests that no HTTP library would send."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """While this process stands still, the others take every new connection."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def gateway(
    folder: Path, *, workers: int = 1, redis_url: str | None = None, config: Path = GATEWAY, **environment: str
) -> Iterator[Gateway]:
    """Run the gateway under gunicorn until the block ends; ready when its workers accept connections."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    log = folder / "gateway.log"
    metrics = folder / "metrics"
    metrics.mkdir(exist_ok=True)
    env = os.environ | {
        "DJANGO_SETTINGS_MODULE": "portal.settings.gateway",
        "REDIS_URL": redis_url or settings.REDIS_URL,
        "SEKISHO_API_BIND": f"127.0.0.1:{port}",
        "SEKISHO_GATEWAY_WORKERS": str(workers),
        "PROMETHEUS_MULTIPROC_DIR": str(metrics),
        "SEKISHO_SPOOL_FOLDER": str(folder / "spool"),
        "SEKISHO_CONNECT_MAX_S": "20",  # many tests share the machine's cores: a slow one refuses nobody
        **environment,
    }
    running = Gateway(_gunicorn(config, env, log), port, log)
    with _until_end(running.process, f"{running.url}/livez", log):
        yield running


@contextmanager
def portal(folder: Path, **environment: str) -> Iterator[str]:
    """Run the portal on the tests' database until the block ends; its URL. It must end before the database is dropped."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    log = folder / "portal.log"
    env = os.environ | {
        "DJANGO_SETTINGS_MODULE": "portal.settings.web",
        "DATABASE_URL": _database_url(),
        "REDIS_URL": settings.REDIS_URL,
        "SEKISHO_PORTAL_BIND": f"127.0.0.1:{port}",
        **environment,
    }
    url = f"http://127.0.0.1:{port}"
    with _until_end(_gunicorn(PORTAL, env, log), f"{url}/livez", log):
        yield url


def _database_url() -> str:
    """This run's own database, wherever its server is: a unix socket's folder is no host name, but an option."""
    database = connection.settings_dict
    user, password, name = (quote(str(database[part]), safe="") for part in ("USER", "PASSWORD", "NAME"))
    where = {"host": database["HOST"], "port": database["PORT"], **database["OPTIONS"]}
    options = {option: value for option, value in where.items() if option != "pool" and value}
    return f"postgresql://{user}:{password}@/{name}?{urlencode(options)}"


def _gunicorn(config: Path, env: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "gunicorn", "-c", str(config)]
    with log.open("wb") as output:
        return subprocess.Popen(command, cwd=PROJECT, env=env, stdout=output, stderr=subprocess.STDOUT)


def _end_of(log: Path) -> str:
    return log.read_text()[-3000:] if log.is_file() else "it writes no log"


@contextmanager
def _until_end(process: "subprocess.Popen[bytes]", probe: str, log: Path) -> Iterator[None]:
    """The block runs once the process answers at `probe`; after it the process ends."""
    try:
        wait_until(lambda: _answers(probe), lambda: f"the process did not start: {_end_of(log)}", process)
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(check: object, what: object, process: "subprocess.Popen[bytes] | None" = None, seconds: float = START_S) -> None:
    """Poll until check() is true; fail with what() when it never is, or when the process has ended."""
    deadline = time.monotonic() + seconds
    while not check():  # type: ignore[operator]
        if time.monotonic() > deadline or (process is not None and process.poll() is not None):
            raise AssertionError(what() if callable(what) else what)
        time.sleep(0.02)


def _answers(probe: str) -> bool:
    try:
        return requests.get(probe, timeout=5).status_code == 200
    except requests.RequestException:
        return False
