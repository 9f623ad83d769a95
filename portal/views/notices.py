"""A person's notices: the bell in the header, the list, and having read them. Of nobody but who signed in."""

from typing import Final
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _

from portal import keyset
from portal.access import person, signed_in
from portal.alerts import bell

ORDER: Final = (keyset.Column("id", keyset.identity, is_descending=True),)  # the newest first


@signed_in()
def index(request: HttpRequest) -> HttpResponse:
    is_unread = request.GET.get("state") == "unread"
    rows = bell.visible_to(person(request)).select_related("alert__tenant")
    page = keyset.page_of(request, rows.filter(read_at=None) if is_unread else rows, ORDER)
    return render(request, "portal/notices/list.html", {"page": page, "is_unread": is_unread})


@signed_in(owing_second_factor=True)
def live(request: HttpRequest) -> HttpResponse:
    """The bell, as it renews itself on every page."""
    return render(request, "portal/notices/_bell.html")


@signed_in(methods=("POST",))
def read(request: HttpRequest) -> HttpResponse:
    """`notice` names one; without it all of them."""
    pk = request.POST.get("notice", "")
    try:
        done = bell.mark_read(person(request), UUID(pk) if pk else None)
    except ValueError:
        done = 0
    if not pk and done:
        messages.success(request, _("All is marked as read."))
    return redirect("notices")
