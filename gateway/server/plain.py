"""Requests that leave nothing to doubt, read in C; whatever else comes is None, and gunicorn's own loop judges it.

No verdicts of its own: a head that is taken here, gunicorn's parser and the worker's checks take too, to the same environ.
tests/gateway/server/test_plain.py holds them against each other.
"""

import re
from dataclasses import field
from functools import lru_cache
from typing import Any, Final

from gunicorn.http.wsgi import base_environ
from gunicorn_h1c import parse_request_fast

from gateway.server.strictness import is_host
from usage.values import light_dataclass

# Below every limit that deploy/gunicorn/gateway.py sets for one line; what is longer may yet be well-formed.
HEAD_MAX_BYTES: Final = 8000
_METHODS: Final = frozenset({b"GET", b"POST"})
_TARGET: Final = re.compile(rb"/(?:[A-Za-z0-9._~-][A-Za-z0-9._~/-]*)?")  # nothing to unquote, no query, no authority
_NAME: Final = re.compile(rb"[A-Za-z0-9-]+")  # no underscore: two names would meet in one variable
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")
# What these say changes how the request is read.
_JUDGED: Final = frozenset({"HTTP_EXPECT", "HTTP_TRANSFER_ENCODING", "HTTP_UPGRADE", "HTTP_HTTP2_SETTINGS", "HTTP_TRAILER"})

_is_host = lru_cache(maxsize=256)(is_host)


@light_dataclass
class PlainRequest:
    """environ: all but the client, the socket and the input. head_bytes: with the blank line. body_bytes: Content-Length."""

    environ: dict[str, Any] = field(repr=False)
    head_bytes: int
    body_bytes: int


def is_suited(cfg: Any) -> bool:
    """Is gunicorn set up so that a plain request has one meaning, and no log or hook of its own is waiting for it?"""
    is_bare = not (cfg.is_ssl or cfg.accesslog or cfg.statsd_host or cfg.forwarded_allow_ips)
    has_room = cfg.limit_request_line >= HEAD_MAX_BYTES and cfg.limit_request_field_size >= HEAD_MAX_BYTES
    return is_bare and has_room and cfg.keepalive > 0 and cfg.proxy_protocol == "off" and cfg.http_parser == "python"


def constants(cfg: Any, server: tuple[Any, ...]) -> dict[str, Any]:
    """What all environs of a listener have in common. server: its address."""
    environ: dict[str, Any] = base_environ(cfg) | {
        "wsgi.multithread": True,
        "wsgi.url_scheme": "http",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "HTTP_CONTENT_TYPE": "",  # under this name: see GatewayWorker.handle_request
    }
    return environ


def plain_request(data: bytes, shared: dict[str, Any], *, fields_max: int) -> PlainRequest | None:
    """The request at the beginning of `data`, if its head is whole and plain. shared: constants()."""
    end = data.find(b"\r\n\r\n", 0, HEAD_MAX_BYTES)
    if end < 0:
        return None
    try:
        parsed = parse_request_fast(data[: end + 4])
    except Exception:  # noqa: BLE001 - its errors have no ancestor in common, and whatever it does not take is the stock loop's
        return None
    headers, target, method = parsed.headers, parsed.path, parsed.method
    lines = len(headers)
    # h1c takes folded lines and bare line feeds: then lines and headers are not one to one.
    if lines > fields_max or data.count(b"\n", 0, end) != lines or data.count(b"\r\n", 0, end) != lines:
        return None
    # It takes any number of spaces in the request line, too.
    is_usual = method in _METHODS and _TARGET.fullmatch(target) and data.startswith(b"%b %b HTTP/1.1\r\n" % (method, target))
    if not is_usual:
        return None
    environ = shared.copy()
    path = target.decode()
    environ["REQUEST_METHOD"] = method.decode()
    environ["RAW_URI"] = environ["PATH_INFO"] = path
    return _with_headers(environ, headers, end + 4)


def _with_headers(environ: dict[str, Any], headers: list[tuple[bytes, bytes]], head_bytes: int) -> PlainRequest | None:
    """None where a header comes twice, or is for the stock loop to judge."""
    body_bytes = 0
    seen = set()
    for name, value in headers:
        key = _variable(name)
        if key is None or key in seen:
            return None
        seen.add(key)
        if key == "HTTP_CONTENT_LENGTH":
            if not _LENGTH.fullmatch(value):
                return None
            environ["CONTENT_LENGTH"] = value.decode()
            body_bytes = int(value)
        else:
            environ[key] = value.decode("latin-1")
    if environ.get("HTTP_CONNECTION", "keep-alive").lower() != "keep-alive" or not _is_host(environ.get("HTTP_HOST", "")):
        return None
    return PlainRequest(environ, head_bytes, body_bytes)


@lru_cache(maxsize=1024)
def _variable(name: bytes) -> str | None:
    """The environ's name of a header; None for one that is not plain."""
    if not _NAME.fullmatch(name):
        return None
    key = "HTTP_" + name.decode().upper().replace("-", "_")
    return None if key in _JUDGED else key
