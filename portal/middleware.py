"""What every answer of the portal carries, static files and refusals included: a request id and a content security policy;
and where a request comes from.
"""

import logging
from collections.abc import Callable
from typing import Final

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from uuid_utils.compat import uuid7

from gateway.api import addresses

Handler = Callable[[HttpRequest], HttpResponseBase]

# Scripts and styles come from our own files alone: no page has an inline one, so that injected markup stays text.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

# In META, which is the server's own environ: gunicorn can log it too, as %({sekisho.request_id}e)s.
REQUEST_ID: Final = "sekisho.request_id"


def client_address(get_response: Handler) -> Handler:
    """Behind proxies that the installation trusts, REMOTE_ADDR is whom they name: for the audit trail, lock-outs, sessions."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        request.META["REMOTE_ADDR"] = addresses.client_address(request.META)
        return get_response(request)

    return middleware


def request_id(get_response: Handler) -> Handler:
    """Name each request with a UUIDv7: in the answer's header, on error pages and in the log."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        request.META[REQUEST_ID] = str(uuid7())
        response = get_response(request)
        response["x-request-id"] = request.META[REQUEST_ID]
        return response

    return middleware


def content_security_policy(get_response: Handler) -> Handler:
    """A view that needs another policy sets the header itself."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        return response

    return middleware


class RequestIdFilter(logging.Filter):
    """Gives a log record the id of the request it tells of, `-` where there is none. Django puts the request on its own."""

    def filter(self, record: logging.LogRecord) -> bool:
        request = getattr(record, "request", None)
        record.request_id = getattr(request, "META", {}).get(REQUEST_ID, "-")
        return True
