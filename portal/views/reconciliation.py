"""Whether the books agree, for those who run the platform; and a reconciliation at their word."""

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from kombu.exceptions import OperationalError

from accounts import audit
from portal import reconciliation
from portal.access import by, operator
from portal.celery import app

TASK = "usage.tasks.reconcile"


@operator()
def index(request: HttpRequest) -> HttpResponse:
    asked = request.GET.get("range", "")
    chosen = asked if asked in reconciliation.PERIODS else reconciliation.PERIOD_DEFAULT
    start, end = reconciliation.bounds(chosen, timezone.now())
    context = {
        "periods": [(name, label, name == chosen) for name, (label, _hours) in reconciliation.PERIODS.items()],
        "start": start,
        "end": end,
        "backends": reconciliation.by_backend(start, end),
        "runs": reconciliation.runs(),
    }
    return render(request, "portal/reconciliation/show.html", context)


@operator(methods=("POST",))
def run(request: HttpRequest) -> HttpResponse:
    """The worker does it, for the last day that is over in every time zone."""
    try:
        with transaction.atomic():
            audit.record(verb="usage.reconciliation_asked", target="usage", **by(request))
            app.send_task(TASK, retry=False)
    except OperationalError:
        messages.error(request, _("The queue of jobs cannot be reached just now. Try again in a minute."))
    else:
        messages.success(request, _("The worker compares the books now; what it finds will stand here in a moment."))
    return redirect("admin_reconciliation")
