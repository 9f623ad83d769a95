"""Starts the real processes of the product for tests: gunicorn with the shipped configuration, on a free port."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from django.conf import settings

PROJECT = Path(__file__).parent.parent
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

    def connect(self) -> socket.socket:
        """A raw TCP connection, for requests that no HTTP library would send."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def gateway(folder: Path, *, workers: int = 1, redis_url: str | None = None, **environment: str) -> Iterator[Gateway]:
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
        **environment,
    }
    command = [sys.executable, "-m", "gunicorn", "-c", str(PROJECT / "deploy/gunicorn/gateway.py")]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=PROJECT, env=env, stdout=output, stderr=subprocess.STDOUT)
    running = Gateway(process, port, log)
    try:
        wait_until(lambda: _answers(running), lambda: f"the gateway did not start: {log.read_text()[-3000:]}", process)
        yield running
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


def _answers(running: Gateway) -> bool:
    try:
        return requests.get(f"{running.url}/livez", timeout=5).status_code == 200
    except requests.RequestException:
        return False
