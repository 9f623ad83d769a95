"""GatewayErrors as answers: three dialects, headers, and the one DRF exception handler of /v1."""

import math
from typing import Any

import orjson
import structlog
from django.http import HttpResponse
from rest_framework.exceptions import MethodNotAllowed as DrfMethodNotAllowed

from gateway.api.rate_headers import rate_headers
from gateway.api.response_headers import RETRY_AFTER, RETRY_AFTER_MS, SHOULD_RETRY
from gateway.exceptions import LONG_WAIT_S, GatewayError, InternalError, MethodNotAllowed

_log = structlog.get_logger("gateway")


def handle_exception(exc: Exception, context: dict[str, Any]) -> HttpResponse:
    """DRF's EXCEPTION_HANDLER: translate what is not ours, leave the error on the call, render it."""
    request = context["request"]
    return render(to_gateway_error(exc, context["view"].allowed_methods), request._request)  # noqa: SLF001 - Django's own request


def to_gateway_error(exc: BaseException, allowed_methods: list[str]) -> GatewayError:
    if isinstance(exc, GatewayError):
        return exc
    if isinstance(exc, DrfMethodNotAllowed):
        allowed = ", ".join(m for m in allowed_methods)
        return MethodNotAllowed(f"This method is not allowed here; allowed: {allowed}.", headers={"allow": allowed})
    # The traceback goes to the log without the values of variables: they hold prompts and keys.
    _log.error("unexpected_error", error_class=type(exc).__name__, exc_info=exc)
    return InternalError()


def render(error: GatewayError, request: Any) -> HttpResponse:
    """The answer to a Django request that failed with `error`, in its principal's dialect; `both` before the key is known."""
    call = request.call
    call.error = error
    error.__traceback__ = error.__context__ = None  # their frames hold the call: a circle, left to the collector
    dialect = call.principal.error_dialect if call.principal else "both"
    status = error.detail_status if dialect == "detail" else error.status
    response = HttpResponse(orjson.dumps(body(error, dialect)), status=status, content_type="application/json")
    limits = rate_headers(call.limit_states) if error.status == 429 else {}
    for name, value in (error.headers | retry_headers(error) | limits).items():
        response[name] = value
    if error.status == 401:
        response["www-authenticate"] = "Bearer"
    if error.closes_connection:
        request.META["sekisho.close_connection"] = True
    return response


def body(error: GatewayError, dialect: str) -> dict[str, Any]:
    """The JSON object of an error. openai: {"error"}; detail: {"detail"}; both: the two side by side."""
    if dialect == "detail":
        return {"detail": detail_text(error)}
    if dialect == "both":
        return {"error": error_object(error), "detail": detail_text(error)}
    return {"error": error_object(error)}


def error_object(error: GatewayError) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": error.type, "message": error.message, "code": error.code, "param": error.param}
    if error.details:
        fields["details"] = list(error.details)
    return fields


def detail_text(error: GatewayError) -> str:
    """One sentence, and where fields are at fault, what is wrong with them: this dialect has no other place for it."""
    if not error.details:
        return error.detail
    reasons = (f"{d['param']}: {d['message']}" if d.get("param") else str(d["message"]) for d in error.details)
    return " ".join((error.detail, *reasons))


def error_event(error: GatewayError) -> bytes:
    """The last event of a stream that failed after its first byte. Nothing follows it, no [DONE] either."""
    return b"data: " + orjson.dumps({"error": error_object(error)}) + b"\n\n"


def retry_headers(error: GatewayError) -> dict[str, str]:
    """True waiting time, in seconds rounded up and in milliseconds; beyond a minute, also the word that stops SDKs."""
    wait_s = error.retry_after_s
    if wait_s is None:
        return {}
    headers = {RETRY_AFTER: str(max(1, math.ceil(wait_s))), RETRY_AFTER_MS: str(max(1, math.ceil(wait_s * 1000)))}
    if wait_s > LONG_WAIT_S:
        headers[SHOULD_RETRY] = "false"
    return headers
