"""The report of a month, for a tenant's books and for those who run the platform: to read, to print, and as a file."""

from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone

from accounts.models import Tenant
from accounts.roles import Action
from portal import keyset, monthly
from portal.access import operator, require
from portal.forms.monthly import MonthFilter, named
from portal.measures import MEASURES
from portal.spreadsheet import lines
from usage.monthly import Month, first_month, first_month_of_all, month_of_all, month_of_tenant
from usage.series import zone_of


@require(Action.VIEW)
def index(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    zone = zone_of(tenant)
    form = _form(request, tenant, zone)
    context = _context(form, _now(zone)) | {"tenant": tenant, "made_at": timezone.now()}
    if form.is_valid():
        found = month_of_tenant(tenant, form.month, zone)
        context |= {"found": found, "report": monthly.report(tenant, found), "zone": zone.key}
    return render(request, "portal/monthly/show.html", context)


@require(Action.VIEW)
def download(request: HttpRequest, tenant: Tenant) -> HttpResponseBase:
    zone = zone_of(tenant)
    form = _form(request, tenant, zone)
    if not form.is_valid():
        return redirect(f"{reverse('monthly', args=[tenant.slug])}?{request.GET.urlencode()}")
    rows = monthly.rows(month_of_tenant(tenant, form.month, zone))
    return _file(monthly.HEAD, rows, f"monthly-{tenant.slug}-{form.month}.csv")


@operator()
def index_of_all(request: HttpRequest) -> HttpResponse:
    form = _form_of_all(request)
    context = _context(form, _now(ZoneInfo(settings.TIME_ZONE)))
    if form.is_valid():
        report = monthly.report_of_all(form.month, month_of_all(form.month))
        page = keyset.page_in(request, report.lines, lambda line: line[0].slug if line[0] else line[1].label)
        context |= {"report": report, "page": page, "month": form.month}
    return render(request, "portal/monthly/list.html", context)


@operator()
def download_of_all(request: HttpRequest) -> HttpResponseBase:
    form = _form_of_all(request)
    if not form.is_valid():
        return redirect(f"{reverse('admin_monthly')}?{request.GET.urlencode()}")
    rows = monthly.rows_of_all(form.month, month_of_all(form.month))
    return _file(monthly.HEAD_OF_ALL, rows, f"monthly-all-{form.month}.csv")


def _form(request: HttpRequest, tenant: Tenant, zone: ZoneInfo) -> MonthFilter:
    return MonthFilter(request.GET, first=first_month(tenant, zone), current=_now(zone))


def _form_of_all(request: HttpRequest) -> MonthFilter:
    return MonthFilter(request.GET, first=first_month_of_all(), current=_now(ZoneInfo(settings.TIME_ZONE)))


def _now(zone: ZoneInfo) -> Month:
    return Month.of(timezone.now().astimezone(zone).date())


def _context(form: MonthFilter, current: Month) -> dict[str, Any]:
    columns = [MEASURES[name] for name in monthly.COLUMNS]
    if not form.is_valid():
        return {"form": form, "columns": columns}
    month = form.month
    return {
        "form": form,
        "columns": columns,
        "named": named(month),
        "previous": month.previous if month.year > 2000 else None,
        "next": month.next if month < current else None,
        "is_running": month == current,
    }


def _file(head: tuple[str, ...], rows: Any, name: str) -> HttpResponseBase:
    answer = StreamingHttpResponse(lines(head, rows), content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer
