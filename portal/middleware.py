"""What every answer of the portal carries, static files and refusals included: a request id and a content security policy;
that it is sent compressed; and where a request comes from.
"""

import gzip
import logging
from collections.abc import Callable
from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.gzip import GZipMiddleware
from uuid_utils.compat import uuid7
from whitenoise.middleware import WhiteNoiseMiddleware

from gateway.api import addresses

Handler = Callable[[HttpRequest], HttpResponseBase]

# Scripts and styles come from our own files alone: no page has an inline one, so that injected markup stays text.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

# In META, which is the server's own environ: gunicorn can log it too, as %({sekisho.request_id}e)s.
REQUEST_ID: Final = "sekisho.request_id"
TEXTS: Final = ("text/", "image/svg", "application/javascript")


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


class Compression(GZipMiddleware):
    """Pages travel compressed: a tenth of the bytes. Streams go as they are: each part reaches the reader when it is made.

    A secret that stands in a page whose other texts somebody else chooses could be guessed by its length; but the form token
    is masked anew in each answer, Django adds a random length, and the text of a key stands in one answer alone.
    """

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        return response if response.streaming else super().process_response(request, response)


class StaticFiles(WhiteNoiseMiddleware):
    """WhiteNoise, which sends compressed what lies compressed beside the file, made to compress where nothing does."""

    @staticmethod
    def serve(static_file: Any, request: HttpRequest) -> HttpResponseBase:
        found = static_file.get_response(request.method, request.META)
        headers = {**dict(found.headers), "Vary": "Accept-Encoding"}
        body = b"" if found.file is None else found.file.read()
        if found.file is not None:
            found.file.close()
        is_whole = request.method == "GET" and found.status == 200 and headers.get("Content-Type", "").startswith(TEXTS)
        if is_whole and "gzip" in request.META.get("HTTP_ACCEPT_ENCODING", ""):
            # Under the same ETag, as WhiteNoise has it of its own: it knows the file when it is asked for again.
            body = gzip.compress(body, compresslevel=6, mtime=0)
            headers |= {"Content-Encoding": "gzip", "Content-Length": str(len(body))}
        answer = HttpResponse(body, status=int(found.status), headers=headers)
        if "Content-Type" not in headers:
            del answer["Content-Type"]
        return answer


class RequestIdFilter(logging.Filter):
    """Gives a log record the id of the request it tells of, `-` where there is none. Django puts the request on its own."""

    def filter(self, record: logging.LogRecord) -> bool:
        request = getattr(record, "request", None)
        record.request_id = getattr(request, "META", {}).get(REQUEST_ID, "-")
        return True
