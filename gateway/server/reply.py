"""What the fast loop hands a WSGI application, and takes from it: a body of known length, and an answer in few sends."""

import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from io import UnsupportedOperation
from typing import Any, Final

from gunicorn.util import http_date

from gateway.server.turns import give_way

# In the environ: the watcher of the loop that tells when the client says something. Idle while its request is answered.
READABLE: Final = "sekisho.readable"
# Largest single read of a body, as gunicorn's own.
READ_MAX_BYTES: Final = 1024 * 1024
_NO_BODY: Final = ("204", "304")


class SizedInput:
    """`wsgi.input` of a request with a Content-Length. early: what came with the head, not more than that."""

    __slots__ = ("_client", "_early", "_length")

    def __init__(self, client: Any, early: bytes, length: int) -> None:
        self._client = client
        self._early = early
        self._length = length

    def whole(self) -> bytes | None:
        """All of it where it came with the head, as most do; None where some has to be waited for, or was read."""
        if len(self._early) != self._length:
            return None
        early, self._early, self._length = self._early, b"", 0
        return early

    def read(self, size: int) -> bytes:
        """As gunicorn's: waits until it has all that is asked for, or the client's end; fewer bytes tell of that."""
        wanted = min(size, self._length)
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
        self._length -= wanted
        return b"".join(parts)

    def readline(self, *_: Any) -> bytes:
        """Django looks whether there is one."""
        raise UnsupportedOperation("bodies are not read by lines")

    @property
    def unread_bytes(self) -> int:
        return self._length


class Reply:
    """The answer on its way out: its head goes with its first bytes, what is no longer than that in one send.

    Stock gunicorn sends the head by itself, and checks each header by two patterns.
    """

    __slots__ = ("_client", "_head", "_is_chunked", "has_begun", "keeps_connection")

    def __init__(self, client: Any) -> None:
        self._client = client
        self._head: tuple[str, list[tuple[str, str]]] | None = None
        self._is_chunked = False
        self.has_begun = False
        self.keeps_connection = True

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        """The application's: it calls it once, with a Content-Length or for a stream, and with no header of the connection."""
        self._head = status, headers
        return self._write

    @property
    def is_refusal(self) -> bool:
        """Is it told that its request was wrong, and no more?"""
        return self._head is not None and self._head[0].startswith("4")

    def send(self, items: Iterable[bytes]) -> None:
        """All of them, and the end. Raises what the application or the socket raises."""
        for item in items:
            if item:
                self._write(item)
        if not self.has_begun:
            send_all(self._client, self._begun())
        if self._is_chunked:
            send_all(self._client, b"0\r\n\r\n")

    def _write(self, item: bytes) -> None:
        head = b"" if self.has_begun else self._begun()
        if self._is_chunked:
            send_all(self._client, b"%b%X\r\n%b\r\n" % (head, len(item), item))
        else:
            send_all(self._client, head + item if head else item)

    def _begun(self) -> bytes:
        """The head. Raises ValueError where a line end stands in a header: it would begin another one."""
        if self._head is None:
            raise RuntimeError("the application has not begun its answer")
        status, headers = self._head
        lines = [f"{name}: {value}" for name, value in headers]
        self._is_chunked = not status.startswith(_NO_BODY) and not any(name.lower() == "content-length" for name, _ in headers)
        connection = "keep-alive" if self.keeps_connection else "close"
        coding = "\r\nTransfer-Encoding: chunked" if self._is_chunked else ""
        first = f"HTTP/1.1 {status}\r\nServer: sekisho\r\nDate: {_date(int(time.time()))}\r\nConnection: {connection}{coding}"
        head = "\r\n".join((first, *lines))
        ends = 3 + self._is_chunked + len(lines)
        if head.count("\r") != ends or head.count("\n") != ends or "\0" in head:
            raise ValueError("a header of the answer holds a line end")
        self.has_begun = True
        return head.encode("latin-1") + b"\r\n\r\n"


def send_all(client: Any, data: bytes) -> None:
    """Mostly one system call. gevent's own sendall sets up a view and a clock first."""
    sent = client.send(data)
    if sent < len(data):
        client.sendall(data[sent:])


@lru_cache(maxsize=2)
def _date(now_s: int) -> str:
    return str(http_date(now_s))
