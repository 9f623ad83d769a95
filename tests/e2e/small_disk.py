"""A disk of a few kilobytes, which only the gateway of a test sees: a tmpfs in a mount namespace of its own."""

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import processes

_MOUNT = 'mount -t tmpfs -o size="$0" tmpfs "$1" && shift && exec "$@"'


def mount(folder: Path, size: int, *, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that are started from now on have it there. Skips the test where nobody here may mount anything."""
    folder.mkdir()
    within = ["sh", "-c", _MOUNT, str(size), str(folder)]
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.join([*_unshare(within), *within, sys.executable])} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(processes, "sys", SimpleNamespace(executable=str(python)))


def _unshare(within: list[str]) -> list[str]:
    """How this user may mount something that only a process and its children see."""
    for command in (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]):
        if subprocess.run([*command, *within, "true"], check=False, capture_output=True).returncode == 0:
            return command
    pytest.skip("neither this user nor a user namespace of it may mount a small disk here")


@dataclass
class Disk:
    """What is mounted at `folder`, as the processes of the gateway see it."""

    folder: Path
    gateway: processes.Gateway

    @property
    def inside(self) -> Path:
        return Path(f"/proc/{self.gateway.process.pid}/root{self.folder}")

    def fill(self, size: int | None = None) -> None:
        """With so many bytes, or until nothing more goes in."""
        with (self.inside / "filler").open("wb", buffering=0) as filler:
            if size is not None:
                filler.write(bytes(size))
                return
            try:
                while filler.write(bytes(4096)):
                    pass
            except OSError:
                pass

    def make_room(self) -> None:
        (self.inside / "filler").unlink()
