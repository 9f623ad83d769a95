"""Is the process alive, asked by its supervisor; and how the whole platform is, asked by those who run it."""

from typing import Final

from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import get_language

from portal.access import operator, public
from portal.condition import condition, settled

HELD_S: Final = 60


@public()
def live(request: HttpRequest) -> HttpResponse:
    """No store is touched, so that a store's failure restarts nobody."""
    return HttpResponse("ok", content_type="text/plain")


@operator()
def index(request: HttpRequest) -> HttpResponse:
    found = settled()
    cache.set(_held(), found, HELD_S)
    return render(request, "portal/health/show.html", {"condition": condition(found)})


@operator()
def part(request: HttpRequest) -> HttpResponse:
    """What of the page renews itself."""
    found = cache.get(_held())
    if found is None:
        cache.set(_held(), found := settled(), HELD_S)
    return render(request, "portal/health/_live.html", {"condition": condition(found)})


def _held() -> str:
    return f"health:{get_language()}"
