"""The shapes in which vLLM says no (recorded from 0.32.0). Pure."""

import json
from typing import Final

import orjson

_UNSAID: Final = object()
JSON: Final = "application/json"


class Refusal(Exception):
    """An answer that is an error: status, body, headers, as they go on the wire."""

    def __init__(
        self, status: int, body: bytes, *, content_type: str = JSON, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers


def refusal(status: int, message: str, kind: str, param: str | None = None) -> Refusal:
    """The usual shape: `code` is the HTTP status, an integer."""
    return Refusal(status, orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": status}}))


def bad_request(message: str, param: str | None = None, value: object = _UNSAID) -> Refusal:
    """One of vLLM's own checks. param, value: appended to the message as its exceptions do."""
    if param is not None:
        message += f" (parameter={param})" if value is _UNSAID else f" (parameter={param}, value={value})"
    return refusal(400, message, "BadRequestError", param)


def detail(status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> Refusal:
    """The shape of Starlette: unknown routes, wrong methods, bytes that cannot be read."""
    return Refusal(status, orjson.dumps({"detail": text}), headers=headers)


def unauthorized() -> Refusal:
    return Refusal(401, b'{"error":"Unauthorized"}')


def unknown_model(model: str, served: tuple[str, ...]) -> Refusal:
    text = f"The model `{model}` does not exist. Valid aliases: {', '.join(served)}."
    return refusal(404, text, "NotFoundError", "model")


ENGINE_DEAD: Final = "EngineCore encountered an issue. See stack trace (above) for the root cause."
BUSY: Final = "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."
SHUTTING_DOWN: Final = "cannot schedule new futures after shutdown"


def failure(status: int, *, retry_after_s: int, marker: str = "") -> Refusal:
    """What a knob's `status` answers; in vLLM's words where vLLM has any. marker: a canary for texts and headers."""
    message, kind = {
        401: ("Unauthorized", "AuthenticationError"),
        404: ("The model does not exist.", "NotFoundError"),
        429: ("Too many requests.", "RateLimitError"),
        500: (ENGINE_DEAD, "InternalServerError"),
        503: (BUSY, "Service Unavailable"),
    }.get(status, (f"Simulated failure {status}.", "SimulatedError"))
    answer = refusal(status, f"{message} {marker}".rstrip(), kind, marker or None)
    if status == 429:
        answer.headers = (("retry-after", str(retry_after_s)),)
    return answer


def html_page(status: int, marker: str = "") -> Refusal:
    """What a proxy in front of a model server says."""
    page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1><p>nginx {marker}</p></body></html>\r\n"
    return Refusal(status, page.encode(), content_type="text/html")


def event(message: str, kind: str = "InternalServerError", code: int = 500, param: str | None = None) -> bytes:
    """An error in a stream: spaces after `:` and `,`, unlike every other event."""
    return f"data: {json.dumps({'error': {'message': message, 'type': kind, 'param': param, 'code': code}})}\n\n".encode()
