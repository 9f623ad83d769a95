"""The edge: the only middleware of the gateway. Each request gets its Call, each answer its headers and its end."""

import re
from collections.abc import Callable
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from gateway import lifecycle
from gateway.api import cors
from gateway.api.response_headers import QUEUE_MS, REQUEST_ID
from gateway.call import Call
from gateway.endings import outcome_of
from usage.events import Outcome

_CALL_MAX_S: Final[float] = settings.CALL_MAX_S
_SECONDS: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", re.ASCII)
_CLIENT_ID: Final = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)


def edge(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Callable[[HttpRequest], HttpResponseBase]:
    """Answers carry our x-request-id, also errors and streams; a client's own id is logged, never taken over."""

    def handle(request: Any) -> HttpResponseBase:
        said = request.META.get
        client_id = said("HTTP_X_CLIENT_REQUEST_ID") or said("HTTP_X_REQUEST_ID")
        call = request.call = Call(
            client_request_id=_printable(client_id) if client_id else None, max_s=_CALL_MAX_S, record=lifecycle.record
        )
        if retry_count := said("HTTP_X_STAINLESS_RETRY_COUNT"):
            call.retry_count = _printable(retry_count)
        if patience := said("HTTP_X_STAINLESS_READ_TIMEOUT"):
            call.patience_s = _seconds(patience)
        response = get_response(request)
        response.headers[REQUEST_ID] = call.request_id
        if call.is_metered:
            response.headers[QUEUE_MS] = str(call.waited_ms if call.ended else call.queue_ms)
        if isinstance(response, HttpResponse):
            response["content-length"] = str(len(response.content))
        if (origin := said("HTTP_ORIGIN")) is not None:
            cors.add_headers(origin, response, call.principal)
        if not (call.is_handed_over or call.ended):
            outcome, code = _outcome(call, response.status_code)
            call.end(status=response.status_code, outcome=outcome, error_code=code)
        return response

    return handle


def _outcome(call: Call, status: int) -> tuple[Outcome, str | None]:
    """How a call ended that no relay and no plain answer has ended already."""
    outcome = outcome_of(call.error, status, client_left=call.client_left)
    if call.client_left:
        return outcome, "client_left"
    return outcome, None if call.error is None else call.error.recorded_code


def _seconds(text: str) -> float | None:
    """A client's own limit of time; what is none is no reason to refuse it."""
    return float(text) if _SECONDS.fullmatch(text) and float(text) > 0 else None


def _printable(text: str) -> str | None:
    return text if _CLIENT_ID.fullmatch(text) else None
