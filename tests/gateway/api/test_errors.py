"""Every row of the error table, in every dialect."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from gateway import exceptions
from gateway.api import errors
from gateway.exceptions import GatewayError
from usage.reservation import NO_STATES

ALIAS = "general"
ROWS: list[tuple[GatewayError, int, str, str, str]] = [
    (exceptions.InvalidRequest(), 400, "invalid_request_error", "invalid_request", "Invalid chat completion request."),
    (exceptions.ContextLengthExceeded(), 400, "invalid_request_error", "context_length_exceeded", ""),
    (exceptions.InvalidApiKey(), 401, "authentication_error", "invalid_api_key", "Invalid API key"),
    (
        exceptions.InsufficientScope(), 403, "invalid_request_error", "insufficient_scope",
        "This API key is not authorized to invoke chat completions.",
    ),
    (
        exceptions.ContentBlocked(), 403, "invalid_request_error", "content_blocked",
        "Your request was blocked by a content policy.",
    ),
    (exceptions.ModelNotFound("x"), 404, "model_not_found", "model_not_found", "The requested model was not found."),
    (exceptions.RequestNotFound(), 404, "invalid_request_error", "request_not_found", ""),
    (exceptions.UnsupportedEndpoint(), 404, "invalid_request_error", "unsupported_endpoint", ""),
    (exceptions.MethodNotAllowed(), 405, "invalid_request_error", "method_not_allowed", ""),
    (exceptions.RequestTooLarge(), 413, "invalid_request_error", "request_too_large", ""),
    (exceptions.UnsupportedMediaType(), 415, "invalid_request_error", "unsupported_media_type", ""),
    (
        exceptions.TokenQuotaExceeded("Hourly token limit exceeded. Current usage: 5, Limit: 4", retry_after_s=9), 429,
        "rate_limited", "token_quota_exceeded", "Hourly token limit exceeded. Current usage: 5, Limit: 4",
    ),
    (
        exceptions.ConcurrencyLimitExceeded(retry_after_s=1), 429, "rate_limited", "concurrency_limit_exceeded",
        "Too many concurrent requests. Please try again later.",
    ),
    (exceptions.RequestRateExceeded("Too many", retry_after_s=1), 429, "rate_limited", "rate_limited", "Too many"),
    (exceptions.InternalError(), 500, "server_error", "internal_error", "Internal server error"),
    (
        exceptions.UpstreamUnavailable(ALIAS), 502, "upstream_unavailable", "upstream_unavailable",
        "The requested model alias 'general' is temporarily unavailable.",
    ),
    (exceptions.Overloaded(), 503, "server_error", "overloaded", ""),
    (exceptions.UpstreamTimeout(ALIAS), 504, "upstream_unavailable", "upstream_timeout", ""),
]  # fmt: skip
IDS = [row[3] for row in ROWS]


def answer(error: GatewayError, dialect: str | None) -> Any:
    principal = SimpleNamespace(error_dialect=dialect) if dialect else None
    request = SimpleNamespace(call=SimpleNamespace(principal=principal, error=None, limit_states=NO_STATES), META={})
    response = errors.render(error, request)
    assert request.call.error is error
    return response


@pytest.mark.parametrize(("error", "status", "kind", "code", "message"), ROWS, ids=IDS)
def test_openai_dialect(error: GatewayError, status: int, kind: str, code: str, message: str) -> None:
    response = answer(error, "openai")
    body = json.loads(response.content)
    assert response.status_code == status
    assert list(body) == ["error"]
    assert (body["error"]["type"], body["error"]["code"]) == (kind, code)
    assert body["error"]["message"]
    assert body["error"]["message"] == (message or body["error"]["message"])
    assert "param" in body["error"]


@pytest.mark.parametrize(("error", "status", "kind", "code", "message"), ROWS, ids=IDS)
def test_detail_dialect(error: GatewayError, status: int, kind: str, code: str, message: str) -> None:
    response = answer(error, "detail")
    body = json.loads(response.content)
    assert list(body) == ["detail"]
    if code == "model_not_found":
        assert (response.status_code, body["detail"]) == (400, "Model x not found")
    else:
        assert (response.status_code, body["detail"]) == (status, message or error.message)


@pytest.mark.parametrize(("error", "status", "kind", "code", "message"), ROWS, ids=IDS)
@pytest.mark.parametrize("dialect", ["both", None], ids=["both", "before the key is known"])
def test_both(error: GatewayError, status: int, kind: str, code: str, message: str, dialect: str | None) -> None:
    response = answer(error, dialect)
    body = json.loads(response.content)
    assert response.status_code == status
    assert set(body) == {"error", "detail"}
    assert body["error"]["code"] == code


def test_the_table_holds_every_leaf_of_the_tree() -> None:
    def leaves(cls: type[GatewayError]) -> set[type[GatewayError]]:
        below = cls.__subclasses__()
        return set().union(*map(leaves, below)) if below else {cls}

    assert leaves(GatewayError) - {exceptions.ClientLeft} == {type(row[0]) for row in ROWS}


def test_401_asks_for_a_bearer() -> None:
    assert answer(exceptions.InvalidApiKey(), None)["www-authenticate"] == "Bearer"


def test_details_reach_every_dialect() -> None:
    error = exceptions.InvalidRequest(param="temperature", details=[{"param": "temperature", "message": "Must be 0 to 2."}])
    both = json.loads(answer(error, "both").content)
    assert both["error"]["param"] == "temperature"
    assert both["error"]["details"] == [{"param": "temperature", "message": "Must be 0 to 2."}]
    assert both["detail"] == "Invalid chat completion request. temperature: Must be 0 to 2."


@pytest.mark.parametrize(
    ("wait_s", "whole", "milliseconds", "stops"),
    [
        (0.2, "1", "200", False),
        (1, "1", "1000", False),
        (1.2, "2", "1200", False),
        (60, "60", "60000", False),
        (61, "61", "61000", True),
    ],
)
def test_waiting_times_are_true_and_long_ones_stop_the_sdks(wait_s: float, whole: str, milliseconds: str, stops: bool) -> None:
    response = answer(exceptions.Overloaded(retry_after_s=wait_s), "openai")
    assert (response["retry-after"], response["retry-after-ms"]) == (whole, milliseconds)
    assert response.has_header("x-should-retry") is stops


@pytest.mark.parametrize("dialect", ["openai", "detail", "both"])
def test_no_sdk_sends_again_what_was_blocked(dialect: str) -> None:
    assert answer(exceptions.ContentBlocked(), dialect)["x-should-retry"] == "false"


def test_an_unexpected_fault_tells_nothing() -> None:
    error = errors.to_gateway_error(ValueError("secret prompt"), [])
    assert (error.status, error.message) == (500, "Internal server error")


def test_an_error_event_is_the_error_object_and_no_done() -> None:
    event = errors.error_event(exceptions.UpstreamUnavailable(ALIAS))
    assert event.startswith(b'data: {"error":{')
    assert event.endswith(b"}}\n\n")
    assert b"[DONE]" not in event
