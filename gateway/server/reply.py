"""What the fast loop hands a WSGI application, and takes from it: a body of known length, and an answer in few sends."""

import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from io import UnsupportedOperation
from typing import Any, Final

import gevent
from gunicorn.util import http_date

from gateway.server.turns import give_way
from gateway.upstream.framing import CHUNK
from gateway.upstream.receiver import beneath

# In the environ: the watcher of the loop that tells when the client says something. Idle while its request is answered.
READABLE: Final = "sekisho.readable"
# In the environ: Reply.send_on, for an application that has more to send while it is waited for: in chunks, as framed there.
SEND_ON: Final = "sekisho.send_on"
# Largest single read of a body, as gunicorn's own.
READ_MAX_BYTES: Final = 1024 * 1024
_NO_BODY: Final = ("204", "304")
_CONTENT_LENGTH: Final = "content-length"
_CONTENT_LENGTH_CHARS: Final = len(_CONTENT_LENGTH)


class SizedInput:
    """`wsgi.input` of a request with a Content-Length. early: what came with the head, not more than that."""

    __slots__ = ("_client", "_early", "unread_bytes")

    def __init__(self, client: Any, early: bytes, length: int) -> None:
        self._client = client
        self._early = early
        self.unread_bytes = length

    def whole(self) -> bytes | None:
        """All of it where it came with the head, as most do; None where some has to be waited for, or was read."""
        if len(self._early) != self.unread_bytes:
            return None
        early, self._early, self.unread_bytes = self._early, b"", 0
        return early

    def read(self, size: int) -> bytes:
        """As gunicorn's: waits until it has all that is asked for, or the client's end; fewer bytes tell of that."""
        wanted = min(size, self.unread_bytes)
        parts = [self._early[:wanted]]
        self._early = self._early[wanted:]
        missing = wanted - len(parts[0])
        while missing > 0:
            data = self._client.recv(min(missing, READ_MAX_BYTES))
            if not data:
                break
            give_way()  # a client that never pauses is not the only one to be served
            parts.append(data)
            missing -= len(data)
        self.unread_bytes -= wanted
        return b"".join(parts)

    def readline(self, *_: Any) -> bytes:
        """Django looks whether there is one."""
        raise UnsupportedOperation("bodies are not read by lines")


class Reply:
    """The answer on its way out: its head goes with its first bytes, what is no longer than that in one send.

    Stock gunicorn sends the head by itself, and checks each header by two patterns.
    is_refusal: is the client told that its request was wrong, and no more?
    """

    __slots__ = ("_client", "_head", "_is_chunked", "_rest", "_send_now", "has_begun", "is_refusal", "keeps_connection")

    def __init__(self, client: Any) -> None:
        self._client = client
        self._send_now: Callable[[bytes], int] = beneath(client).send
        self._head: tuple[str, list[tuple[str, str]]] | None = None
        self._is_chunked = False
        self._rest: gevent.Greenlet | None = None  # sends what of an item would not go at once
        self.has_begun = False
        self.is_refusal = False
        self.keeps_connection = True

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        """The application's: it calls it once, with a Content-Length or for a stream, and with no header of the connection."""
        self._head = status, headers
        self.is_refusal = status.startswith("4")
        return self._write

    def send(self, items: Iterable[bytes]) -> None:
        """All of them, and the end. Raises what the application or the socket raises."""
        for item in items:
            if item:
                self._write(item)
        if self._is_chunked or not self.has_begun:
            self._write(b"")

    def send_on(self, chunk: bytes) -> bool:
        """Send one whole chunk at once, from wherever, while the application makes its next item. False: it has not gone."""
        if self._rest is not None or not self._is_chunked:
            return False
        send_now = self._send_now
        try:
            sent = send_now(chunk)
        except OSError:  # there is no room, or no client: who writes the item will find out
            return False
        if sent < len(chunk):
            self._rest = gevent.spawn(self._send_rest, chunk[sent:])
        return True

    def _send_rest(self, data: bytes) -> bool:
        try:
            self._client.sendall(data)
        except OSError:
            return False
        return True

    def _write(self, item: bytes) -> None:
        """An empty one ends what is chunked. Mostly one system call: gevent's own sendall sets up a view and a clock first."""
        if self._rest is not None:
            has_gone, self._rest = self._rest.get(), None
            if not has_gone:
                raise BrokenPipeError
        head = b"" if self.has_begun else self._begun()
        data = head + (CHUNK % (len(item), item) if self._is_chunked else item)
        try:
            sent = self._send_now(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._client.sendall(data[sent:])

    def _begun(self) -> bytes:
        """The head. Raises ValueError where a line end stands in a header: it would begin another one."""
        if self._head is None:
            raise RuntimeError("the application has not begun its answer")
        status, headers = self._head
        has_length = status.startswith(_NO_BODY)
        lines = ""
        for name, value in headers:
            lines += f"{name}: {value}\r\n"
            has_length = has_length or (len(name) == _CONTENT_LENGTH_CHARS and name.lower() == _CONTENT_LENGTH)
        self._is_chunked = not has_length
        connection = "keep-alive" if self.keeps_connection else "close"
        coding = "" if has_length else "Transfer-Encoding: chunked\r\n"
        date = _date(int(time.time()))
        head = f"HTTP/1.1 {status}\r\nServer: sekisho\r\nDate: {date}\r\nConnection: {connection}\r\n{coding}{lines}"
        ends = 4 + self._is_chunked + len(headers)
        if head.count("\r") != ends or head.count("\n") != ends or "\0" in head:
            raise ValueError("a header of the answer holds a line end")
        self.has_begun = True
        return head.encode("latin-1") + b"\r\n"


@lru_cache(maxsize=2)
def _date(now_s: int) -> str:
    return str(http_date(now_s))
