"""One client's socket: bytes in, bytes out, and who notices when the client goes.

Plain non-blocking sockets on gevent's loop. A greenlet serves one connection; while it works on an answer the loop watches the
socket for it, and throws ClientGone into it at the end of the client's bytes: for vLLM a half-close is a disconnect too.
"""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import gevent

from gateway.simulator import http11

_READ: Final = 1
_WRITE: Final = 2
_READ_BYTES: Final = 65536
OUTBOX_BYTES: Final = 16384  # flushed above this; what a stream at full speed writes at once


class ClientGone(Exception):
    """The client has closed, half-closed or reset its connection."""


class Connection:
    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._hub = gevent.get_hub()
        self._readable: Any = self._hub.loop.io(sock.fileno(), _READ)
        self._writable: Any = self._hub.loop.io(sock.fileno(), _WRITE)
        self._greenlet: Any = gevent.getcurrent()
        self._inbox = bytearray()
        self._outbox = bytearray()
        self._drip_s = 0.0
        self._hides_disconnect = False
        self.idle_since_s: float | None = None

    def next_request(self) -> http11.Request | None:
        """The next request, None when the client has closed. Raises Malformed."""
        head = http11.take_head(self._inbox)
        while head is None:
            if not self._receive():
                return None
            head = http11.take_head(self._inbox)
        self.idle_since_s = None
        if head.length_bytes == 0:
            return head.with_body(b"")
        if head.expects_continue and len(self._inbox) < (head.length_bytes or 1):
            self.write(http11.CONTINUE)
            self.flush()
        body = self._body(head.length_bytes)
        return None if body is None else head.with_body(body)

    def _body(self, length_bytes: int | None) -> bytes | None:
        chunked = http11.ChunkedBody()
        while True:
            if length_bytes is None:
                body = chunked.take(self._inbox)
                if body is not None:
                    return body
            elif len(self._inbox) >= length_bytes:
                body = bytes(self._inbox[:length_bytes])
                del self._inbox[:length_bytes]
                return body
            if not self._receive():
                return None

    def _receive(self) -> bool:
        """More bytes into the inbox; False when there are no more."""
        while True:
            try:
                data = self._sock.recv(_READ_BYTES)
            except BlockingIOError:
                self._hub.wait(self._readable)
            except OSError:
                return False
            else:
                self._inbox += data
                return bool(data)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, the end of the client's bytes throws ClientGone into the greenlet that serves it.

        A second request on the same connection ends the watch and hides the disconnect, as it does in vLLM.
        """
        self._hides_disconnect = bool(self._inbox)
        if not self._hides_disconnect:
            self._readable.start(self._on_readable)
        try:
            yield
        finally:
            self._readable.stop()

    def _on_readable(self) -> None:
        try:
            data = self._sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._readable.stop()
        self._inbox += data
        self._hides_disconnect = bool(data)
        if not data:
            self._greenlet.kill(ClientGone, block=False)

    def write(self, data: bytes) -> None:
        """Into the outbox; sent by flush(), or here when much has gathered. Raises ClientGone."""
        self._outbox += data
        if len(self._outbox) > OUTBOX_BYTES:
            self.flush()
            gevent.sleep(0)  # a stream at full speed must not keep the others waiting

    def drip(self, bytes_per_s: float) -> None:
        """From now on send one byte at a time; 0 ends it."""
        self._drip_s = 1 / bytes_per_s if bytes_per_s else 0.0

    def hold_back(self, length_bytes: int) -> None:
        """The last bytes in the outbox are never sent."""
        del self._outbox[max(0, len(self._outbox) - length_bytes) :]

    def flush(self) -> None:
        """Send what is in the outbox. Raises ClientGone.

        Whatever is thrown in while it waits, the outbox holds exactly the bytes that were not sent.
        """
        outbox = self._outbox
        while outbox:
            try:
                sent = self._sock.send(outbox[:1] if self._drip_s else outbox)
            except BlockingIOError:
                self._hub.wait(self._writable)
                continue
            except OSError:
                if not self._hides_disconnect:
                    raise ClientGone from None
                outbox.clear()
                return
            del outbox[:sent]
            if self._drip_s:
                gevent.sleep(self._drip_s)

    def try_flush(self) -> None:
        """Send what can be sent before the end."""
        try:
            self.flush()
        except ClientGone:
            self._outbox.clear()

    def end_idle(self, older_than_s: float) -> None:
        """Close it if it has waited for its next request that long."""
        if self.idle_since_s is not None and time.monotonic() - self.idle_since_s > older_than_s:
            self._shut_down()

    def _shut_down(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        for watcher in (self._readable, self._writable):
            watcher.stop()
            watcher.close()
        self._sock.close()
