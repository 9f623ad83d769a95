"""HTTP/1.1 as a client reads it (RFC 9112): heads, and bodies out of their framing. Pure; bytes in, bytes out."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, Protocol

from gateway.upstream.errors import UpstreamGarbage
from usage.values import light_dataclass

HEAD_MAX_BYTES: Final = 64 * 1024
_CHUNK_LINE_MAX_BYTES: Final = 8 * 1024
_SIZE_MAX_DIGITS: Final = 16
CHUNK_LINE_USUAL_BYTES: Final = _SIZE_MAX_DIGITS + 2  # at most: a size, and nothing about it
CHUNK: Final = b"%X\r\n%b\r\n"  # its size, its content; to be filled in where it is sent, without a function more
_VERSION: Final = b"HTTP/1."
_STATUS_LINE: Final = re.compile(r"HTTP/1\.([01]) ([1-5][0-9]{2})(?:\s.*)?", re.DOTALL)
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_USUAL_HEAD_MAX_BYTES: Final = 2048


@light_dataclass
class ResponseHead:
    """status: 200 to 599. headers: by lower-case name; several of one name joined by a comma."""

    status: int
    headers: Mapping[str, str]
    is_http_1_0: bool = False

    @property
    def keeps_alive(self) -> bool:
        options = self.headers.get("connection", "").lower()
        return "keep-alive" in options if self.is_http_1_0 else "close" not in options


class Body(Protocol):
    """Takes a body out of its framing, read by read."""

    is_complete: bool
    surplus: bool  # bytes came behind the end: the connection is out of step
    ends_with_connection: bool

    @property
    def is_between_chunks(self) -> bool:
        """Does the next read begin with a chunk?"""

    def feed(self, data: bytes) -> bytes:
        """The part of the body in `data`. Raises UpstreamGarbage."""


def split_head(buffer: bytes) -> tuple[ResponseHead, bytes] | None:
    """The head at the start of `buffer` and what follows it; None while it is not whole. Raises UpstreamGarbage."""
    if not buffer.startswith(_VERSION[: len(buffer)]):
        raise UpstreamGarbage("not an HTTP/1 status line")
    end = buffer.find(b"\r\n\r\n")
    if end > HEAD_MAX_BYTES or (end < 0 and len(buffer) > HEAD_MAX_BYTES):
        raise UpstreamGarbage(f"a head of more than {HEAD_MAX_BYTES} bytes")
    if end < 0:
        return None
    return _parse_head(buffer[:end]), buffer[end + 4 :]


def _parse_head(head: bytes) -> ResponseHead:
    status_line, *lines = head.decode("latin-1").split("\r\n")
    status = _STATUS_LINE.fullmatch(status_line)
    if status is None:
        raise UpstreamGarbage("not an HTTP/1 status line")
    headers: dict[str, str] = {}
    read = _kept_header if len(head) <= _USUAL_HEAD_MAX_BYTES else _header
    for line in lines:
        name, value = read(line)
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return ResponseHead(int(status[2]), headers, status[1] == "0")


def _header(line: str) -> tuple[str, str]:
    """Its name, in lower case, and its value."""
    name, colon, value = line.partition(":")
    if not colon or not name or name != name.strip():
        raise UpstreamGarbage("not a header line")
    return name.lower(), value.strip()


# A backend says the same in most heads; a line that was read before costs a third (2026-11).
_kept_header = lru_cache(maxsize=1024)(_header)


def body_of(head: ResponseHead) -> Body:
    """The framing of the answer to a POST or GET. Raises UpstreamGarbage where head leaves it in doubt."""
    if head.status in {204, 304}:
        return SizedBody(0)
    if (coding := head.headers.get("transfer-encoding")) is not None:
        if coding.lower() != "chunked":
            raise UpstreamGarbage("a transfer coding other than chunked")
        return ChunkedBody()
    if (length := head.headers.get("content-length")) is not None:
        if not _LENGTH.fullmatch(length):
            length = _one_of(length)
        return SizedBody(int(length))
    return UnboundedBody()


def _one_of(lengths: str) -> str:
    """The length that is said several times."""
    size, *others = {size.strip() for size in lengths.split(",")}
    if others or not _LENGTH.fullmatch(size):
        raise UpstreamGarbage("no content length")
    return size


class SizedBody:
    """As long as Content-Length says."""

    __slots__ = ("_left", "is_complete", "surplus")
    ends_with_connection = False
    is_between_chunks = False

    def __init__(self, size_bytes: int) -> None:
        self._left = size_bytes
        self.is_complete = size_bytes == 0
        self.surplus = False

    def feed(self, data: bytes) -> bytes:
        left = self._left - len(data)
        if left > 0:
            self._left = left
            return data
        self.is_complete = True
        if left < 0:
            self.surplus = True
            data = data[: self._left]
        self._left = 0
        return data


class UnboundedBody:
    """Ends with the connection: whether it is whole, nobody can tell."""

    __slots__ = ("is_complete",)
    surplus = False
    ends_with_connection = True
    is_between_chunks = False

    def __init__(self) -> None:
        self.is_complete = False

    def feed(self, data: bytes) -> bytes:
        return data


class ChunkedBody:
    """RFC 9112, 7.1. Extensions and trailers are read over."""

    __slots__ = ("_in_trailer", "_left", "_rest", "_trailer_bytes", "is_complete", "surplus")
    ends_with_connection = False

    def __init__(self) -> None:
        self._rest = b""  # an unfinished line
        self._left = 0  # of the chunk at hand, with the line end behind it
        self._in_trailer = False
        self._trailer_bytes = 0
        self.is_complete = False
        self.surplus = False

    @property
    def is_between_chunks(self) -> bool:
        return not (self._rest or self._left or self._in_trailer)

    def feed(self, data: bytes) -> bytes:
        if self._rest:
            data, self._rest = self._rest + data, b""
        elif not self._left and not self._in_trailer and (start := chunk_start(data)):
            return data[start:-2]  # one whole chunk a read, as of a paced stream: nothing is left over
        parts: list[bytes] = []
        at, size = 0, len(data)
        while at < size and not self.is_complete:
            if self._left:
                at = self._take_chunk(data, at, parts)
                continue
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                self._keep_line(data[at:])
                break
            self._read_line(data[at:line_end])
            at = line_end + 2
            end = at + self._left - 2
            if self._left and data.startswith(b"\r\n", end):  # whole, as vLLM's chunks mostly are
                parts.append(data[at:end])
                at = end + 2
                self._left = 0
        self.surplus = self.is_complete and at < size
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _take_chunk(self, data: bytes, at: int, parts: list[bytes]) -> int:
        """Take what is there of the chunk at `at`; returns where to go on."""
        content = self._left - 2
        if content > 0:
            part = data[at : at + content]
            parts.append(part)
            at += len(part)
            self._left -= len(part)
        if self._left <= 2:
            tail = data[at : at + self._left]
            if tail != b"\r\n"[2 - self._left :][: len(tail)]:
                raise UpstreamGarbage("a chunk longer than its size")
            at += len(tail)
            self._left -= len(tail)
        return at

    def _read_line(self, line: bytes) -> None:
        if self._in_trailer:
            self._trailer_bytes += len(line) + 2
            if self._trailer_bytes > HEAD_MAX_BYTES:
                raise UpstreamGarbage("a trailer without end")
            self.is_complete = not line
            return
        content = content_bytes(line.partition(b";")[0].rstrip(b" \t") if b";" in line else line)
        if content is None:
            raise UpstreamGarbage("no chunk size")
        self._left = content + 2 if content else 0
        self._in_trailer = not content

    def _keep_line(self, rest: bytes) -> None:
        if len(rest) > _CHUNK_LINE_MAX_BYTES:
            raise UpstreamGarbage("a chunk line without end")
        self._rest = rest


def chunk_start(data: bytes) -> int:
    """Where the content begins of what is one whole chunk and no more, line ends included; 0: it is not, or says nothing."""
    start = data.find(b"\n", 0, CHUNK_LINE_USUAL_BYTES) + 1
    return start if chunk_bytes(data[:start]) == len(data) and data.endswith(b"\r\n") else 0


@lru_cache(maxsize=4096)
def chunk_bytes(line: bytes) -> int:
    """Of a chunk that begins with this line: all of it, its framing too. -1: none begins so, or it says nothing.

    Kept, as the events of a stream are of few sizes; so are the sizes below.
    """
    content = content_bytes(line.removesuffix(b"\r\n")) if line.endswith(b"\r\n") else None
    return len(line) + content + 2 if content else -1


@lru_cache(maxsize=4096)
def content_bytes(digits: bytes) -> int | None:
    """The size a chunk states; None where that is no number."""
    if not digits or len(digits) > _SIZE_MAX_DIGITS or digits.translate(None, b"0123456789abcdefABCDEF"):
        return None
    return int(digits, 16)
