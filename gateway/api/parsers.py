"""The one reader of request bodies: bounded in bytes and in time, gzip inflated under the same bound, strict JSON."""

import zlib
from typing import Any, Final

import gevent
import orjson
from django.conf import settings
from gunicorn.http.errors import ParseException
from rest_framework.request import Request

from gateway.exceptions import InvalidRequest, RequestTooLarge, UnsupportedMediaType

_STEP_BYTES: Final = 256 * 1024


def read_json_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object.

    Numbers are ints or floats, text is valid Unicode (orjson refuses NaN, lone surrogates and anything but UTF-8). Where
    a key stands twice the last one counts, here and, since the body is written anew, upstream.
    Raises InvalidRequest, RequestTooLarge, UnsupportedMediaType.
    """
    environ = request.META
    _require_json(environ.get("CONTENT_TYPE", ""))
    body = _decode(read_body(environ), environ.get("HTTP_CONTENT_ENCODING", ""))
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

    Within REQUEST_BODY_MAX_BYTES, and no slower than REQUEST_BODY_MIN_BYTES_PER_S after REQUEST_BODY_GRACE_S.
    """
    limit: int = settings.REQUEST_BODY_MAX_BYTES
    declared = environ.get("CONTENT_LENGTH")
    length = int(declared) if declared else None  # the server refused what is no number
    if length is not None and length > limit:
        raise _too_large(limit)
    time_s = settings.REQUEST_BODY_GRACE_S + (length or limit) / settings.REQUEST_BODY_MIN_BYTES_PER_S
    try:
        with gevent.Timeout(time_s):
            body = _read_bounded(environ["wsgi.input"], limit)
    except gevent.Timeout:
        raise InvalidRequest(details=[_detail("The body did not arrive in time.")], closes_connection=True) from None
    except (ParseException, OSError):
        raise InvalidRequest(details=[_detail("The body's framing is broken.")], closes_connection=True) from None
    if length is not None and len(body) < length:
        raise InvalidRequest(details=[_detail("The body is shorter than Content-Length says.")], closes_connection=True)
    return body


def _read_bounded(stream: Any, limit: int) -> bytes:
    parts: list[bytes] = []
    total = 0
    while part := stream.read(_STEP_BYTES):
        total += len(part)
        if total > limit:
            raise _too_large(limit)
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


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
        data = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise _invalid("The body is not valid gzip.") from None
    if len(data) > limit:
        raise _too_large(limit)
    if not inflater.eof or inflater.unused_data:
        raise _invalid("The gzip body is cut short, or more follows it.")
    return data


def _require_json(content_type: str) -> None:
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if media_type != "application/json":
        raise UnsupportedMediaType("The Content-Type must be application/json.")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in ("utf-8", "utf8"):
            raise UnsupportedMediaType("The request body must be in UTF-8.")


def _detail(message: str) -> dict[str, str | None]:
    return {"param": None, "message": message}


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(details=[_detail(message)])


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"The request body is larger than {limit} bytes.", closes_connection=True)
