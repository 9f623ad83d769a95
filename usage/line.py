"""One connection to Redis for all calls of a worker: what they ask in one turn of the loop goes out in one send.

A pooled connection of redis-py costs a call 50 us, two polls and a place in the pool among them; this one 8, and 2 where
32 calls ask at once (2026-11). Only for a process that runs on gevent, and only for its own thread.
"""

import _socket  # the plain socket, whatever gevent patched: it is only used when the loop says that it is ready
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import gevent
import hiredis
import redis
from gevent.hub import Waiter
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as TimedOut

from usage.store import TIMEOUT_S

_READ: Final = 1
_WRITE: Final = 2
_RECEIVE_BYTES: Final = 1 << 16
BUSY_TIMES: Final = 8  # so many time-outs long a call waits for a server that answers others
# redis-py's own, so that whoever handles its errors handles ours.
_error_of: Final[Callable[[str], ResponseError]] = redis.connection.DefaultParser.parse_error


class Ear(Protocol):
    """Hears the reply to a command, an error of the server's too, or why none comes. In the loop: it never waits or raises."""

    def switch(self, reply: Any, /) -> object: ...
    def throw(self, error: Exception, /) -> object: ...


class Line:
    """As much of a redis.Redis as the scripts of the hot path need; raises its errors. Reconnects by itself, at once."""

    def __init__(self, client: redis.Redis, *, timeout_s: float = TIMEOUT_S) -> None:
        self._pool = client.connection_pool
        self._timeout_s = timeout_s
        self._wire: _Wire | None = None
        self._dialling: Any = None

    @staticmethod
    def suits(url: str) -> bool:
        """Encrypted connections are left to redis-py: what its socket holds decrypted, no loop can see."""
        return not url.startswith("rediss:")

    def ask(self, packed: bytes) -> Any:
        """The reply to a command in RESP. Raises redis.RedisError.

        Once more where the connection broke, as store.connect() has it: it may have died with the server's last restart.
        """
        wire = self._wire
        try:
            reply = (self._connected() if wire is None or wire.is_broken else wire).ask(packed)
        except (Disconnected, TimedOut):
            reply = self._connected().ask(packed)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def tell(self, packed: bytes, ear: Ear) -> bool:
        """Send a command in RESP now, as far as the socket takes it, and wait for nothing. False: there is no connection."""
        wire = self._wire
        if wire is None or wire.is_broken:
            return False
        wire.tell(packed, ear)
        return True

    def _connected(self) -> "_Wire":
        """One greenlet connects, for all: a hundred that each waited for a frozen server would wait one after another."""
        if self._wire is not None and not self._wire.is_broken:
            return self._wire
        if self._dialling is None:
            self._dialling = gevent.spawn(self._dial)
        error: Exception | None = self._dialling.get()
        if error is not None or self._wire is None:
            raise Disconnected(str(error)) from error
        return self._wire

    def _dial(self) -> Exception | None:
        """redis-py connects, with what the URL says: password, database, names."""
        try:
            connection = self._pool.connection_class(**self._pool.connection_kwargs)
            connection.connect()
            its = connection._sock  # noqa: SLF001 - taken from it: redis-py has no word for that
            family = its.family
            self._wire = _Wire(its.detach(), family, self._timeout_s)
        except (redis.RedisError, OSError) as error:
            return error
        finally:
            self._dialling = None
        return None


class _Wire:
    """A connection until it breaks; then everyone who waits on it is told. Its callbacks run in the loop and never wait."""

    def __init__(self, descriptor: int, family: int, timeout_s: float) -> None:
        self.is_broken = False
        self._socket = _socket.socket(family, _socket.SOCK_STREAM, 0, descriptor)
        self._socket.setblocking(False)
        self._timeout_s = timeout_s
        self._heard_s = 0.0  # when the server last said anything, or had to begin to
        self._reader = hiredis.Reader(replyError=_error_of)
        self._waiting: deque[tuple[Ear, float]] = deque()
        self._unsent: list[bytes] = []
        self._loop = gevent.get_hub().loop
        self._readable = self._loop.io(descriptor, _READ)
        self._writable = self._loop.io(descriptor, _WRITE)
        self._clock = self._loop.timer(timeout_s / 4, timeout_s / 4)
        self._readable.start(self._receive)

    def ask(self, packed: bytes) -> Any:
        """The reply; an error of the server's is returned. Raises Disconnected, TimedOut."""
        if self.is_broken:
            raise Disconnected("the connection has ended")
        waiter = Waiter()
        self._expect(waiter)
        if not self._unsent:
            self._loop.run_callback(self._send)
        self._unsent.append(packed)
        return waiter.get()

    def tell(self, packed: bytes, ear: Ear) -> None:
        """Nobody waits, so it is not gathered either: with the server before whoever tells it goes on."""
        self._expect(ear)
        is_due = bool(self._unsent)
        self._unsent.append(packed)
        try:  # noqa: SIM105 - suppress() is three functions more
            self._send_what_goes()
        except OSError:  # the loop's turn to send finds out, and tells all who wait
            pass
        if self._unsent and not is_due:
            self._loop.run_callback(self._send)

    def _expect(self, ear: Ear) -> None:
        now_s = time.monotonic()
        if not self._waiting:
            self._heard_s = now_s
            self._clock.start(self._look_at_the_clock)
        self._waiting.append((ear, now_s))

    def _send_what_goes(self) -> None:
        data = b"".join(self._unsent)
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        self._unsent = [data[sent:]] if sent < len(data) else []

    def _send(self) -> None:
        if self.is_broken:
            return
        if self._unsent:
            try:
                self._send_what_goes()
            except OSError as error:
                self._break(Disconnected, str(error))
                return
        if not self._unsent:
            self._writable.stop()
        elif not self._writable.active:
            self._writable.start(self._send)

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._break(Disconnected, str(error))
            return
        if not data:
            self._break(Disconnected, "the server has closed the connection")
            return
        self._heard_s = time.monotonic()
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._waiting.popleft()[0].switch(reply)
        except (hiredis.ProtocolError, IndexError) as error:  # a reply that nobody asked for
            self._break(Disconnected, str(error))

    def _look_at_the_clock(self) -> None:
        """Not before what has come meanwhile is read: the loop may have stood still, not the server."""
        if self._is_late():
            self._receive()
        if not self._waiting:
            self._clock.stop()
        elif self._is_late():
            self._break(TimedOut, "the server does not answer")

    def _is_late(self) -> bool:
        """A server that answers others is busy, not frozen: to break then would have all of them ask again."""
        if not self._waiting or self.is_broken:
            return False
        now_s = time.monotonic()
        return now_s - self._heard_s > self._timeout_s or now_s - self._waiting[0][1] > BUSY_TIMES * self._timeout_s

    def _break(self, kind: type[Exception], message: str) -> None:
        self.is_broken = True
        for watcher in (self._readable, self._writable, self._clock):
            watcher.stop()
            watcher.close()
        self._socket.close()
        while self._waiting:
            self._waiting.popleft()[0].throw(kind(message))
