"""Usage of a tenant, and for operators of all of them: a chart and a table of what the URL asks, and the same as a file."""

from dataclasses import replace
from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils import timezone

from accounts.models import Tenant
from accounts.roles import Action
from portal import exports, keyset
from portal.behind import Calls, between
from portal.breakdown import COLUMNS, board
from portal.forms.usage import UsageFilter
from portal.holders import held, url_of
from portal.measures import MEASURES
from portal.views.exports import streamed_or_made

CALLS_FILTERS: Final = ("alias", "key", "ending", "status", "stream", "end_user", "tag")


@held(Action.VIEW)
def index(request: HttpRequest, holder: Tenant | None) -> HttpResponse:
    form = exports.form_of(request.GET, holder, timezone.now())
    tenant_ids = exports.tenants_of(form)
    sort = request.GET.get("sort", "")
    found = board(form, tenant_ids, sort=sort, calls=_calls(holder, form)) if form.is_valid() else None
    query = request.GET.copy()
    for name in (*keyset.PLACES, "sort"):
        query.pop(name, None)
    page: keyset.Page[Any] = keyset.page_in(request, found.names if found else (), lambda name: name)
    if found and page.rows:
        page = replace(page, rows=found.entries(page.rows))
    context: dict[str, Any] = {
        "tenant": holder,
        "home": url_of(holder, "usage"),
        "form": form,
        "board": found,
        "page": page,
        "measures": MEASURES.values(),
        "columns": [MEASURES[name] for name in COLUMNS],
        "group": form.groups.get(form.dimension) if found and form.dimension else "",
        "subgroup": form.groups.get(form.sub) if found and form.sub else "",
        "is_of_labels": bool(found and form.labels),
        "share_of": found.measure.label if found and found.measure.is_summed else MEASURES["requests"].label,
        "zone": form.zone.key,
        "query": query.urlencode(),
        "period": _period(request),
    }
    return render(request, "portal/usage/show.html", context)


@held(Action.VIEW)
def download(request: HttpRequest, holder: Tenant | None, kind: str) -> HttpResponseBase:
    """The figures of the page, by bucket and by each group; not only those that are drawn."""
    return streamed_or_made(request, holder, "usage", kind)


def _calls(tenant: Tenant | None, form: UsageFilter) -> Calls | None:
    """The list of the calls that this page counts; None where it counts those of several tenants."""
    if tenant is None or not form.is_valid():
        return None
    kept = {name: str(form.data.get(name, "")) for name in CALLS_FILTERS}
    return Calls(tenant.slug, between(form.period.start, form.period.end) | kept)


def _period(request: HttpRequest) -> str:
    """The time and the filters of this page, for links to the requests behind a figure."""
    kept = request.GET.copy()
    for name in list(kept):
        if name not in ("range", "from", "to", *CALLS_FILTERS):
            kept.pop(name)
    return kept.urlencode()
