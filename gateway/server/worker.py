"""GatewayWorker: gunicorn's gevent worker, made as strict about HTTP as the contract, and answering in its words.

What stock gunicorn 27 lets through is refused here before the application sees it: a second Authorization header,
a Transfer-Encoding other than chunked, a request target or Host that is not plainly ours. Where the start of the
connection's next request is in doubt, the connection ends with the answer; otherwise it is kept.
"""

import contextlib
import socket
from datetime import datetime
from math import inf
from typing import Any, Final

import gevent
import gevent.socket
import structlog
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.errors import (
    ExpectationFailed,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.http.wsgi import create
from gunicorn.workers.ggevent import GeventWorker

from gateway.server.refusals import refusal
from gateway.server.strictness import head_problem
from gateway.server.turns import Turnstile, give_way

# A client that does not read its answer is dropped after this; without it, it would block its greenlet for ever.
CLIENT_STALL_MS: Final = 30_000
# What a refused client may still send before its connection is reset: closing at once would reset it before it has
# read the refusal, and SDKs would report a broken connection in place of our words.
LINGER_S: Final = 2.0
LINGER_BYTES: Final = 32 * 1024 * 1024
# An unread body of known length that is no larger is read over: a refused request costs no new connection.
SKIP_BYTES: Final = 64 * 1024

_log = structlog.get_logger("gateway")


class Refused(Exception):
    """The head is well-formed HTTP, yet not what may be served. The message is for the client."""


class FairSocket(gevent.socket.socket):  # type: ignore[misc]  # gevent ships no types
    """Gives the loop a turn after each read: bytes that are there already are read without waiting, and one client that
    never pauses (a body in chunks of one byte: 80 s) would be the only one served."""

    early = b""

    def recv(self, *args: Any) -> bytes:
        if self.early and len(args) == 1:  # not a peek, which asks for what the client sends now
            data, self.early = self.early[: args[0]], self.early[args[0] :]
        else:
            data = super().recv(*args)
        give_way()
        return data


class GatewayWorker(GeventWorker):  # type: ignore[misc]  # gunicorn ships no types
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.turnstile = Turnstile()

    def handle_exit(self, sig: Any, frame: Any) -> None:
        """SIGTERM: no new connections, an end to idle ones, and a grace for the calls that run."""
        from gateway import lifecycle  # the worker's own: the master must not load what its workers load anew

        lifecycle.begin_stop()
        super().handle_exit(sig, frame)

    def handle(self, listener: Any, client: Any, addr: Any, early: bytes = b"") -> None:
        """early: what was read of the connection already."""
        bounded = FairSocket(client.family, client.type, client.proto, fileno=client.detach())
        bounded.early = early
        self.bound(bounded)
        super().handle(listener, bounded, addr)

    def bound(self, client: Any) -> None:
        """A client that does not read must end by itself."""
        with contextlib.suppress(OSError):  # a unix socket has no TCP options
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, CLIENT_STALL_MS)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> bool:
        """Serve one request; raises StopIteration when the connection is to end. After AsyncWorker.handle_request."""
        if problem := head_problem(req):
            raise Refused(problem)
        start = datetime.now()  # noqa: DTZ005 - gunicorn's access log wants it naive
        resp, environ = create(req, sock, addr, listener_name, self.cfg)
        resp.version = "sekisho"  # the Server header
        environ["wsgi.multithread"] = True
        # Under its own name Django reads it before it can answer anything, as mail's (RFC 2231), and fails on unknown charsets.
        environ["HTTP_CONTENT_TYPE"] = environ.pop("CONTENT_TYPE", "")
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        answer = self.wsgi(environ, resp.start_response)
        try:
            in_doubt = environ.get("sekisho.close_connection") or unread_bytes(req.body) > SKIP_BYTES
            if in_doubt or wants_close(environ) or not self.alive:
                resp.force_close()
            for item in answer:
                resp.write(item)
            resp.close()
        except gevent.GreenletExit:
            raise StopIteration from None
        except OSError:  # the client is gone: nobody is left to tell
            raise
        except Exception as error:
            if not resp.headers_sent:
                raise
            log_fault(error)  # a second head would corrupt the answer: cut instead
            raise StopIteration from None
        finally:
            self.log.access(resp, req, environ, datetime.now() - start)  # noqa: DTZ005
            if hasattr(answer, "close"):
                answer.close()
        if resp.should_close():
            if unread_bytes(req.body):
                linger(sock)
            raise StopIteration
        self.rest(is_refusal=resp.status_code // 100 == 4)
        return True

    def rest(self, *, is_refusal: bool) -> None:
        """Before the next request of a connection. A greenlet that answers without I/O is never preempted: 64 connections
        hammering 401s made other calls of the worker wait 6 s (p99, measured 2026-11)."""
        if is_refusal:
            self.turnstile.pass_through()
        else:
            give_way()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what never reached the application: the parser's refusals, our own, and faults. Then the end."""
        status, reason = status_of(exc)
        if status == 500:
            log_fault(exc)
        else:
            self.log.info("Refused a request from %s: %s", (addr or ("",))[0], type(exc).__name__)
        with contextlib.suppress(OSError):
            client.sendall(refusal(status, reason))
            linger(client)


def wants_close(environ: dict[str, Any]) -> bool:
    """gunicorn knows `Connection: close` by itself alone, not in a list."""
    return "close" in environ.get("HTTP_CONNECTION", "").lower()


def unread_bytes(body: Any) -> float:
    """How much of the request's body, trailer included, nobody has read; infinite where that cannot be told."""
    reader = body.reader
    if not body.failed and isinstance(reader, LengthReader):
        return int(reader.length)
    return 0 if not body.failed and isinstance(reader, ChunkedReader) and reader.parser is None else inf


def log_fault(error: BaseException) -> None:
    """As places alone (call_log): gunicorn's own log would print the exception's text, which may quote a request."""
    _log.error("unexpected_error", error_class=type(error).__name__, exc_info=error)


def status_of(exc: BaseException) -> tuple[int, str]:
    """(status, message for the client) of what was raised before, or instead of, an answer."""
    match exc:
        case Refused():
            return 400, str(exc)
        case LimitRequestLine():
            return 414, "The request line is too long."
        case LimitRequestHeaders():
            return 431, "The request headers are too large."
        case UnsupportedTransferCoding():
            return 400, "Transfer-Encoding must be chunked."
        case ExpectationFailed():
            return 417, "Only Expect: 100-continue is supported."
        case ParseException():
            return 400, "The request is not well-formed HTTP."
    return 500, "Internal server error"


def linger(sock: Any) -> None:
    """End our side, then read what the client still sends, for a while: else a reset would overtake our answer."""
    with contextlib.suppress(OSError), gevent.Timeout(LINGER_S, False):
        sock.shutdown(socket.SHUT_WR)
        received = 0
        while received < LINGER_BYTES and (data := sock.recv(65536)):
            received += len(data)
