"""Calls to backends over kept-alive connections: pooling, one retry where nothing was answered, cancellation."""

import ssl
from collections import deque
from collections.abc import Iterator, Mapping
from math import inf
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

from gateway.config.documents import Backend
from gateway.upstream.connection import Connection
from gateway.upstream.errors import UpstreamAborted, UpstreamCut, UpstreamError, UpstreamGarbage
from gateway.upstream.framing import ResponseHead

# vLLM (uvicorn) closes an idle connection after 5 s: one that old may be closing as we write.
IDLE_MAX_S: Final = 4.0
# The end of the chunked framing follows the last event within microseconds; a backend that owes it longer is left.
DRAIN_S: Final = 0.05
# An idle connection that the backend had closed says so at once. Later it is the backend that went, perhaps of this very
# request: the one behind it must not be the next to go without anybody having counted the first.
STALE_WITHIN_S: Final = 1.0
# A name may have moved to another machine: with calls all the time a connection to the old one would live for ever.
AGE_MAX_S: Final = 60.0


class Cancellation:
    """Ends whatever upstream work a client call is at, from another greenlet. One a call, for all its attempts."""

    __slots__ = ("_connection", "is_cancelled")

    def __init__(self) -> None:
        self.is_cancelled = False
        self._connection: Connection | None = None

    def cancel(self) -> None:
        """Closing early frees the KV cache: without it a vanished client keeps a GPU slot until max_tokens."""
        self.is_cancelled = True
        self.give_up()

    def give_up(self) -> None:
        """End the work that is at hand; whoever waits for it gets UpstreamAborted, and may begin other work."""
        if self._connection is not None:
            self._connection.abort()

    def hold(self, connection: Connection) -> None:
        """`connection` works for this call from now on. Raises UpstreamAborted if the call is cancelled already."""
        if self.is_cancelled:
            raise UpstreamAborted
        self._connection = connection

    def release(self) -> None:
        """Before the connection goes to another call, which a late cancel must not end."""
        self._connection = None


class UpstreamResponse:
    """An answer whose head has come. Must be closed, once or more. headers: by lower-case name."""

    __slots__ = ("_cancellation", "_connection", "_pool", "headers", "is_closed", "read_some", "status")

    def __init__(self, head: ResponseHead, connection: Connection, cancellation: Cancellation, pool: "BackendPool") -> None:
        self.status = head.status
        self.headers = head.headers
        self._connection = connection
        self._cancellation = cancellation
        self._pool = pool
        self.is_closed = False
        self.read_some = connection.read_some  # not a method of its own: it is called for each event

    @property
    def is_event_stream(self) -> bool:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"

    def read_all(self, max_bytes: int, deadline: float) -> bytes:
        """The whole body. Raises UpstreamGarbage above max_bytes, UpstreamSilence at the deadline, and as read_some."""
        parts = []
        size_bytes = 0
        while part := self.read_some(deadline):
            parts.append(part)
            size_bytes += len(part)
            if size_bytes > max_bytes:
                raise UpstreamGarbage(f"an answer of more than {max_bytes} bytes")
        return b"".join(parts)

    def rest(self) -> Iterator[bytes]:
        """As Connection.rest."""
        return self._connection.rest()

    def abort(self) -> None:
        """From another greenlet: whoever reads gets UpstreamAborted. After close it does nothing."""
        self._cancellation.cancel()

    def close(self, *, reuse: bool) -> None:
        """Give the connection back, if the caller has all it wants and the body is at its end; else close it."""
        if self.is_closed:
            return
        self.is_closed = True
        if reuse and not self._connection.is_complete:
            self._drain()
        self._cancellation.release()
        self._pool.take_back(self._connection, reuse=reuse)

    def _drain(self) -> None:
        try:
            self._connection.read_some(monotonic() + DRAIN_S)
        except UpstreamError:
            return  # not complete, so not reused


