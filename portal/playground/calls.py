"""One call of the playground: sent to the gateway as a program would, its answer handed on piece by piece as it comes.

The browser calls the portal and the portal the gateway, so that the key never is in a page and no tenant needs CORS. The
portal's server (gevent) holds a stream at the cost of one greenlet and one socket, and no database connection: it is not
the streams that are scarce, but turns.py bounds them. Nothing of a call is stored or logged here.
"""

import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Final, Unpack
from urllib.parse import urlsplit

from django.conf import settings
from django.db import connection
from django.views.decorators.debug import sensitive_variables

from accounts.audit import By
from accounts.models import Tenant, User
from gateway.api.disconnect import watch
from portal.playground import key_text, turns

CONNECT_MAX_S: Final = 2.0
CALL_MAX_S: Final = 300.0
ANSWER_MAX_BYTES: Final = 8 * 1024 * 1024
PIECE_BYTES: Final = 64 * 1024
# Of the connection between portal and gateway alone; the rest is the answer's.
_HOP_BY_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "date", "server"})


class Busy(Exception):
    """As many answers run as may."""


class Unreachable(Exception):
    """The gateway gave no answer."""


class Call:
    """status, reason, headers: as the gateway answered. Iterate once, for the body's bytes.

    close() ends it, and so what the backend generates; from any greenlet, any number of times.
    """

    def __init__(self, release: Callable[[], None]) -> None:
        self.status, self.reason, self.headers = 0, "", list[tuple[str, str]]()
        self.stop_watching: Callable[[], None] = lambda: None
        self._release = release
        self._ends_s = time.monotonic() + CALL_MAX_S
        self._left_bytes = ANSWER_MAX_BYTES
        self._socket: socket.socket | None = None
        self._answer: HTTPResponse | None = None
        self._is_closed = False

    @sensitive_variables("text", "body")
    def send(self, text: str, body: bytes) -> None:
        """Ask, and wait for the head of the answer. text: of the key. Raises Unreachable."""
        self._hang_up()
        headers = {"authorization": f"Bearer {text}", "content-type": "application/json", "user-agent": "sekisho-playground"}
        gateway = _connection()
        try:
            gateway.connect()
            self._socket = gateway.sock
            self._socket.settimeout(self._left_s())
            gateway.request("POST", f"{_path()}/v1/chat/completions", body, headers)
            answer = gateway.getresponse()
        except (OSError, HTTPException) as error:
            raise Unreachable(type(error).__name__) from None
        self._answer = answer
        self.status, self.reason = answer.status, answer.reason
        self.headers = [(name.lower(), value) for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP]

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """Ends early, as if the gateway had, when the call is closed or longer or larger than may be."""
        if self._answer is None or self._socket is None or self._is_closed or self._left_s() <= 0 or self._left_bytes <= 0:
            raise self._ended()
        try:
            self._socket.settimeout(self._left_s())
            piece = self._answer.read1(min(PIECE_BYTES, self._left_bytes))
        except (OSError, HTTPException, ValueError):  # ValueError: closed meanwhile
            raise self._ended() from None
        if not piece:
            raise self._ended()
        self._left_bytes -= len(piece)
        return piece

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self.stop_watching()
            self._hang_up()
            self._release()

    def _ended(self) -> StopIteration:
        self.close()
        return StopIteration()

    def _left_s(self) -> float:
        return max(0.0, self._ends_s - time.monotonic())

    def _hang_up(self) -> None:
        if self._socket is not None:
            # Whoever waits for this socket is woken by its end; closed alone, it would be waited for on.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
        if self._answer is not None:
            self._answer.close()
        self._socket = self._answer = None


@sensitive_variables("body")
def begin(tenant: Tenant, person: User, body: bytes, environ: Mapping[str, Any], **by: Unpack[By]) -> Call:
    """Call the gateway with the person's own key. environ: of the request, whose client is watched.

    Raises Busy, Unreachable, and IssuingError for a tenant that is suspended.
    """
    turn = turns.take(person, for_s=CALL_MAX_S)
    if turn is None:
        raise Busy
    call = Call(turn.release)
    try:
        text = key_text.text_for(tenant, person, **by)
        if not connection.in_atomic_block:
            connection.close()  # back to its pool: an answer that runs holds none
        call.stop_watching = watch(dict(environ), call.close)
        call.send(text, body)
        if call.status == 401:
            key_text.forget(tenant, person)
            call.send(key_text.text_for(tenant, person, **by), body)
    except BaseException:
        call.close()
        raise
    return call


def _connection() -> HTTPConnection:
    parts = urlsplit(settings.GATEWAY_INNER_URL)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=CONNECT_MAX_S)


def _path() -> str:
    return urlsplit(settings.GATEWAY_INNER_URL).path.rstrip("/")


def told(call: Call) -> dict[str, Any]:
    """How the gateway answered, as JSON for the page: what came before the body's bytes."""
    headers: Sequence[tuple[str, str]] = call.headers
    return {"status": call.status, "reason": call.reason, "headers": headers}
