"""The calls of a tenant, newest first, and the story of each: what it used, how long it took, what limits and policies said."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import ApiKey, Tenant
from accounts.roles import Action
from portal import keyset
from portal.access import person, require
from portal.forms.usage import RequestFilter
from portal.remedies import remedy
from portal.views.exports import streamed_or_made
from usage import history
from usage.events import Ending
from usage.limits import NAMES
from usage.models import UsageRecord
from usage.reports import request_story
from usage.series import zone_of

ORDER: Final = (
    keyset.Column("created_at", keyset.moment, is_descending=True),
    keyset.Column("request_id", keyset.identity, is_descending=True),
)
BAR: Final = 1000  # the width of the whole time
_AUTH: Final = gettext_lazy("The key")
_POLICY: Final = gettext_lazy("Content policies")
_ADMISSION: Final = gettext_lazy("Limits")
_QUEUE: Final = gettext_lazy("Waiting for a place")
_FIRST: Final = gettext_lazy("Until the first token")
_STREAM: Final = gettext_lazy("The answer")
_WHOLE: Final = gettext_lazy("Backend and answer")
_REFUSED: Final = gettext_lazy("The gateway")


@dataclass(frozen=True, slots=True)
class Call:
    """One call as the list shows it."""

    story: dict[str, Any]
    ending: str
    key_id: str
    key_name: str
    created_at: datetime
    chip: str = ""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a call's time. x, width: of BAR."""

    label: Promise
    css: str
    ms: float
    x: int
    width: int


@dataclass(frozen=True, slots=True)
class LimitSeen:
    """A limit as the call found it. is_in_the_way: it had no room, and calls are refused for it."""

    seen: dict[str, Any]
    whose: str
    is_in_the_way: bool


@require(Action.VIEW)
def index(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    form = RequestFilter(request.GET, tenant=tenant, zone=zone_of(tenant), now=timezone.now())
    page = None
    said = keyset.asked(request, "after", ORDER)
    place = history.Place(*said) if said else None
    if form.is_valid():
        if wanted := form.cleaned_data["id"]:
            if history.call(tenant, wanted):
                return redirect("request", tenant.slug, wanted)
            form.add_error("id", _("No call of this id has ended. Copy the whole of the x-request-id of an answer."))
        else:
            page = history.page(tenant, form.calls, before=place)
    calls = [_call(parts) for parts in page.calls] if page else []
    # One for each ending, not for each call: a list has two or three.
    chips = {
        ending: render_to_string("portal/requests/_ending.html", {"ending": ending}) for ending in {c.ending for c in calls}
    }
    calls = [replace(call, chip=chips[call.ending]) for call in calls]
    context = {
        "tenant": tenant,
        "form": form,
        "page": page,
        "calls": calls,
        "places": _places(request, page, place),
        "is_narrow": page is not None and form.is_narrow,
        "zone": form.zone.key,
        "home": reverse("requests", args=[tenant.slug]),
        "query": keyset.query(request).removeprefix("?"),
    }
    return render(request, "portal/requests/list.html", context)


@require(Action.VIEW)
def download(request: HttpRequest, tenant: Tenant, kind: str) -> HttpResponseBase:
    """All the calls that the filters of the page leave, one a line; never a word of them."""
    return streamed_or_made(request, tenant, "requests", kind)


@require(Action.VIEW)
def show(request: HttpRequest, tenant: Tenant, pk: UUID) -> HttpResponse:
    parts = history.call(tenant, pk)
    if not parts:
        raise Http404
    last, story = parts[-1], request_story(parts)
    key = ApiKey.objects.for_tenant(tenant).filter(pk=last.key_id).only("pk", "name").first()
    context = {
        "tenant": tenant,
        "call": _call(parts),
        "story": story,
        "record": last,
        "key": key,
        "stretches": stretches(last),
        "has_checks": last.auth_us is not None,
        "limits": [_limit(seen) for seen in story["limits"]],
        "remedy": remedy(last.error_code or ("lost" if last.outcome == "lost" else "")),
        "parts": parts,
        "is_operator": person(request).is_operator,  # what backs an alias is nobody else's to know
        "zone": tenant.time_zone,
    }
    return render(request, "portal/requests/show.html", context)


def stretches(record: UsageRecord) -> list[Stretch]:
    """Where its time went, as far as it was told: one after the other, to the end. What lies between goes to the next."""
    whole = max(1, record.duration_ms)
    begins, ends = 0.0, list(_ends(record))
    found: list[Stretch] = []
    for label, css, end in ends:
        ms = max(0.0, end - begins)
        found.append(Stretch(label, css, ms, int(begins * BAR / whole), max(4, int(ms * BAR / whole))))
        begins = max(begins, end)
    return found


def _ends(record: UsageRecord) -> Iterator[tuple[Promise, str, float]]:
    """Each stretch, and when it ended: ms since the call began. The gateway's own checks come first, then the queue."""
    whole, checks = record.duration_ms, 0.0
    for label, css, spent_us in (
        (_AUTH, "series-3", record.auth_us),
        (_POLICY, "series-4", record.policy_us),
        (_ADMISSION, "series-5", record.admission_us),
    ):
        if spent_us is not None and checks + spent_us / 1000 <= whole:
            checks += spent_us / 1000
            yield label, css, checks
    queue = min(checks + record.queue_ms, whole)
    if record.queue_ms:
        yield _QUEUE, "series-6", queue
    first = record.first_token_ms
    if first is not None and queue <= first <= whole:
        yield _FIRST, "series-2", first
        yield _STREAM, "series-1", whole
    else:
        yield _WHOLE if record.attempts else _REFUSED, "series-1", whole


def ending_of(parts: Sequence[UsageRecord]) -> Ending | str:
    """How the call is counted: as its first part was, see usage.events.ending."""
    first = parts[0]
    if first.error_code == "content_blocked":
        return "blocked"
    return "failed" if first.outcome in ("failed", "timeout", "lost") else first.outcome


def _call(parts: Sequence[UsageRecord]) -> Call:
    last = parts[-1]
    return Call(request_story(parts), ending_of(parts), str(last.key_id), last.key_name, last.created_at)


def _limit(seen: dict[str, Any]) -> LimitSeen:
    is_full = seen.get("used", 0) + seen.get("reserved", 0) >= seen.get("max", 0) if seen["limit"] in NAMES[:5] else False
    return LimitSeen(seen, str(seen.get("name", "")), is_full and seen.get("mode") == "enforce")


def _places(request: HttpRequest, page: history.Page | None, place: history.Place | None) -> keyset.Page[Call]:
    """Where the list goes on, and back to its beginning."""
    older = page.older if page else None
    return keyset.Page(
        (),
        previous=keyset.query(request) if place else "",
        next=keyset.query(request, after=keyset.place_of(older, ORDER)) if older else "",
    )
