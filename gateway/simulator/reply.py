"""The answer to one request: its head, its framing, and the knobs that spoil these.

uvicorn's order of headers: date, server, what the application gave, x-request-id, connection, transfer-encoding.
"""

import gzip
import uuid
import zlib
from collections.abc import Sequence
from typing import Any

from gateway.simulator import faults, http11
from gateway.simulator.connection import Connection
from gateway.simulator.errors import JSON, Refusal
from gateway.simulator.http11 import Request
from gateway.simulator.knobs import NEVER, Knobs

EVENT_STREAM = "text/event-stream; charset=utf-8"


class Reply:
    """Use refuse(), whole(), or begin_stream(), event() and end(). keeps_alive: may the connection take another request?"""

    def __init__(self, connection: Connection, request: Request, *, shows_request_id: bool) -> None:
        self._connection = connection
        self._request = request
        self._shows_request_id = shows_request_id
        self._is_chunked = False
        self._compressor: Any = None
        self.knobs = Knobs()
        self.keeps_alive = request.keeps_alive

    def refuse(self, refusal: Refusal) -> None:
        """`vary` is on everything but 401."""
        vary = () if refusal.status == 401 else (("vary", "Origin"),)
        location = dict(refusal.headers).get("location")
        if location is not None:
            self._send((("content-length", "0"), ("location", location), *vary), refusal.status, b"")
            return
        self.whole(refusal.body, refusal.content_type, status=refusal.status, headers=refusal.headers, vary=vary)

    def whole(
        self,
        body: bytes,
        content_type: str = JSON,
        *,
        status: int = 200,
        headers: Sequence[tuple[str, str]] = (),
        vary: Sequence[tuple[str, str]] = (("vary", "Origin"),),
    ) -> None:
        """A plain answer. Raises Cut, Reset or Hang where the knobs say so, after so many bytes of the body."""
        knobs = self.knobs
        kind = [("content-type", knobs.content_type or content_type)] if body or knobs.content_type else []
        if knobs.garbage:
            body = faults.garbage(len(body))
        if knobs.gzip:
            body = gzip.compress(body)
            kind.append(("content-encoding", "gzip"))
        length = [("content-length", str(len(body)))] if knobs.framing == "vllm" else []
        self._send((*headers, *length, *kind, *vary), status, b"" if self._request.method == "HEAD" else body)

    def _send(self, headers: Sequence[tuple[str, str]], status: int, body: bytes) -> None:
        self._write_head(status, headers, is_chunked=self.knobs.framing == "chunked")
        places = [p for p in (self.knobs.hang_after, self.knobs.cut_after, self.knobs.reset_after) if p > NEVER]
        if not places or min(places) >= len(body):
            self.event(body)
            self.end()
            return
        self.event(body[: min(places)])
        faults.stop(min(places), self.knobs)

    def begin_stream(self) -> None:
        """The head, at once: vLLM sends it before the first token, even while the request waits."""
        headers = [("content-type", self.knobs.content_type or EVENT_STREAM)]
        if self.knobs.gzip:
            headers.append(("content-encoding", "gzip"))
            self._compressor = zlib.compressobj(wbits=31)
        self._write_head(200, (*headers, ("vary", "Origin")), is_chunked=self.knobs.framing != "close")
        self._connection.flush()

    def _write_head(self, status: int, headers: Sequence[tuple[str, str]], *, is_chunked: bool) -> None:
        self._is_chunked = is_chunked
        self._connection.drip(self.knobs.drip_bytes_per_s)
        lines = list(headers)
        if self.knobs.framing == "close":
            self.keeps_alive = False
        if self._shows_request_id:
            lines.append(("x-request-id", self._request.headers.get("x-request-id") or uuid.uuid4().hex))
        if not self.keeps_alive:
            lines.append(("connection", "close"))
        if is_chunked:
            lines.append(("transfer-encoding", "chunked"))
        marker = self.knobs.canary
        if marker:
            lines += [("x-served-by", marker), ("set-cookie", f"backend={marker}"), ("via", f"1.1 {marker}")]
        self._connection.write(http11.head(status, lines, f"uvicorn {marker}".rstrip()))

    def event(self, data: bytes) -> None:
        """One event, or one body, in one chunk of its own."""
        if self._compressor is not None:
            data = self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
        if self._is_chunked and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._connection.write(data)

    def flush(self) -> None:
        self._connection.flush()

    def end(self) -> None:
        """The last chunk, and everything on its way."""
        if self._compressor is not None:
            compressor, self._compressor = self._compressor, None
            self.event(compressor.flush())
        if self._is_chunked:
            self._connection.write(b"0\r\n\r\n")
        self._connection.flush()
        self._connection.drip(0)
