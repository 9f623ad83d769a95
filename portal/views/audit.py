"""The audit trail of a tenant, or of the platform with all tenants: who did what from where, before and after; the same as a
file for spreadsheets; and whether the chain of events is whole.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from zoneinfo import ZoneInfo

from django.contrib import messages
from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from kombu.exceptions import OperationalError

from accounts import audit
from accounts.models import AuditEvent, Tenant
from accounts.querysets import AuditEventQuerySet
from accounts.roles import Action
from portal import keyset
from portal.access import by, operator, person
from portal.celery import app
from portal.changes import Change, changes, masked
from portal.forms.audit import AuditFilter
from portal.holders import held, url_of
from portal.spreadsheet import lines

WALKED_AT_ONCE: Final = 20_000  # events; checking them takes about two seconds
ORDER: Final = (keyset.Column("sequence", keyset.whole, is_descending=True),)  # the newest first
ROWS_AT_ONCE: Final = 500
OPEN_MAX: Final = 6  # a longer list of changes is closed until it is asked for
SEQUENCE_MAX: Final = 2**63 - 1
BEHIND: Final = ("deployment", "canary")  # what backs an alias is nobody's to know but operators'
HEAD: Final = ("sequence", "time", "actor", "verb", "target", "address", "request_id", "before", "after")


@dataclass(frozen=True, slots=True)
class Entry:
    event: AuditEvent
    changes: list[Change]
    is_open: bool


@held(Action.VIEW_AUDIT)
def index(request: HttpRequest, holder: Tenant | None) -> HttpResponse:
    form = AuditFilter(request.GET, tenant=holder)
    asked = form.narrowed(_events(holder)) if form.is_valid() else None
    page = None if asked is None else keyset.page_of(request, asked, ORDER, is_counted=False)
    is_operator = person(request).is_operator
    context = {
        **_context(holder),
        "form": form,
        "page": page,
        "entries": [_entry(event, is_operator=is_operator) for event in page or ()],
        "is_narrow": asked is not None and form.is_narrow,
        "is_filtered": asked is None or form.is_narrow,
        "query": keyset.query(request),
        **({} if holder else _chain(request)),
    }
    return render(request, "portal/audit/list.html", context)


@held(Action.VIEW_AUDIT)
def show(request: HttpRequest, holder: Tenant | None, sequence: int) -> HttpResponse:
    event = get_object_or_404(_events(holder), sequence=min(sequence, SEQUENCE_MAX))
    context = {**_context(holder), "event": event, "entry": _entry(event, is_operator=person(request).is_operator)}
    return render(request, "portal/audit/show.html", context)


@held(Action.VIEW_AUDIT)
def download(request: HttpRequest, holder: Tenant | None) -> HttpResponseBase:
    """What the filters of the page leave, all of it, newest first. Times are the tenant's; the platform's are in UTC."""
    form = AuditFilter(request.GET, tenant=holder)
    if not form.is_valid():
        return redirect(f"{url_of(holder, 'audit')}{keyset.query(request)}")
    zone, is_operator = ZoneInfo(holder.time_zone if holder else "UTC"), person(request).is_operator
    events = _each(form.narrowed(_events(holder)))
    head = HEAD if holder else (*HEAD, "tenant")
    rows = ([*_cells(event, zone, is_operator=is_operator), event.tenant_slug][: len(head)] for event in events)
    answer = StreamingHttpResponse(lines(head, rows), content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="audit-{holder.slug if holder else "platform"}.csv"'
    return answer


@operator(methods=("POST",))
def verify(request: HttpRequest) -> HttpResponse:
    """Walk along the chain: a short one at once, a long one in the worker. What was found is an event of its own."""
    last = AuditEvent.objects.values_list("sequence", flat=True).first() or 0
    if last <= WALKED_AT_ONCE:
        _tell(request, audit.verify_and_record(**by(request)))
        return redirect("admin_audit")
    who = by(request)
    before = AuditEvent.objects.filter(verb=audit.VERIFIED).values_list("sequence", flat=True).first() or 0
    try:
        sent = (str(person(request).pk), who.get("address"), who.get("request_id", ""))
        app.send_task("portal.tasks.verify_audit", sent, retry=False)
    except OperationalError:
        messages.error(request, _("The queue of jobs cannot be reached just now. Try again in a minute."))
    else:
        messages.success(request, _("The trail is long: the worker checks it, and what it finds will stand here."))
        return redirect(f"{reverse('admin_audit')}?{urlencode({'checking': before})}")
    return redirect("admin_audit")


@operator()
def chain(request: HttpRequest) -> HttpResponse:
    """What the worker found, once it has: until then there is nothing to be put in the place of what is shown."""
    found = _chain(request)
    if found["is_checking"]:
        return HttpResponse(status=204)
    return render(request, "portal/audit/_chain_state.html", {**_context(None), **found})


def _chain(request: HttpRequest) -> dict[str, Any]:
    """The last check. One that was asked for after `checking`, the number of the one before, may still be on its way."""
    verified = AuditEvent.objects.filter(verb=audit.VERIFIED).first()
    (before,) = keyset.asked(request, "checking", ORDER) or (None,)
    is_checking = before is not None and (verified.sequence if verified else 0) <= before
    return {"verified": verified, "checking": before, "is_checking": is_checking}


def _tell(request: HttpRequest, found: audit.Chain) -> None:
    if found.broken_at is None:
        messages.success(request, _("The chain is whole up to event %(number)d.") % {"number": found.up_to})
    elif found.is_missing:
        messages.error(request, _("The chain is broken: event %(number)d is missing.") % {"number": found.broken_at})
    else:
        facts = {"number": found.broken_at}
        messages.error(request, _("The chain is broken: event %(number)d is not what was recorded there.") % facts)


def _events(holder: Tenant | None) -> AuditEventQuerySet:
    return AuditEvent.objects.all() if holder is None else AuditEvent.objects.for_tenant(holder)


def _context(holder: Tenant | None) -> dict[str, Any]:
    return {
        "tenant": holder,
        "holder": holder.name if holder else _("The platform"),
        "zone": ZoneInfo(holder.time_zone if holder else "UTC"),
    }


def _entry(event: AuditEvent, *, is_operator: bool) -> Entry:
    told = changes(*_sides(event, is_operator=is_operator))
    return Entry(event, told, len(told) <= OPEN_MAX)


def _sides(event: AuditEvent, *, is_operator: bool) -> tuple[Any, Any]:
    if is_operator or not event.verb.startswith("alias."):
        return event.before, event.after
    return masked(event.before, BEHIND), masked(event.after, BEHIND)


def _each(events: AuditEventQuerySet) -> Iterator[AuditEvent]:
    """Newest first. Between batches the connection goes back to its pool: a client that reads slowly holds none."""
    batch = list(events[:ROWS_AT_ONCE])
    while batch:
        if not connection.in_atomic_block:
            connection.close()
        yield from batch
        batch = list(events.filter(sequence__lt=batch[-1].sequence)[:ROWS_AT_ONCE])


def _cells(event: AuditEvent, zone: ZoneInfo, *, is_operator: bool) -> list[str]:
    before, after = (
        "" if side is None else json.dumps(side, ensure_ascii=False) for side in _sides(event, is_operator=is_operator)
    )
    moment = event.created_at.astimezone(zone).isoformat(timespec="seconds")
    told = (event.actor_label, event.verb, event.target, event.address or "", event.request_id)
    return [str(event.sequence), moment, *told, before, after]
