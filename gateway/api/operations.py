"""What load balancers and operators ask: /health, /livez, /readyz, /metrics. No key, no tenant's data."""

from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.http.response import HttpResponseBase

from gateway import lifecycle, metrics
from gateway.api.addresses import client_address, is_within
from gateway.api.views import unsupported
from gateway.config import directory
from usage.store import StoreUnavailable


def live(request: Any) -> HttpResponse:
    """200 with an empty body, as vLLM's own /health: the process serves."""
    request.call.is_probe = True
    return HttpResponse()


def ready(request: Any) -> HttpResponse:
    """200 once this worker holds a configuration, until it is asked to end; with the stores gone it stays ready."""
    request.call.is_probe = True
    if lifecycle.is_stopping():
        return HttpResponse(b'{"status":"stopping"}', status=503, content_type="application/json")
    try:
        directory.current().platform()
    except StoreUnavailable:
        return HttpResponse(b'{"status":"no configuration"}', status=503, content_type="application/json")
    return HttpResponse(b'{"status":"ready"}', content_type="application/json")


def prometheus(request: Any) -> HttpResponseBase:
    """To operators' networks alone; for anybody else this path does not exist."""
    if not is_within(client_address(request.META), tuple(settings.OPERATOR_NETWORKS)):
        return unsupported(request)
    request.call.is_probe = True
    return HttpResponse(metrics.render(), content_type="text/plain; version=0.0.4; charset=utf-8")
