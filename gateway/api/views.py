"""The endpoints of /v1: parse, call one verb, render."""

import sys
import time
from collections.abc import Callable
from typing import Any, ClassVar, cast

import orjson
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts import scopes
from gateway.api import cors
from gateway.api.authentication import ApiKeyAuthentication, authenticated
from gateway.api.chat_request import validate
from gateway.api.direct import Answer
from gateway.api.disconnect import watch
from gateway.api.errors import handle_exception, render, to_gateway_error
from gateway.api.languages import preferred_language
from gateway.api.negotiation import IgnoreAccept
from gateway.api.parsers import read_json_object
from gateway.api.permissions import HasScope, require_scope
from gateway.api.rate_headers import rate_headers
from gateway.api.response_headers import CLAMPED, DROPPED_PARAMS
from gateway.call import Call, us_since
from gateway.completion import complete
from gateway.config.documents import Alias
from gateway.exceptions import MethodNotAllowed, ModelNotFound, UnsupportedEndpoint
from gateway.principal import Principal
from gateway.server.reply import SEND_ON
from gateway.upstream.relay import Relay

OWNED_BY = "sekisho"
ENDPOINTS = (
    "POST /v1/chat/completions, GET /v1/models, GET /v1/models/{id}, GET /v1/usage, GET /v1/limits and GET /v1/requests/{id}"
)


class GatewayView(APIView):
    """Authentication, then scope, then the handler: DRF's order, the contract's words."""

    authentication_classes = (ApiKeyAuthentication,)
    permission_classes = (HasScope,)
    content_negotiation_class = IgnoreAccept
    required_scope: ClassVar[str]
    endpoint: ClassVar[str]  # its name in the log

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """A wrong method and a preflight are answered before the key is asked for."""
        call: Call = request.call  # type: ignore[attr-defined]
        call.endpoint = self.endpoint
        if request.method not in self.allowed_methods:
            return self.without_a_key(request)
        return self.with_a_key(call, request, *args, **kwargs)

    def without_a_key(self, request: HttpRequest) -> HttpResponse:
        allowed = ", ".join(self.allowed_methods)
        if request.method == "OPTIONS":
            return cors.preflight(request, allowed)
        error = MethodNotAllowed(f"This method is not allowed here; allowed: {allowed}.", headers={"allow": allowed})
        return render(error, request)

    def with_a_key(self, call: Call, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """DRF's own dispatch: authentication, scope, handler."""
        return super().dispatch(request, *args, **kwargs)

    def perform_authentication(self, request: Request) -> None:
        call = call_of(request)
        call.principal = identified(call, principal_of, request)

    def get_exception_handler(self) -> Any:
        return handle_exception

    @property
    def default_response_headers(self) -> dict[str, str]:
        return {}

    @property
    def allowed_methods(self) -> list[str]:
        return [name for name in ("GET", "POST") if hasattr(self, name.lower())]


class ChatCompletions(GatewayView):
    """The hot path: reached from direct.py, without Django's handler. It keeps no state: one serves all calls."""

    endpoint = "chat.completions"
    required_scope = scopes.CHAT
    allowed_methods = ("POST",)  # type: ignore[assignment]  # asked for with each call

    def with_a_key(self, call: Call, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """As DRF's dispatch does it, without its Request, negotiation and throttles: they decide nothing here."""
        try:
            call.principal = identified(call, authenticated, request.META)
            require_scope(call.principal, self)
            return self.answer(call, call.principal, request)
        except Exception as error:  # noqa: BLE001 - the edge of a view, as in DRF's dispatch
            return render(to_gateway_error(error, []), request)

    def post(self, request: Request) -> HttpResponseBase:
        return self.answer(call_of(request), principal_of(request), request)

    def answer(self, call: Call, principal: Principal, request: HttpRequest | Request) -> HttpResponseBase:
        call.is_metered = True
        wanted = validate(read_json_object(request))
        call.stop_watching = watch(request.META, call.abandon)
        answer = complete(call, principal, wanted)
        if isinstance(answer, Relay):
            if (send_on := request.META.get(SEND_ON)) is not None:
                answer.passes_to(send_on)
            response = Answer(answer, "text/event-stream; charset=utf-8")
            response.headers["cache-control"] = "no-cache, no-transform"
            response.headers["x-accel-buffering"] = "no"
        else:
            response = Answer(answer, "application/json")
        response.headers.update(rate_headers(call.limit_states))
        if call.is_clamped:
            response[CLAMPED] = "max_tokens"
        if call.dropped_params:
            response[DROPPED_PARAMS] = ", ".join(call.dropped_params)
        return response


class Models(GatewayView):
    endpoint = "models"
    required_scope = scopes.MODELS
    scope_refusal = "This API key is not authorized to list models."

    def get(self, request: Request) -> HttpResponseBase:
        language = preferred_language(request.META.get("HTTP_ACCEPT_LANGUAGE", ""))
        aliases = principal_of(request).aliases()
        return json_response({"object": "list", "data": [model_object(alias, language) for alias in aliases]})


class Model(GatewayView):
    endpoint = "models.one"
    required_scope = scopes.MODELS
    scope_refusal = Models.scope_refusal

    def get(self, request: Request, name: str) -> HttpResponseBase:
        alias = principal_of(request).alias(name)
        if alias is None:
            raise ModelNotFound(name)
        return json_response(model_object(alias, preferred_language(request.META.get("HTTP_ACCEPT_LANGUAGE", ""))))


def model_object(alias: Alias, language: str) -> dict[str, Any]:
    """One entry of /v1/models; nothing in it names what backs the alias."""
    return {
        "id": alias.name,
        "object": "model",
        "created": alias.created_s,
        "owned_by": OWNED_BY,
        "display_name": text_in(alias.display_name, language) or alias.name,
        "description": text_in(alias.description, language),
    }


def text_in(texts: Any, language: str) -> str:
    """The text in `language`, else in the other one, else nothing."""
    return str(texts.get(language) or next((text for text in texts.values() if text), ""))


def unsupported(request: HttpRequest) -> HttpResponseBase:
    """Every other path. A client that left out /v1 is told so."""
    if request.method == "OPTIONS":
        return cors.preflight(request, "GET, POST")
    hint = " Did you leave out /v1?" if request.path.startswith(("/chat/", "/models", "/completions")) else ""
    return render(UnsupportedEndpoint(f"This endpoint is not supported.{hint} Supported: {ENDPOINTS}."), request)


def failed(request: HttpRequest) -> HttpResponseBase:
    """Django's handler500: a fault outside any view, handled while it is still in flight."""
    return render(to_gateway_error(sys.exception() or RuntimeError(), []), request)


def json_response(value: Any) -> HttpResponse:
    return HttpResponse(orjson.dumps(value), content_type="application/json")


def identified(call: Call, principal_in: Callable[[Any], Principal], asked: Any) -> Principal:
    """Whose call it is. How long that took to find out is noted, of a refused key too."""
    begun = time.perf_counter()
    try:
        return principal_in(asked)
    finally:
        call.auth_us = us_since(begun)


def principal_of(request: Request) -> Principal:
    """Who ApiKeyAuthentication found; DRF keeps it where it keeps users."""
    return cast("Principal", request.user)


def call_of(request: Request) -> Call:
    call: Call = request._request.call  # type: ignore[attr-defined]  # noqa: SLF001 - the edge put it on Django's request
    return call
