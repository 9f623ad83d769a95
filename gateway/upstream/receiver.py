"""Reading from a socket with a limit of time: as any socket does it, and the cheaper ways that gevent allows."""

import socket
from math import inf
from time import monotonic
from typing import Any, Final, Protocol

import gevent.socket
from gevent import get_hub, getcurrent

READ_BYTES: Final = 64 * 1024
_READABLE: Final = 1  # libev's EV_READ


class Receiver(Protocol):
    def receive(self, timeout_s: float) -> bytes:
        """What is there, as soon as anything is; b"" at the end. Raises TimeoutError and any other OSError."""

    def close(self) -> None:
        """Before the socket is closed."""


def receiver_of(sock: socket.socket) -> Receiver:
    """TLS keeps bytes of its own, which no wait for the socket sees: it is read the plain way."""
    return StreamReceiver(sock) if type(sock) is gevent.socket.socket else PlainReceiver(sock)


class PlainReceiver:
    __slots__ = ("_sock", "_timeout_s")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def receive(self, timeout_s: float) -> bytes:
        self._sock.settimeout(timeout_s)
        return self._sock.recv(READ_BYTES)

    def close(self) -> None:
        pass


class GeventReceiver:
    """Waits before it reads, with a timer that is kept: gevent's own recv finds out by a system call that there is nothing to
    read yet, then sets up a Timeout. readable: its watcher of the loop, which others may use while nobody waits here.
    """

    __slots__ = ("_hub", "_sock", "_timeout_s", "_timer", "readable")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._hub: Any = get_hub()
        self.readable: Any = self._hub.loop.io(sock.fileno(), _READABLE)
        self._timeout_s = 0.0
        self._timer: Any = None

    def receive(self, timeout_s: float) -> bytes:
        if timeout_s != self._timeout_s:
            self._timeout_s = timeout_s
            self._timer = self._hub.loop.timer(timeout_s, timeout_s)
        # Not start: libev lets a timer that was stopped go on where it stood.
        self._timer.again(getcurrent().throw, TimeoutError)
        try:
            self._hub.wait(self.readable)
        finally:
            self._timer.stop()
        return self._sock.recv(READ_BYTES)

    def close(self) -> None:
        self.readable.close()
        if self._timer is not None:
            self._timer.close()


class StreamReceiver:
    """For many small reads: its watcher stays on from one to the next, and a clock looks when the first could be too late.

    A watcher and a timer that begin and end with each read cost a system call that fails and a tenth of what an event of a
    paced stream costs (2026-11). What comes while nobody waits puts the watcher to sleep until somebody does.
    """

    __slots__ = ("_clock", "_hub", "_is_watching", "_looks_at_s", "_readable", "_sock", "_until_s", "_waiting")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._hub: Any = get_hub()
        self._readable: Any = self._hub.loop.io(sock.fileno(), _READABLE)
        self._is_watching = False
        self._waiting: Any = None  # the greenlet that does
        self._until_s = inf
        self._clock: Any = None
        self._looks_at_s = inf

    def receive(self, timeout_s: float) -> bytes:
        self._until_s = until_s = monotonic() + timeout_s
        if until_s < self._looks_at_s:
            self._look_in(timeout_s)
        if not self._is_watching:
            self._is_watching = True
            self._readable.start(self._wake)
        self._waiting = waiting = getcurrent()
        try:
            while self._waiting is waiting:
                self._hub.switch()
        finally:
            self._waiting = None
        return self._sock.recv(READ_BYTES)

    def close(self) -> None:
        self._readable.close()
        if self._clock is not None:
            self._clock.close()

    def _wake(self) -> None:
        """In the loop: something is there, or the end."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.switch()
        else:
            self._is_watching = False
            self._readable.stop()

    def _look_in(self, seconds: float) -> None:
        if self._clock is not None:
            self._clock.close()
        self._looks_at_s = monotonic() + seconds
        self._clock = self._hub.loop.timer(seconds)
        self._clock.start(self._look)

    def _look(self) -> None:
        """In the loop: is it too late by now? Reads that came meanwhile have moved the moment on."""
        self._looks_at_s = inf
        if self._waiting is None:
            return
        left_s = self._until_s - monotonic()
        if left_s > 0:
            self._look_in(left_s)
        else:
            self._waiting.throw(TimeoutError)
