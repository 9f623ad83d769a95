"""The one reader of request bodies: bounded in bytes, in time and in values, gzip inflated under the same bounds, strict JSON.

A large body is read, inflated and looked through in steps, with a turn of the loop after each: other calls do not wait for it.
"""

import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final

import gevent
import orjson
from django.conf import settings
from django.http import HttpRequest
from gunicorn.http.errors import ParseException
from rest_framework.request import Request

from gateway.exceptions import InvalidRequest, RequestTooLarge, UnsupportedMediaType
from gateway.server.reply import SizedInput
from gateway.server.turns import give_way

# 4,096 messages with tool calls hold 30,000. What more cost is not bytes: 20 MiB of [] kept the decoder busy for 5 s.
MAX_VALUES: Final = 50_000
_STEP_BYTES: Final = 64 * 1024


def read_json_object(request: HttpRequest | Request) -> dict[str, Any]:
    """The body as a JSON object.

    Numbers are ints or floats, text is valid Unicode (orjson refuses NaN, lone surrogates and anything but UTF-8). Where
    a key stands twice the last one counts, here and, since the body is written anew, upstream.
    Raises InvalidRequest, RequestTooLarge, UnsupportedMediaType.
    """
    environ = request.META
    _require_json(environ.get("HTTP_CONTENT_TYPE", ""))  # so named by server/worker.py
    body = read_body(environ)
    if encoding := environ.get("HTTP_CONTENT_ENCODING"):
        body = _decode(body, encoding)
    # A value and what parts it from the next take two bytes: of most bodies that says enough.
    if len(body) > 2 * MAX_VALUES and _holds_more_values_than(MAX_VALUES, body):
        raise _invalid(f"The body must not hold more than {MAX_VALUES} values.")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _invalid(f"The body is not valid JSON: {error.msg} at byte {error.pos}.") from None
    except RecursionError:
        raise _invalid("The body is nested too deeply.") from None
    if not isinstance(value, dict):
        raise _invalid("The body must be a JSON object.")
    return value


def read_body(environ: dict[str, Any]) -> bytes:
    """The raw body, chunked or not. Django on WSGI would take a chunked one for empty.

    Within REQUEST_BODY_MAX_BYTES, and never slower than REQUEST_BODY_MIN_BYTES_PER_S for REQUEST_BODY_GRACE_S.
    """
    limit: int = settings.REQUEST_BODY_MAX_BYTES
    declared = environ.get("CONTENT_LENGTH")
    length = int(declared) if declared else None  # the server refused what is no number
    if length is not None and length > limit:
        raise _too_large(limit)
    stream = environ["wsgi.input"]
    if isinstance(stream, SizedInput) and (whole := stream.whole()) is not None:
        return whole
    try:
        body = _joined(_received(stream), limit)
    except gevent.Timeout:
        raise InvalidRequest(details=[_detail("The body did not arrive in time.")], closes_connection=True) from None
    except (ParseException, OSError):
        raise InvalidRequest(details=[_detail("The body's framing is broken.")], closes_connection=True) from None
    if length is not None and len(body) < length:
        raise InvalidRequest(details=[_detail("The body is shorter than Content-Length says.")], closes_connection=True)
    return body


def _received(stream: Any) -> Iterator[bytes]:
    """The body as it comes. gunicorn reads on until it has all it was asked for: that much must come in each time of grace."""
    step_bytes = int(settings.REQUEST_BODY_GRACE_S * settings.REQUEST_BODY_MIN_BYTES_PER_S)
    while True:
        with gevent.Timeout(settings.REQUEST_BODY_GRACE_S):
            part = stream.read(step_bytes)
        if not part:
            return
        yield part


def _joined(parts: Iterable[bytes], limit: int) -> bytes:
    """All parts in one, up to `limit` bytes."""
    kept: list[bytes] = []
    total = 0
    for part in parts:
        total += len(part)
        if total > limit:
            raise _too_large(limit)
        if kept:
            give_way()
        kept.append(part)
    return kept[0] if len(kept) == 1 else b"".join(kept)


def _decode(body: bytes, encoding: str) -> bytes:
    """Undo Content-Encoding; gzip is inflated in steps, so that a bomb ends at the limit and not in memory."""
    match encoding.strip().lower():
        case "" | "identity":
            return body
        case "gzip" | "x-gzip":
            return _inflate(body, settings.REQUEST_BODY_MAX_BYTES)
    raise UnsupportedMediaType("Content-Encoding must be gzip or identity.")


def _inflate(body: bytes, limit: int) -> bytes:
    inflater = zlib.decompressobj(wbits=31)
    try:
        data = _joined(_inflated(inflater, body), limit)
    except zlib.error:
        raise _invalid("The body is not valid gzip.") from None
    if not inflater.eof or inflater.unused_data:
        raise _invalid("The gzip body is cut short, or more follows it.")
    return data


def _inflated(inflater: Any, body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), _STEP_BYTES):
        if inflater.eof:
            raise zlib.error("more follows")
        rest = body[start : start + _STEP_BYTES]
        while rest:
            yield inflater.decompress(rest, 16 * _STEP_BYTES)
            rest = inflater.unconsumed_tail


def _holds_more_values_than(limit: int, body: bytes) -> bool:
    """Does JSON hold more values than that? Each stands behind a comma or a bracket that is not in a string."""
    values, in_string, escape = 1, 0, b""
    for start in range(0, len(body), _STEP_BYTES):
        give_way()
        piece = escape + body[start : start + _STEP_BYTES]
        escape = b""
        if in_string and b'"' not in piece and piece[-1:] != b"\\":
            continue  # the inside of a long text or image
        piece = piece.replace(b"\\\\", b"")
        escape = b"\\" if piece[-1:] == b"\\" else b""  # what it escapes begins the next piece
        parts = piece.replace(b'\\"', b"").split(b'"')
        outside = b"".join(parts[in_string::2])
        in_string = (in_string + len(parts) - 1) % 2
        values += len(outside) - len(outside.translate(None, b",[{"))
        if values > limit:
            return True
    return False


@lru_cache(maxsize=256)
def _require_json(content_type: str) -> None:
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if media_type != "application/json":
        raise UnsupportedMediaType("The Content-Type must be application/json.")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() in ("charset", "charset*") and value.strip().strip('"') not in ("utf-8", "utf8"):
            raise UnsupportedMediaType("The request body must be in UTF-8.")


def _detail(message: str) -> dict[str, str | None]:
    return {"param": None, "message": message}


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(details=[_detail(message)])


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"The request body is larger than {limit} bytes.")
