"""One HTTP/1.1 connection to a backend, one call at a time. Plain `socket` and `ssl`: gevent patches both."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from math import inf
from threading import Timer
from time import monotonic
from typing import Final

from gateway.upstream import names
from gateway.upstream.errors import (
    UpstreamAborted,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamRefused,
    UpstreamSilence,
    UpstreamStalled,
)
from gateway.upstream.framing import Body, ResponseHead, body_of, split_head
from gateway.upstream.receiver import Take, receiver_of

# A backend ends its side within milliseconds of ours. One that sends on for so long does not look: it is cut off.
REST_MAX_S: Final = 0.9
# One that is silent may only be slow, and what it has generated is still to come.
REST_SILENCE_MAX_S: Final = 3.0


class Connection:
    """Owned by one greenlet; only `abort` may be called from others. Whatever raises leaves a connection fit to be closed."""

    __slots__ = ("_body", "_early", "_head", "_is_aborted", "_receiver", "_sock", "has_answered", "opened_at_s")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._receiver = receiver_of(sock)
        self._is_aborted = False
        self._head: ResponseHead | None = None
        self._body: Body | None = None
        self._early = b""  # read with the head, not yet part of the body
        self.has_answered = False  # a byte of the answer at hand has come
        self.opened_at_s = monotonic()

    @classmethod
    def open(cls, host: str, port: int, *, tls: ssl.SSLContext | None, connect_s: float) -> "Connection":
        """Connect, within connect_s in all: looking the name up, and each of its addresses in turn. Raises UpstreamRefused."""
        deadline = monotonic() + connect_s
        failure: OSError = TimeoutError("no time left")
        for family, address in names.look_up(host, port, within_s=connect_s):
            if (left_s := deadline - monotonic()) <= 0:
                break
            try:
                return cls._open(family, address, left_s, tls, host)
            except OSError as error:
                failure = error
        raise UpstreamRefused(f"{type(failure).__name__}: {failure}") from failure

    @classmethod
    def _open(
        cls, family: socket.AddressFamily, address: names.Address, within_s: float, tls: ssl.SSLContext | None, host: str
    ) -> "Connection":
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(within_s)
            try:
                sock.connect(address)
            except TimeoutError:
                sock.getpeername()  # it is connected: a busy process has seen its own timer first
            # Without it a request of two segments waits 40 ms for an acknowledgement.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return cls(tls.wrap_socket(sock, server_hostname=host) if tls else sock)
        except BaseException:
            sock.close()
            raise

    def send(self, request: bytes, deadline: float) -> None:
        """Write a whole request, head and body in one. Raises UpstreamCut, UpstreamSilence, UpstreamAborted."""
        self.has_answered = False
        self._head = self._body = None
        if (left_s := deadline - monotonic()) <= 0:
            raise UpstreamSilence("no time left")
        try:
            try:
                sent = self._receiver.send_now(request)  # mostly all of it
            except BlockingIOError:
                sent = 0
            if sent < len(request):
                self._sock.settimeout(left_s)
                self._sock.sendall(request[sent:])
        except OSError as error:
            raise self._broken(error) from error

    def read_head(self, deadline: float, *, rest_s: float = inf) -> ResponseHead:
        """The head of the final answer; interim ones (1xx) are read over. deadline: monotonic seconds.

        rest_s: how long the rest of it may take once its first byte is there.
        Raises UpstreamSilence, UpstreamStalled, UpstreamCut, UpstreamGarbage, UpstreamAborted.
        """
        buffer = b""
        until = deadline
        while True:
            try:
                buffer += self._receive(until) or self._end_of_connection()
            except UpstreamSilence:
                if until < deadline:
                    raise UpstreamStalled("half a head") from None
                raise
            was_silent, self.has_answered = not self.has_answered, True
            while buffer and (parsed := split_head(buffer)):
                head, buffer = parsed
                if head.status == 101:
                    raise UpstreamGarbage("a protocol nobody asked for")
                if head.status >= 200:
                    self._head, self._body, self._early = head, body_of(head), buffer
                    return head
            if was_silent:
                until = min(deadline, monotonic() + rest_s)

    def read_some(self, deadline: float, take: Take | None = None) -> bytes:
        """What is there of the body, as soon as anything is; b"" when it has ended. deadline: monotonic seconds.

        take: as of Receiver.receive, asked for what begins with a chunk; it gets that with its framing.

        Raises UpstreamSilence when no byte of it has come by then (reading may go on later), UpstreamCut when the connection
        ends before the body, UpstreamGarbage, UpstreamAborted.
        """
        body = self._body
        if body is None or body.is_complete:
            return b""
        if self._is_aborted:
            raise UpstreamAborted
        data, self._early = self._early, b""
        while True:
            if data and ((piece := body.feed(data)) or body.is_complete):
                return piece
            try:
                data = self._receiver.receive(deadline, take if body.is_between_chunks else None)
            except OSError as error:
                raise self._broken(error) from error
            if self._is_aborted:
                self._early = data
                raise UpstreamAborted
            if not data:
                if not body.ends_with_connection:
                    self._end_of_connection()
                body.is_complete = True
                return b""

    @property
    def is_complete(self) -> bool:
        return self._body is not None and self._body.is_complete

    @property
    def is_reusable(self) -> bool:
        """Is the answer read to its end, and may another call follow?"""
        if self._head is None or self._body is None or self._is_aborted:
            return False
        body = self._body
        out_of_step = body.surplus or self._early or body.ends_with_connection
        return body.is_complete and self._head.keeps_alive and not out_of_step

    def is_stale(self) -> bool:
        """Has an idle connection become readable? It was closed, or holds bytes that nobody asked for."""
        try:
            return self._receiver.has_more()
        except OSError:
            return True

    def abort(self) -> None:
        """Break off whatever the owner waits for: it gets UpstreamAborted. Safe from any greenlet or thread, at any time.

        Before the answer that is at once. In its body only our side ends, which a backend takes for all of it; the owner
        wakes with the next bytes, with the backend's own end, or after REST_SILENCE_MAX_S.
        """
        if self._is_aborted:
            return
        self._is_aborted = True
        self._receiver.take_no_more()
        if self._body is None:
            self._shut(socket.SHUT_RDWR)
            return
        self._shut(socket.SHUT_WR)
        last = Timer(REST_SILENCE_MAX_S, self._shut, [socket.SHUT_RDWR])
        last.daemon = True
        last.start()

    def rest(self) -> Iterator[bytes]:
        """Abort, and hand out what the backend has sent of the body until it knew: it has generated that, read or not.

        Raises UpstreamGarbage.
        """
        self.abort()
        ends = monotonic() + REST_MAX_S
        data, self._early = self._early, b""
        with contextlib.suppress(OSError):  # cut, or silent to the last
            while self._body is not None and not self._body.is_complete:
                if piece := self._body.feed(data):
                    yield piece
                if monotonic() > ends:
                    return
                data = self._receiver.receive(monotonic() + 2 * REST_SILENCE_MAX_S)
                if not data:
                    return

    def close(self) -> None:
        self._receiver.close()
        with contextlib.suppress(OSError):
            self._sock.close()

    def _shut(self, how: int) -> None:
        """The class's own shutdown: TLS forgets its keys in its, and what still comes could not be read."""
        with contextlib.suppress(OSError):  # not connected any more
            socket.socket.shutdown(self._sock, how)

    def _receive(self, deadline: float) -> bytes:
        if self._is_aborted:
            raise UpstreamAborted
        try:
            data = self._receiver.receive(deadline)
        except OSError as error:
            raise self._broken(error) from error
        if self._is_aborted:
            self._early = data
            raise UpstreamAborted
        return data

    def _end_of_connection(self) -> bytes:
        raise UpstreamCut("the connection ended before the answer")

    def _broken(self, error: OSError) -> UpstreamError:
        if isinstance(error, TimeoutError):
            return UpstreamSilence("no byte went or came in time")
        return UpstreamAborted() if self._is_aborted else UpstreamCut(f"{type(error).__name__}: {error}")
