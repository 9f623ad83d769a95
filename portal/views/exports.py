"""Exports that the worker makes: asked for, looked at while they are made, and fetched by whoever asked for them."""

from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from kombu.exceptions import OperationalError

from accounts.models import Tenant
from accounts.roles import Action
from portal import exports, keyset
from portal.access import by, person
from portal.celery import app
from portal.holders import held, url_of
from usage.models import Export

NEWEST_FIRST: Final = (
    keyset.Column("created_at", keyset.moment, is_descending=True),
    keyset.Column("id", keyset.identity, is_descending=True),
)
REASONS: Final[dict[str, Promise]] = {
    "rows": gettext_lazy("It would be too long a file. Ask for a shorter time, fewer groups or narrower filters."),
    "stored": gettext_lazy("The files that are kept now leave no room for another one. Try again in some hours."),
    "making": gettext_lazy("Three of your files are being made. Wait for one of them."),
    "lost": gettext_lazy("The worker that made it is gone. Ask for it again."),
    "gone": gettext_lazy("What it was to hold is not there any more."),
    "error": gettext_lazy("It could not be made. Ask for it again; if it fails again, tell those who run the platform."),
}


@held(Action.VIEW)
def index(request: HttpRequest, holder: Tenant | None) -> HttpResponse:
    """Of the person's own, those that are kept."""
    own = Export.objects.filter(owner_id=person(request).pk, tenant_id=holder.pk if holder else None)
    page = keyset.page_of(request, own, NEWEST_FIRST)
    return render(request, "portal/exports/list.html", _context(holder) | {"page": page})


@held(Action.VIEW, methods=("GET", "HEAD", "POST"))
def new(request: HttpRequest, holder: Tenant | None) -> HttpResponse:
    """What will be made, and at what cost of patience; then it is."""
    subject, kind = request.GET.get("of", "usage"), request.GET.get("kind", "csv")
    query = request.GET.copy()
    for name in ("of", "kind", "sort", *keyset.PLACES):
        query.pop(name, None)
    page = url_of(holder, subject) if subject in exports.SUBJECTS and (holder or subject == "usage") else None
    if page is None or kind not in exports.KINDS:
        return redirect(url_of(holder, "usage"))
    if request.method == "POST":
        return _begin(request, holder, subject, kind, query) or redirect(f"{page}?{query.urlencode()}")
    found = exports.source(subject, query, holder, timezone.now())
    if found is None:
        return redirect(f"{page}?{query.urlencode()}")
    context: dict[str, Any] = {"count": found.count, "is_too_long": found.count > exports.ROWS_MOST, "most": exports.ROWS_MOST}
    context |= {"subject": subject, "kind": kind, "back": f"{page}?{query.urlencode()}"}
    return render(request, "portal/exports/new.html", _context(holder) | context)


@held(Action.VIEW)
def show(request: HttpRequest, holder: Tenant | None, pk: UUID) -> HttpResponse:
    return render(request, "portal/exports/show.html", _shown(request, holder, pk))


@held(Action.VIEW)
def live(request: HttpRequest, holder: Tenant | None, pk: UUID) -> HttpResponse:
    """The part of the page that changes while the file is made."""
    return render(request, "portal/exports/_state.html", _shown(request, holder, pk))


@held(Action.VIEW, methods=("POST",))
def cancel(request: HttpRequest, holder: Tenant | None, pk: UUID) -> HttpResponse:
    export = _export(holder, pk)
    if export.owner_id != person(request).pk:
        messages.error(request, _("Only who asked for this file may cancel it."))
    elif exports.cancel(export, holder, **by(request)):
        messages.success(request, _("The export is cancelled. Nothing of it is kept."))
    else:
        messages.info(request, _("It had ended before: there is nothing to cancel."))
    return redirect(url_of(holder, "export", pk))


@held(Action.VIEW)
def fetch(request: HttpRequest, holder: Tenant | None, pk: UUID) -> HttpResponseBase:
    """The file, for whoever asked for it, by the link that was signed for it."""
    export = _export(holder, pk)
    is_well = exports.is_signed(export, request.GET.get("key", "")) and export.expires_at > timezone.now()
    if export.owner_id != person(request).pk:
        messages.error(request, _("Only who asked for this file may fetch it. Ask for one of your own."))
    elif export.state != "done" or not is_well:
        messages.error(request, _("This link leads to no file any more. Take the one on this page, or ask for the file again."))
    else:
        answer = StreamingHttpResponse(exports.fetched(export, holder, **by(request)), content_type=exports.KINDS[export.kind])
        answer["Content-Disposition"] = f'attachment; filename="{file_name(export, holder)}"'
        return answer
    return redirect(url_of(holder, "export", pk))


def file_name(export: Export, holder: Tenant | None) -> str:
    return f"{export.subject}-{holder.slug if holder else 'all'}-{export.created_at:%Y%m%d-%H%M}.{export.kind}"


def streamed_or_made(request: HttpRequest, holder: Tenant | None, subject: str, kind: str) -> HttpResponseBase:
    """What the page of this address shows, as a file at once; where that is long, the way to have it made."""
    found = exports.source(subject, request.GET, holder, timezone.now())
    if found is None:
        return redirect(f"{url_of(holder, subject)}?{request.GET.urlencode()}")
    if found.count > settings.EXPORT_STREAMED_MAX_ROWS:
        query = request.GET.copy()
        query["of"], query["kind"] = subject, kind
        return redirect(f"{url_of(holder, 'export_new')}?{query.urlencode()}")
    answer = StreamingHttpResponse(exports.encoded(found, kind), content_type=exports.KINDS[kind])
    answer["Content-Disposition"] = f'attachment; filename="{subject}-{holder.slug if holder else "all"}.{kind}"'
    return answer


def _begin(request: HttpRequest, holder: Tenant | None, subject: str, kind: str, query: QueryDict) -> HttpResponse | None:
    try:
        export = exports.begin(holder, subject, kind, query, owner=person(request), **by(request))
    except exports.CannotExport as error:
        messages.error(request, str(REASONS[error.reason]))
        return redirect(url_of(holder, "exports"))
    if export is None:
        return None
    try:
        app.send_task("portal.tasks.make_export", (str(export.pk),), retry=False)
    except OperationalError:
        Export.objects.filter(pk=export.pk).update(state="failed", reason="lost")
        messages.error(request, _("The queue of jobs cannot be reached just now. Try again in a minute."))
    return redirect(url_of(holder, "export", export.pk))


def _export(holder: Tenant | None, pk: UUID) -> Export:
    return get_object_or_404(Export, pk=pk, tenant_id=holder.pk if holder else None)


def _shown(request: HttpRequest, holder: Tenant | None, pk: UUID) -> dict[str, Any]:
    export = _export(holder, pk)
    is_own = export.owner_id == person(request).pk
    return _context(holder) | {
        "export": export,
        "is_own": is_own,
        "key": exports.signed(export) if is_own and export.state == "done" else "",
        "reason": REASONS.get(export.reason, ""),
        "is_in_the_making": export.state in exports.IN_THE_MAKING,
        "cancel_url": url_of(holder, "export_cancel", pk),
        "live_url": url_of(holder, "export_live", pk),
        "file_url": url_of(holder, "export_file", pk),
        "back": f"{url_of(holder, export.subject)}?{export.query}",
    }


def _context(holder: Tenant | None) -> dict[str, Any]:
    zone = holder.time_zone if holder else "UTC"
    return {"tenant": holder, "zone": zone, "list_url": url_of(holder, "exports"), "usage_url": url_of(holder, "usage")}
