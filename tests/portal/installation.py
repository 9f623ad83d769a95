"""A copy of the checkout, started by its own `deploy/up` as a user would: at a path with a space, on free ports."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.processes import PROJECT, wait_until

START_S = 180
STOP_S = 90
LEFT_OUT = (".*", "var", "build", "__pycache__", "tests")
# What a test run sets for itself, and an installation must not inherit.
OURS = ("DJANGO_SETTINGS_MODULE", "DATABASE_URL", "REDIS_URL", "SEKISHO_", "PYTEST_", "PROMETHEUS_", "LC_", "LANG")


@dataclass
class Running:
    """An `up`, ready. told: its one JSON line; empty without --json."""

    checkout: "Checkout"
    process: subprocess.Popen[str]
    home: Path
    told: dict[str, Any] = field(default_factory=dict)
    card: str = ""
    log: list[str] = field(default_factory=list)

    def pids(self) -> list[int]:
        return processes_of(self.home)

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.checkout.manage(self.home, *arguments)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_S)


@dataclass(frozen=True)
class Checkout:
    folder: Path

    def environment(self, **more: str) -> dict[str, str]:
        mine = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        return {**mine, **more}

    def manage(self, home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.folder / ".venv/bin/python"), str(self.folder / "manage.py"), *arguments]
        env = self.environment(SEKISHO_HOME=str(home), **environment)
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=START_S, check=False)

    def try_up(self, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """An `up` that is expected to fail."""
        command = [str(self.folder / "deploy/up"), *options]
        env = self.environment(**environment)
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=START_S, check=False)

    @contextmanager
    def up(self, home: Path, *options: str, **environment: str) -> Iterator[Running]:
        """Ready when the block begins; whatever is left of it is killed when the block ends."""
        command = [str(self.folder / "deploy/up"), "--home", str(home), *options]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment(**environment)
        )
        running = Running(self, process, home)
        reader = threading.Thread(target=_read, args=(process.stderr, running.log), daemon=True)
        reader.start()
        try:
            _await_card(running)
            yield running
        finally:
            process.kill()
            process.wait()
            wait_until(lambda: not running.pids(), lambda: f"left behind: {running.pids()}", seconds=STOP_S)


def processes_of(home: Path) -> list[int]:
    """Every process, zombies aside, that names `home` in its command or environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
        except OSError:
            continue
        if os.fsencode(home) in text and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


@contextmanager
def checkout() -> Iterator[Checkout]:
    with tempfile.TemporaryDirectory(prefix="sekisho check ") as scratch:
        Path(scratch).chmod(0o755)  # PostgreSQL runs as nobody where we are root
        folder = Path(scratch) / "check out"
        shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
        _lend_environment(folder)
        try:
            yield Checkout(folder)
        finally:
            for data in Path(scratch).glob("*/postgres"):  # a link, where nobody cannot reach the checkout
                shutil.rmtree(data.resolve(), ignore_errors=True)


def _lend_environment(folder: Path) -> None:
    """Our own packages, with the stamp of a finished installation: no network, and no minute of installing."""
    environment = folder / ".venv"
    environment.mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (environment / part).symlink_to(Path(sys.prefix) / part)
    shutil.copy(folder / "deploy/requirements/run.txt", environment / "installed-run.txt")


def _await_card(running: Running) -> None:
    assert running.process.stdout is not None
    watchdog = threading.Timer(START_S, running.process.kill)
    watchdog.start()
    try:
        for line in running.process.stdout:
            if line.startswith("{"):
                running.told = json.loads(line)
                return
            running.card += line
            if "Ctrl-C" in line:
                return
    finally:
        watchdog.cancel()
    raise AssertionError("up did not become ready:\n" + "".join(running.log))


def _read(lines: Any, log: list[str]) -> None:
    log.extend(lines)
