"""Whose files are whose in a folder that worker processes share, and which were left behind by dead ones.

A file is `<owner>.<rest>`; an owner is a process's pid and start time. The owner holds a lock on `<owner>.lock`, which the
kernel lets go when the process is gone, however it went: a pid alone may be another's by then, or of another container.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


class Ownership:
    """This process's name in `folder`, and the lock on it. Raises OSError where the folder cannot be written."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.name = f"{os.getpid()}-{time.time_ns()}"
        self._lock = folder / f"{self.name}.lock"
        # Not seen under its name before it is locked: a lock that can be taken means a dead owner.
        new = folder / f"{self.name}.new"
        self._fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.rename(self._lock)
        except OSError:
            os.close(self._fd)
            raise

    def end(self) -> None:
        """The files are anybody's from here on."""
        with suppress(OSError):
            self._lock.unlink()
        os.close(self._fd)


def left_behind(folder: Path, *, besides: str) -> Iterator[Path]:
    """The files of dead owners, to be renamed into one's own name while this is read, oldest first.

    besides: one's own name. Another reader may be at the same file where its owner ended in order: who renames it has it.
    """
    owners: dict[str, list[Path]] = {}
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            owner = path.name.partition(".")[0]
            if path.suffix and owner != besides:
                owners.setdefault(owner, []).append(path)
    for owner, paths in owners.items():
        lock = folder / f"{owner}.lock"
        try:
            fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            fd = -1  # there is none: it ended in order
        try:
            if fd >= 0:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield from (path for path in paths if path != lock)
            if fd >= 0:
                lock.unlink()
        except OSError:  # it lives, or another reader is here
            continue
        finally:
            if fd >= 0:
                os.close(fd)
