"""Is the process alive, asked by its supervisor; and how the whole platform is, asked by those who run it."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from portal.access import operator, public
from portal.condition import condition


@public()
def live(request: HttpRequest) -> HttpResponse:
    """No store is touched, so that a store's failure restarts nobody."""
    return HttpResponse("ok", content_type="text/plain")


@operator()
def index(request: HttpRequest) -> HttpResponse:
    return render(request, "portal/health/show.html", {"condition": condition()})
