"""CORS for browser clients: a tenant's own list of origins, none by default; no credentials."""

from typing import Final

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from gateway.api.response_headers import TOLD
from gateway.config import directory
from gateway.principal import Principal
from usage.store import StoreUnavailable

_EXPOSED: Final = ", ".join(TOLD)
_MAX_AGE_S: Final = "600"


def preflight(request: HttpRequest, allowed_methods: str) -> HttpResponse:
    """The answer to OPTIONS. It comes before authentication, since a preflight carries no key."""
    response = HttpResponse(status=204)
    response["allow"] = allowed_methods
    origin = request.META.get("HTTP_ORIGIN")
    if origin and origin in _all_origins():
        response["access-control-allow-origin"] = origin
        response["access-control-allow-methods"] = allowed_methods
        # Echoed: browser SDKs send some eight X-Stainless-* headers, and a fixed list would break with the next one.
        if asked := request.META.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS"):
            response["access-control-allow-headers"] = asked
        response["access-control-max-age"] = _MAX_AGE_S
    response["vary"] = "Origin"
    return response


def add_headers(origin: str, response: HttpResponseBase, principal: Principal | None) -> None:
    """Let the browser read this answer, if its origin is the tenant's; before the key is known, any tenant's."""
    response["vary"] = "Origin"
    if origin in (principal.tenant.cors_origins if principal else _all_origins()):
        response["access-control-allow-origin"] = origin
        response["access-control-expose-headers"] = _EXPOSED


def _all_origins() -> frozenset[str]:
    try:
        return directory.current().platform().cors_origins
    except StoreUnavailable:
        return frozenset()
