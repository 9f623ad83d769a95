"""The processes of one machine: started as children, their output prefixed, watched, ended in order. Knows no Django.

Every child is in a session of its own (Ctrl-C reaches only us) and dies with us, however we end.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final, TextIO
from urllib.parse import urlsplit

from portal.embedded import Store, die_with_parent

LAST_LINES: Final = 15
READY_S: Final = 60.0
STOP_S: Final = 40.0  # above gunicorn's graceful_timeout
POLL_S: Final = 0.05


class RoleFailed(Exception):
    """A process ended, or did not become ready; the message holds its last lines."""


class Stopped(Exception):
    """We were asked to stop."""


@dataclass(frozen=True, slots=True)
class Role:
    """One kind of process. answers: True once it serves; asked again and again, from a thread, until then.

    inherits: descriptors that the process gets, and we give up.
    """

    name: str
    command: list[str]
    environment: Mapping[str, str]
    answers: Callable[[], bool]
    inherits: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Event:
    """signal: we are asked to stop. ready, ended: what became of the child `name`."""

    kind: str
    name: str = ""


@dataclass(slots=True)
class _Child:
    name: str
    process: subprocess.Popen[bytes]
    stop_signal: signal.Signals
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    store: Store | None = None
    is_ready: bool = False

    def tail(self) -> list[str]:
        if self.store is not None:
            return self.store.log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        return list(self.last_lines)


class Supervisor:
    """Owns the children of one `up`. Use from the main thread: the kernel ends a child with the thread that made it."""

    def __init__(self, output: TextIO, *, folder: Path) -> None:
        """output: gets the children's lines. folder: where they run."""
        self._output = output
        self._folder = folder
        self._children: dict[str, _Child] = {}
        self._events: SimpleQueue[_Event] = SimpleQueue()  # its put() is safe in a signal handler

    def catch_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, lambda *_: self._events.put(_Event("signal")))

    def adopt(self, store: Store) -> None:
        """Watch and end a store that is running already."""
        child = _Child(store.name, store.process, store.stop_signal, store=store, is_ready=True)
        self._children[child.name] = child
        threading.Thread(target=self._watch, args=(child, None), daemon=True).start()

    def start(self, role: Role) -> None:
        process = subprocess.Popen(
            role.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._folder,
            env=dict(role.environment),
            pass_fds=role.inherits,
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - one prctl call, loaded beforehand
        )
        for descriptor in role.inherits:
            os.close(descriptor)
        child = _Child(role.name, process, signal.SIGTERM)
        self._children[child.name] = child
        relay = threading.Thread(target=self._relay, args=(child, process.stdout or ()), daemon=True)
        relay.start()
        threading.Thread(target=self._watch, args=(child, relay), daemon=True).start()
        threading.Thread(target=self._await_answer, args=(child, role.answers), daemon=True).start()

    def await_ready(self) -> None:
        """Return when every child serves. Raises RoleFailed, also when that takes too long, and Stopped."""
        deadline = time.monotonic() + READY_S
        while waiting := [child for child in self._children.values() if not child.is_ready]:
            try:
                self._handle(self._events.get(timeout=max(0.0, deadline - time.monotonic())))
            except Empty:
                raise RoleFailed(_report(waiting[0], f"did not answer within {READY_S:.0f} s")) from None

    def run(self) -> None:
        """Serve until a child ends (RoleFailed) or we are asked to stop (Stopped)."""
        while True:
            self._handle(self._events.get())

    def stop(self, *groups: tuple[str, ...]) -> None:
        """End the children by name, a group after the other; those not named come last, newest first.

        A group gets STOP_S; what then still runs, and what a dead child left behind, is killed. A second signal kills
        at once.
        """
        named = {name for group in groups for name in group}
        rest = [(name,) for name in reversed(self._children) if name not in named]
        for group in [*groups, *rest]:
            children = [self._children[name] for name in group if name in self._children]
            for child in children:
                if child.process.poll() is None:
                    child.process.send_signal(child.stop_signal)
            self._await_end(children)
            for child in children:
                _kill_group(child)
                if child.store is not None:
                    child.store.leave()

    def _await_end(self, children: list[_Child]) -> None:
        deadline = time.monotonic() + STOP_S
        while any(child.process.poll() is None for child in children):
            with contextlib.suppress(Empty):
                if self._events.get(timeout=POLL_S).kind == "signal":
                    return
            if time.monotonic() > deadline:
                return

    def _handle(self, event: _Event) -> None:
        if event.kind == "signal":
            raise Stopped
        child = self._children[event.name]
        if event.kind == "ready":
            child.is_ready = True
            return
        code = child.process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        raise RoleFailed(_report(child, how))

    def _watch(self, child: _Child, relay: threading.Thread | None) -> None:
        child.process.wait()
        if relay is not None:
            relay.join(1.0)  # its last lines; a grandchild may hold the pipe open longer
        self._events.put(_Event("ended", child.name))

    def _relay(self, child: _Child, lines: Iterable[bytes]) -> None:
        for line in lines:
            text = line.decode(errors="replace").rstrip("\n")
            child.last_lines.append(text)
            with contextlib.suppress(OSError, ValueError):  # nobody reads our output any more: serve on
                self._output.write(f"{child.name:<9} | {text}\n")
                self._output.flush()

    def _await_answer(self, child: _Child, answers: Callable[[], bool]) -> None:
        while child.process.poll() is None:
            if answers():
                self._events.put(_Event("ready", child.name))
                return
            time.sleep(POLL_S)


def http_answers(url: str) -> bool:
    """Does `url` answer 200? Waits for a server that has taken the connection but is not yet up."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=READY_S)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _report(child: _Child, what: str) -> str:
    lines = "".join(f"\n    {line}" for line in child.tail())
    return f"{child.name} {what}." + (f" Its last lines:{lines}" if lines else "")


def _kill_group(child: _Child) -> None:
    """What is left of the child's session: itself when it would not end, workers that a killed master left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.process.pid, signal.SIGKILL)
    child.process.wait()
