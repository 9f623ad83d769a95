"""The whole platform at a glance, for those who run it; its one part renews itself while it is looked at."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from portal import fleet
from portal.access import operator


@operator()
def index(request: HttpRequest) -> HttpResponse:
    return render(request, "portal/fleet/show.html", fleet.context(timezone.now()))


@operator()
def live(request: HttpRequest) -> HttpResponse:
    return render(request, "portal/fleet/_live.html", fleet.context(timezone.now()))