class BackendPool:
    """The connections to one backend URL. in_flight: calls this worker has open there."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("a backend URL is http:// or https:// with a host")
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._authority = parts.netloc.rpartition("@")[2]
        self._prefix = parts.path.rstrip("/")
        self._idle: deque[tuple[Connection, float]] = deque()
        self.in_flight = 0

    def ask(
        self, request: bytes, *, connect_s: float, first_byte_deadline: float, rest_s: float, cancellation: Cancellation
    ) -> UpstreamResponse:
        """Send `request` and wait for the head of its answer. Raises UpstreamError."""
        self.in_flight += 1
        try:
            asked_at_s = monotonic()
            connection = self._take_idle(asked_at_s)
            if connection is not None:
                try:
                    return self._ask_on(connection, request, first_byte_deadline, rest_s, cancellation)
                except UpstreamCut:
                    # The backend closed the idle connection while we wrote: nobody answered, so once more on a fresh one.
                    if connection.has_answered or monotonic() - asked_at_s > STALE_WITHIN_S:
                        raise
            connection = Connection.open(self._host, self._port, tls=self._tls, connect_s=connect_s)
            return self._ask_on(connection, request, first_byte_deadline, rest_s, cancellation)
        except BaseException:
            self.in_flight -= 1
            raise

    def _ask_on(
        self, connection: Connection, request: bytes, deadline: float, rest_s: float, cancellation: Cancellation
    ) -> UpstreamResponse:
        try:
            cancellation.hold(connection)
            connection.send(request, deadline)
            return UpstreamResponse(connection.read_head(deadline, rest_s=rest_s), connection, cancellation, self)
        except BaseException:
            cancellation.release()
            connection.close()
            raise

    def request_bytes(self, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        """A POST of JSON. Raises ValueError for a header that is none."""
        head = (
            f"POST {self._prefix}{path} HTTP/1.1\r\n"
            f"Host: {self._authority}\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Accept-Encoding: identity\r\n"
        )
        ends = 5 + len(headers)
        for name, value in headers.items():
            head += f"{name}: {value}\r\n"
        # A line end inside a value would begin a header, or a request, of somebody else's choosing.
        if head.count("\r") != ends or head.count("\n") != ends or "\0" in head:
            raise ValueError("a header holds a line end")
        return b"%b\r\n%b" % (head.encode("latin-1"), body)

    def take_back(self, connection: Connection, *, reuse: bool) -> None:
        self.in_flight -= 1
        now = monotonic()
        if reuse and connection.is_reusable and now - connection.opened_at_s < AGE_MAX_S:
            self._idle.append((connection, now))
        else:
            connection.close()
        if self._idle and self._idle[0][1] <= now - IDLE_MAX_S:
            self.drop_idle(older_than_s=IDLE_MAX_S)

    def drop_idle(self, *, older_than_s: float) -> None:
        """Close connections unused for longer than older_than_s; 0 closes all."""
        since = monotonic() - older_than_s
        while self._idle and self._idle[0][1] <= since:
            self._idle.popleft()[0].close()

    def _take_idle(self, now: float) -> Connection | None:
        """The connection used last, if it still lives: the ones below it then age and go."""
        while self._idle:
            connection, idle_since = self._idle.pop()
            if idle_since > now - IDLE_MAX_S and not connection.is_stale():
                return connection
            connection.close()
        return None


class UpstreamClient:
    """All backends of this worker. Proxy variables of the environment are not read, redirects not followed."""

    def __init__(self) -> None:
        self._pools: dict[str, BackendPool] = {}

    def open_call(
        self,
        backend: Backend,
        path: str,
        body: bytes,
        *,
        headers: Mapping[str, str],
        connect_s: float,
        first_byte_deadline: float,
        rest_s: float = inf,
        cancellation: Cancellation | None = None,
    ) -> UpstreamResponse:
        """POST `body` to `path` of a backend, with its credential; returns when the head of the answer is there.

        first_byte_deadline: monotonic seconds. rest_s: how long the rest of the head may take after its first byte.
        cancellation: ends the call from another greenlet, also while it waits here.
        Raises UpstreamError: Refused, Cut, Silence, Stalled, Garbage, Aborted; ValueError for a header that is none.
        """
        pool = self._pools.get(backend.url) or self._new_pool(backend.url)
        if backend.credential is not None:
            headers = {**headers, "Authorization": f"Bearer {backend.credential}"}
        return pool.ask(
            pool.request_bytes(path, body, headers),
            connect_s=connect_s,
            first_byte_deadline=first_byte_deadline,
            rest_s=rest_s,
            cancellation=cancellation or Cancellation(),
        )

    def in_flight(self, backend: Backend) -> int:
        """Calls this worker has open at a backend."""
        pool = self._pools.get(backend.url)
        return pool.in_flight if pool else 0

    def drop_idle(self, *, older_than_s: float = IDLE_MAX_S) -> None:
        """Close connections nobody used lately, at backends that no call goes to any more as well."""
        for pool in self._pools.values():
            pool.drop_idle(older_than_s=older_than_s)

    def _new_pool(self, url: str) -> BackendPool:
        pool = self._pools[url] = BackendPool(url)
        return pool
