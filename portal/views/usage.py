"""Usage of a tenant, and for operators of all of them: a chart and a table of what the URL asks, and the same as a file."""

from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone

from accounts.models import Tenant
from accounts.roles import Action
from portal import keyset
from portal.access import operator, require
from portal.breakdown import COLUMNS, HEAD, board, lines_of
from portal.forms.usage import AllUsageFilter, UsageFilter
from portal.measures import MEASURES
from portal.spreadsheet import lines
from usage.models import ReportingZone
from usage.series import Asked, Dimension, zone_of


@require(Action.VIEW)
def index(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    form = UsageFilter(request.GET, tenant=tenant, zone=zone_of(tenant), now=timezone.now())
    context = {"tenant": tenant, "home": reverse("usage", args=[tenant.slug])}
    return _page(request, form, (str(tenant.pk),), context | {"links": ("usage_csv", "usage_ndjson")})


@require(Action.VIEW)
def download(request: HttpRequest, tenant: Tenant, kind: str) -> HttpResponseBase:
    """The figures of the page, by bucket and by each group; not only those that are drawn."""
    form = UsageFilter(request.GET, tenant=tenant, zone=zone_of(tenant), now=timezone.now())
    if not form.is_valid():
        return redirect(f"{reverse('usage', args=[tenant.slug])}?{request.GET.urlencode()}")
    return _file(form.asked((str(tenant.pk),)), form.dimension, kind, tenant.slug)


@operator()
def index_of_all(request: HttpRequest) -> HttpResponse:
    form = AllUsageFilter(request.GET, tenant=None, zone=ZoneInfo(settings.TIME_ZONE), now=timezone.now())
    context = {"home": reverse("admin_usage"), "links": ("admin_usage_csv", "admin_usage_ndjson")}
    return _page(request, form, _all(form), context)


@operator()
def download_of_all(request: HttpRequest, kind: str) -> HttpResponseBase:
    form = AllUsageFilter(request.GET, tenant=None, zone=ZoneInfo(settings.TIME_ZONE), now=timezone.now())
    if not form.is_valid():
        return redirect(f"{reverse('admin_usage')}?{request.GET.urlencode()}")
    return _file(form.asked(_all(form)), form.dimension, kind, "all")


def _page(request: HttpRequest, form: UsageFilter, tenant_ids: tuple[str, ...], context: dict[str, Any]) -> HttpResponse:
    sort = request.GET.get("sort", "")
    found = board(form, tenant_ids, sort=sort) if form.is_valid() else None
    query = request.GET.copy()
    for name in (*keyset.PLACES, "sort"):
        query.pop(name, None)
    context |= {
        "form": form,
        "board": found,
        "page": keyset.page_in(request, found.entries if found else (), lambda entry: entry.name),
        "measures": MEASURES.values(),
        "columns": [MEASURES[name] for name in COLUMNS],
        "group": form.groups.get(form.dimension) if found and form.dimension else "",
        "share_of": found.measure.label if found and found.measure.is_summed else MEASURES["requests"].label,
        "zone": form.zone.key,
        "query": query.urlencode(),
        "period": _period(request),
    }
    return render(request, "portal/usage/show.html", context)


def _period(request: HttpRequest) -> str:
    """The time and the filters of this page, for links to the requests behind a figure."""
    kept = request.GET.copy()
    for name in list(kept):
        if name not in ("range", "from", "to", "alias", "key", "ending", "status"):
            kept.pop(name)
    return kept.urlencode()


def _all(form: AllUsageFilter) -> tuple[str, ...]:
    """Whose usage counts: also that of tenants that are gone."""
    chosen: Tenant | None = form.cleaned_data.get("tenant") if form.is_valid() else None
    if chosen is not None:
        return (str(chosen.pk),)
    return tuple(str(pk) for pk in ReportingZone.objects.values_list("tenant_id", flat=True))


def _file(asked: Asked, dimension: Dimension | None, kind: str, of: str) -> HttpResponseBase:
    rows = lines_of(asked, dimension)
    if kind == "csv":
        cells = ([_cell(row[name]) for name in HEAD] for row in rows)
        answer = StreamingHttpResponse(lines(HEAD, cells), content_type="text/csv; charset=utf-8")
    elif kind == "ndjson":
        answer = StreamingHttpResponse(_json_lines(rows), content_type="application/x-ndjson")
    else:
        raise Http404
    answer["Content-Disposition"] = f'attachment; filename="usage-{of}.{kind}"'
    return answer


def _json_lines(rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    for row in rows:
        yield orjson.dumps(row) + b"\n"


def _cell(value: Any) -> str:
    return "" if value is None else str(value)
