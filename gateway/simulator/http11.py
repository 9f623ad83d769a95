"""HTTP/1.1 as uvicorn with httptools speaks it: reading requests out of bytes, and the heads of answers. Pure."""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote

HEAD_MAX_BYTES: Final = 1024 * 1024
BODY_MAX_BYTES: Final = 256 * 1024 * 1024
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_REQUEST_LINE = re.compile(rb"([A-Z]+) ([^\x00-\x20\x7f]+) HTTP/1\.([01])")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\x00]*?)[ \t]*")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[^\r\n]*)?")


class Malformed(Exception):
    """No HTTP request: answered 400 in plain text, and the connection is closed."""


@dataclass(frozen=True, slots=True)
class Request:
    """headers: names in lower case, the last one wins. body: without its framing. path: decoded, without the query."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    keeps_alive: bool


@dataclass(frozen=True, slots=True)
class Head:
    """length_bytes: of the body; None when it comes in chunks."""

    method: str
    path: str
    headers: dict[str, str]
    length_bytes: int | None
    keeps_alive: bool

    @property
    def expects_continue(self) -> bool:
        return self.headers.get("expect", "").lower() == "100-continue"

    def with_body(self, body: bytes) -> Request:
        return Request(self.method, self.path, self.headers, body, self.keeps_alive)


def take_head(inbox: bytearray) -> Head | None:
    """Take a head off the front of `inbox`; None while it is incomplete. Raises Malformed."""
    end = inbox.find(b"\r\n\r\n")
    if end < 0:
        line_end = inbox.find(b"\n")
        if (line_end >= 0 and inbox[line_end - 1 : line_end] != b"\r") or len(inbox) > HEAD_MAX_BYTES:
            raise Malformed
        return None
    first, *lines = bytes(inbox[:end]).split(b"\r\n")
    del inbox[: end + 4]
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        raise Malformed
    headers: dict[str, str] = {}
    for text in lines:
        header = _HEADER.fullmatch(text)
        if header is None:
            raise Malformed
        headers[header[1].decode().lower()] = header[2].decode("latin-1")
    keeps_alive = line[3] == b"1" and headers.get("connection", "").lower() != "close"
    return Head(line[1].decode(), _path(line[2].decode()), headers, _body_length(headers), keeps_alive)


def _path(target: str) -> str:
    if "://" in target and not target.startswith("/"):
        target = "/" + target.partition("://")[2].partition("/")[2]
    return unquote(target.partition("?")[0])


def _body_length(headers: dict[str, str]) -> int | None:
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if length is not None or coding.lower() != "chunked":
            raise Malformed
        return None
    if length is None:
        return 0
    if not length.isdecimal() or int(length) > BODY_MAX_BYTES:
        raise Malformed
    return int(length)


class ChunkedBody:
    """A body in chunks, taken off the front of an inbox as it arrives; trailers are read and dropped."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._is_last = False

    def take(self, inbox: bytearray) -> bytes | None:
        """The whole body, or None while more is needed. Raises Malformed."""
        while True:
            line_end = inbox.find(b"\r\n")
            if line_end < 0:
                if len(inbox) > HEAD_MAX_BYTES:
                    raise Malformed
                return None
            if self._is_last:
                trailer = bytes(inbox[:line_end])
                del inbox[: line_end + 2]
                if not trailer:
                    return b"".join(self._parts)
                continue
            match = _CHUNK_SIZE.fullmatch(inbox[:line_end])
            size = int(match[1], 16) if match else BODY_MAX_BYTES + 1
            if size > BODY_MAX_BYTES:
                raise Malformed
            if size == 0:
                self._is_last = True
                del inbox[: line_end + 2]
                continue
            end = line_end + 2 + size
            if len(inbox) < end + 2:
                return None
            if inbox[end : end + 2] != b"\r\n":
                raise Malformed
            self._parts.append(bytes(inbox[line_end + 2 : end]))
            del inbox[: end + 2]


_date: tuple[int, str] = (0, "")


def _now() -> str:
    """The date header's text, made once a second."""
    global _date  # noqa: PLW0603 - a cache of one entry
    second = int(time.time())
    if _date[0] != second:
        _date = (second, formatdate(second, usegmt=True))
    return _date[1]


def head(status: int, headers: Iterable[tuple[str, str]], server: str = "uvicorn") -> bytes:
    """An answer's head; uvicorn puts `date` and `server` before the headers of the application."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    lines = [f"HTTP/1.1 {status} {phrase}", f"date: {_now()}", f"server: {server}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


MALFORMED_BODY: Final = b"Invalid HTTP request received."


def malformed() -> bytes:
    """The whole answer to bytes that are no request; it has no `vary`."""
    headers = (
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", str(len(MALFORMED_BODY))),
        ("connection", "close"),
    )
    return head(400, headers) + MALFORMED_BODY
