"""The processes of one machine: their commands and environments, and how each shows that it serves. Knows no Django."""

import errno
import json
import os
import select
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from portal.supervisor import Role, http_answers

SIMULATED_MODEL: Final = "demo"
DEMO_ALIASES: Final = ("general", "secure")
PORTS_TRIED: Final = 100
# A person waits for `up` to end: shorter than the supervisor's patience, by what the gateway needs after it.
GRACE_S: Final = 20


class NoFreePort(Exception):
    """The message names the port."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the processes of this start serve. Ports are free at the time of asking."""

    home: Path
    host: str
    api_port: int
    portal_port: int
    simulator_port: int

    @property
    def api(self) -> str:
        return f"http://{self._reached_at()}:{self.api_port}"

    @property
    def portal(self) -> str:
        return f"http://{self._reached_at()}:{self.portal_port}"

    @property
    def simulator(self) -> str:
        return f"http://127.0.0.1:{self.simulator_port}"

    def bind(self, port: int) -> str:
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"

    def _reached_at(self) -> str:
        reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return f"[{reached}]" if ":" in reached else reached


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be prepared. simulator_url None: no demo. needs_key: a script starts us and is told a key's text."""

    simulator_url: str | None
    needs_key: bool
    file: str | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is told when all serves. None: told at an earlier start, or there is no demo."""

    admin_email: str
    admin_password: str | None
    demo_key: str | None

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()


class Report:
    """What the worker has prepared, over a pipe: it holds a password, and so must not be a file or a line of the log."""

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe()
        self._text = b""

    def has_come(self) -> bool:
        if not self._text and select.select([self._reader], [], [], 0)[0]:
            self._text = os.read(self._reader, 4096)  # less than the least a pipe takes in one piece
        return bool(self._text)

    def prepared(self) -> Prepared:
        """Only after has_come()."""
        os.close(self._reader)
        return Prepared(**json.loads(self._text))


def free_port(host: str, wanted: int, *, taken: tuple[int, ...] = ()) -> int:
    """`wanted`, or the next port that is free; 0: any. Raises NoFreePort, OSError when `host` is not of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(wanted, min(wanted + PORTS_TRIED, 65536)) if wanted else [0] * PORTS_TRIED:
        if port in taken:
            continue
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does: a port in TIME_WAIT is free
            try:
                probe.bind((host, port))
            except PermissionError as error:
                raise NoFreePort(f"port {port} may not be bound by this user: choose one from 1024 up.") from error
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            found: int = probe.getsockname()[1]
            if found not in taken:
                return found
    raise NoFreePort(f"no port is free from {wanted} to {wanted + PORTS_TRIED - 1} on {host}.")


def gateway(place: Place, *, workers: int) -> Role:
    more = {
        "DJANGO_SETTINGS_MODULE": "portal.settings.gateway",
        "SEKISHO_API_BIND": place.bind(place.api_port),
        "SEKISHO_GATEWAY_WORKERS": str(workers),
        "SEKISHO_GRACE_S": str(GRACE_S),
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "deploy/gunicorn/gateway.py"]
    return Role("gateway", command, _environment(place, more), lambda: http_answers(f"{place.api}/readyz"))


def portal(place: Place) -> Role:
    more = {"DJANGO_SETTINGS_MODULE": "portal.settings.web", "SEKISHO_PORTAL_BIND": place.bind(place.portal_port)}
    command = [sys.executable, "-m", "gunicorn", "-c", "deploy/gunicorn/portal.py"]
    return Role("portal", command, _environment(place, more), lambda: http_answers(f"{place.portal}/livez"))


def simulator(place: Place) -> Role:
    command = [sys.executable, "-m", "gateway.simulator", "--host", "127.0.0.1", "--port", str(place.simulator_port)]
    command += ["--model", SIMULATED_MODEL, "--enable-prompt-tokens-details"]
    return Role("simulator", command, _environment(place, {}), lambda: http_answers(f"{place.simulator}/health"))


def worker(place: Place, order: Order) -> tuple[Role, Report]:
    """The celery worker with beat inside: on one machine there is only one of each. It prepares the installation first."""
    report = Report()
    command = [sys.executable, "-m", "portal.worker", json.dumps(asdict(order)), str(report.writer)]
    environment = _environment(place, {"DJANGO_SETTINGS_MODULE": "portal.settings.web"})
    return Role("worker", command, environment, report.has_come, inherits=(report.writer,)), report


def _environment(place: Place, more: Mapping[str, str]) -> dict[str, str]:
    unless_set = {
        "SEKISHO_GATEWAY_URL": place.api,
        "SEKISHO_GATEWAY_INNER_URL": place.api,
        "SEKISHO_ALLOWED_HOSTS": ",".join(
            ["localhost", "127.0.0.1", "[::1]", urlsplit(place.portal).netloc.rpartition(":")[0]]
        ),
    }
    shared = {"SEKISHO_HOME": str(place.home), "SEKISHO_PORTAL_URL": place.portal, "PYTHONUNBUFFERED": "1"}
    return {**unless_set, **os.environ, **shared, **more}
