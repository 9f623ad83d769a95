"""GatewayWorker: gunicorn's gevent worker, made as strict about HTTP as the contract, and answering in its words.

What stock gunicorn 27 lets through is refused here before the application sees it: a second Authorization header,
a Transfer-Encoding other than chunked, a request target or Host that is not plainly ours. Where the start of the
connection's next request is in doubt, the connection ends with the answer.
"""

import contextlib
import re
import socket
from datetime import datetime
from typing import Any, Final

import gevent
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

# A client that does not read its answer is dropped after this; without it, it would block its greenlet for ever.
CLIENT_STALL_MS: Final = 30_000
# What a refused client may still send before its connection is reset: closing at once would reset it before it has
# read the refusal, and SDKs would report a broken connection in place of our words.
LINGER_S: Final = 2.0
LINGER_BYTES: Final = 32 * 1024 * 1024

_HOST: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9.])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_SINGLE: Final = frozenset({"AUTHORIZATION", "HOST", "CONTENT-TYPE", "CONTENT-ENCODING", "CONTENT-LENGTH", "ORIGIN"})


class Refused(Exception):
    """The head is well-formed HTTP, yet not what may be served. The message is for the client."""


class GatewayWorker(GeventWorker):  # type: ignore[misc]  # gunicorn ships no types
    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        with contextlib.suppress(OSError):  # a unix socket has no TCP options
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, CLIENT_STALL_MS)
        super().handle(listener, client, addr)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> bool:
        """Serve one request; raises StopIteration when the connection is to end. After AsyncWorker.handle_request."""
        if problem := head_problem(req):
            raise Refused(problem)
        start = datetime.now()  # noqa: DTZ005 - gunicorn's access log wants it naive
        resp, environ = create(req, sock, addr, listener_name, self.cfg)
        resp.version = "sekisho"  # the Server header
        environ["wsgi.multithread"] = True
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        answer = self.wsgi(environ, resp.start_response)
        try:
            if not self.alive or not is_consumed(req.body) or environ.get("sekisho.close_connection"):
                resp.force_close()
            for item in answer:
                resp.write(item)
            resp.close()
        except gevent.GreenletExit:
            raise StopIteration from None
        except OSError:  # the client is gone: nobody is left to tell
            raise
        except Exception:
            if not resp.headers_sent:
                raise
            self.log.exception("Error in the middle of an answer")  # a second head would corrupt it: cut instead
            raise StopIteration from None
        finally:
            self.log.access(resp, req, environ, datetime.now() - start)  # noqa: DTZ005
            if hasattr(answer, "close"):
                answer.close()
        if resp.should_close():
            if not is_consumed(req.body):
                linger(sock)
            raise StopIteration
        # A greenlet that answers without I/O is never preempted: 64 connections hammering 401s made other calls of
        # the worker wait 6 s (p99, measured 2026-11). One turn of the loop after each answer costs 1 us.
        gevent.sleep(0)
        return True

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what never reached the application: the parser's refusals, our own, and faults. Then the end."""
        status, reason = status_of(exc)
        if status == 500:
            self.log.error("Error handling a request", exc_info=exc)
        else:
            self.log.info("Refused a request from %s: %s", (addr or ("",))[0], type(exc).__name__)
        with contextlib.suppress(OSError):
            client.sendall(refusal(status, reason))
            linger(client)


def head_problem(req: Any) -> str | None:
    """What is wrong with a parsed head, in words for the client; None when it may be served."""
    seen: dict[str, str] = {}
    for name, value in req.headers:
        if name in _SINGLE and name in seen:
            return f"More than one {name.title()} header."
        seen[name] = value
    coding = seen.get("TRANSFER-ENCODING")
    if coding is not None and coding.strip().lower() != "chunked":
        return "Transfer-Encoding must be chunked."
    host = seen.get("HOST")
    if host is None and req.version >= (1, 1):
        return "The Host header is missing."
    if host is not None and not _HOST.fullmatch(host):
        return "The Host header is malformed."
    if not req.uri.startswith("/"):
        return target_problem(req.uri, host)
    return None


def target_problem(uri: str, host: str | None) -> str | None:
    """An absolute request target must name the host that the Host header names; `*` and others are not served."""
    scheme, separator, rest = uri.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if separator and scheme.lower() in ("http", "https") and host is not None and authority.lower() == host.lower():
        return None
    return "The request target must be a path on this host."


def is_consumed(body: Any) -> bool:
    """Was the request's body read to its end, trailer included? Only then is the next request's start known."""
    reader = body.reader
    if body.failed:
        return False
    if isinstance(reader, LengthReader):
        return bool(reader.length == 0)
    return isinstance(reader, ChunkedReader) and reader.parser is None


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
