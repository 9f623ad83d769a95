"""A socket's ends with a limit of time: as any socket has them, and the cheaper ways that gevent allows.

gevent's socket wraps one that never waits. Ours ask that one, and gevent's only where there is something to wait for: its own
send and recv put a frame between, 0.7 of 2.7 us (2026-11).
"""

import socket
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any, Final, Protocol

import gevent.socket
from gevent import get_hub, getcurrent

READ_BYTES: Final = 64 * 1024
_READABLE: Final = 1  # libev's EV_READ

Take = Callable[[bytes], float]


class Receiver(Protocol):
    def send_now(self, data: bytes, /) -> int:
        """Hand over as many bytes as leave without waiting, and tell how many. Raises BlockingIOError where none can."""

    def receive(self, deadline: float, take: Take | None = None) -> bytes:
        """What is there, as soon as anything is; b"" at the end. Raises TimeoutError and any other OSError.

        deadline: monotonic seconds. take: asked first, where the receiver can wait in the loop, for each read; where it takes
        one it returns until when the next is awaited, else 0.0.
        """

    def take_no_more(self) -> None:
        """Whatever comes from now on is for who waits. Safe from any thread."""

    def has_more(self) -> bool:
        """Is there something to be read at once, or the end? Raises OSError where it is no good end."""

    def close(self) -> None:
        """Before the socket is closed."""


def receiver_of(sock: socket.socket) -> Receiver:
    """TLS keeps bytes of its own, which no wait for the socket sees: it is read the plain way."""
    return StreamReceiver(sock) if type(sock) is gevent.socket.socket else PlainReceiver(sock)


def beneath(sock: Any) -> Any:
    """The socket that never waits, of gevent's; any other is itself: what went to the one beneath TLS would go in clear."""
    return sock._sock if type(sock) is gevent.socket.socket else sock  # noqa: SLF001 - gevent keeps it for this


class PlainReceiver:
    __slots__ = ("_sock",)

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send_now(self, _data: bytes, /) -> int:
        """Left to those who wait: a TLS connection may have to read before it can write."""
        return 0

    def receive(self, deadline: float, take: Take | None = None) -> bytes:
        if (left_s := deadline - monotonic()) <= 0:
            raise TimeoutError
        self._sock.settimeout(left_s)
        return self._sock.recv(READ_BYTES)

    def take_no_more(self) -> None:
        pass

    def has_more(self) -> bool:
        self._sock.settimeout(0.0)
        try:
            # The class's own recv: TLS refuses to peek, and it is the bytes underneath that tell.
            socket.socket.recv(self._sock, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        pass


class GeventReceiver:
    """Waits before it reads, with a timer that is kept: gevent's own recv finds out by a system call that there is nothing to
    read yet, then sets up a Timeout. readable: its watcher of the loop, which others may use while nobody waits here.
    """

    __slots__ = ("_hub", "_recv", "_timeout_s", "_timer", "readable")

    def __init__(self, sock: socket.socket) -> None:
        self._recv: Callable[[int], bytes] = beneath(sock).recv
        self._hub: Any = get_hub()
        self.readable: Any = self._hub.loop.io(sock.fileno(), _READABLE)
        self._timeout_s = 0.0
        self._timer: Any = None

    def receive(self, timeout_s: float) -> bytes:
        """As a Receiver's, but for a time: with the same one again its timer is the one that is there."""
        if timeout_s != self._timeout_s:
            self._timeout_s = timeout_s
            self._timer = self._hub.loop.timer(timeout_s, timeout_s)
        # Not start: libev lets a timer that was stopped go on where it stood.
        self._timer.again(getcurrent().throw, TimeoutError)
        try:
            while True:
                self._hub.wait(self.readable)
                try:
                    return self._recv(READ_BYTES)
                except BlockingIOError:  # it was said to be readable, and is not
                    continue
        finally:
            self._timer.stop()

    def close(self) -> None:
        self.readable.close()
        if self._timer is not None:
            self._timer.close()


class StreamReceiver:
    """For many small reads: its watcher stays on from one to the next, and a clock looks when the first could be too late.

    A watcher and a timer that begin and end with each read cost a system call that fails and a tenth of what an event of a
    paced stream costs (2026-11). What comes while nobody waits puts the watcher to sleep until somebody does.
    """

    __slots__ = (
        "_clock", "_deadline", "_hub", "_is_watching", "_left", "_looks_at", "_readable", "_recv", "_take", "_waiting",
        "send_now",
    )  # fmt: skip

    def __init__(self, sock: socket.socket) -> None:
        plain = beneath(sock)
        self._recv: Callable[..., bytes] = plain.recv
        self.send_now: Callable[[bytes], int] = plain.send
        self._hub: Any = get_hub()
        self._readable: Any = self._hub.loop.io(sock.fileno(), _READABLE)
        self._is_watching = False
        self._waiting: Any = None  # the greenlet that does
        self._take: Take | None = None
        self._left: bytes | None = None  # a read that was not taken
        self._deadline = inf
        self._clock: Any = None
        self._looks_at = inf  # monotonic seconds

    def receive(self, deadline: float, take: Take | None = None) -> bytes:
        self._deadline = deadline
        self._take = take
        while True:
            if self._deadline < self._looks_at:  # which a read that was taken has moved on
                self._look_in(self._deadline - monotonic())
            if not self._is_watching:
                self._is_watching = True
                self._readable.start(self._wake)
            self._waiting = waiting = getcurrent()
            try:
                while self._waiting is waiting:
                    self._hub.switch()
            finally:
                self._waiting = None
            if self._left is not None:
                data, self._left = self._left, None
                return data
            try:
                return self._recv(READ_BYTES)
            except BlockingIOError:  # it was said to be readable, and is not
                continue

    def take_no_more(self) -> None:
        self._take = None

    def has_more(self) -> bool:
        try:
            self._recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._readable.close()
        if self._clock is not None:
            self._clock.close()

    def _wake(self) -> None:
        """In the loop: something is there, or the end."""
        waiting = self._waiting
        if waiting is None:
            self._is_watching = False
            self._readable.stop()
            return
        take, recv = self._take, self._recv  # what stands in a slot is called as a local: CPython 3.11 is quick at that alone
        if take is not None:
            try:
                data = recv(READ_BYTES)
                if deadline := take(data):
                    self._deadline = deadline
                    return
                self._left = data
            except BlockingIOError:
                return
            except Exception as error:  # noqa: BLE001 - whoever waits hears of it
                self._waiting = None
                waiting.throw(error)
                return
        self._waiting = None
        waiting.switch()

    def _look_in(self, seconds: float) -> None:
        """When the deadline is. Raises TimeoutError where that has passed."""
        if seconds <= 0:
            raise TimeoutError
        if self._clock is not None:
            self._clock.close()
        self._looks_at = self._deadline
        self._clock = self._hub.loop.timer(seconds)
        self._clock.start(self._look)

    def _look(self) -> None:
        """In the loop: is it too late by now? Reads that came meanwhile have moved the moment on."""
        self._looks_at = inf
        if self._waiting is None:
            return
        left_s = self._deadline - monotonic()
        if left_s > 0:
            self._look_in(left_s)
        else:
            self._waiting.throw(TimeoutError)
