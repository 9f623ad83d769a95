"""The bytes of an answer to a request that never reached the application. The key is not known: dialect `both`."""

from http import HTTPStatus

import orjson
from uuid_utils.compat import uuid7

_CODES = {414: "request_too_large", 431: "request_too_large", 500: "internal_error"}


def refusal(status: int, message: str) -> bytes:
    """A whole HTTP/1.1 answer, head and JSON body, that ends the connection."""
    kind = "server_error" if status == 500 else "invalid_request_error"
    error = {"type": kind, "message": message, "code": _CODES.get(status, "invalid_request"), "param": None}
    body = orjson.dumps({"error": error, "detail": message})
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"x-request-id: {uuid7()}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
