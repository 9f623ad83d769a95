"""The deployments, for those who run the platform: which model, which backends, and who is affected by a change."""

from typing import Any, Final

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _

from gateway.config import deployments
from gateway.config.pools import Terms
from gateway.config.revision import InUse
from gateway.models import Backend, Deployment
from portal import affected, editing, keyset
from portal.access import by, operator
from portal.backend_state import seen
from portal.forms.deployments import DeploymentFilter, DeploymentForm
from portal.keyset import Column

READ_AND_POST: Final = ("GET", "HEAD", "POST")
_NAME: Final = Column("name")
ORDERS: Final = keyset.orders(name=(_NAME,), aliases=(Column("alias_count", keyset.whole), _NAME))


@operator()
def index(request: HttpRequest) -> HttpResponse:
    rows = Deployment.objects.select_related("fallback", "context_fallback").prefetch_related("members__backend")
    form = DeploymentFilter(request.GET)
    form.is_valid()
    sort = form.order("name")
    counted = form.narrowed(rows).annotate(alias_count=Count("aliases", distinct=True))
    page = keyset.page_of(request, counted, ORDERS[sort])
    context = {"form": form, "is_filtered": form.is_narrow, "page": page, "sort": sort}
    return render(request, "portal/deployments/list.html", context)


@operator(methods=READ_AND_POST)
def new(request: HttpRequest) -> HttpResponse:
    form = _form(request, None)
    if request.method == "POST" and form.is_valid():
        try:
            made = deployments.create(form.cleaned_data["name"], form.values, form.pool, **by(request))
        except ValidationError as error:
            form.refuse(error)
        else:
            messages.success(request, _("Made. It gets calls once an alias names it."))
            return redirect("admin_deployment", made.name)
    return _page(request, form, None)


@operator(methods=READ_AND_POST)
def edit(request: HttpRequest, name: str) -> HttpResponse:
    with editing.alone(request, f"deployment {name}"):
        return _edit(request, name)


def _edit(request: HttpRequest, name: str) -> HttpResponse:
    row = get_object_or_404(Deployment, name=name)
    form = _form(request, row)
    overtaken = editing.of_forms(request, f"deployment {row}", None, [form, *form.members])
    if request.method == "POST" and form.is_valid() and not overtaken.is_overtaken:
        try:
            changed = deployments.change(row, form.values, form.pool, **by(request))
        except ValidationError as error:
            form.refuse(error)
        else:
            done = _("Changed: it counts for every call that begins from now on.") if changed else _("Nothing was changed.")
            messages.success(request, done)
            return redirect("admin_deployment", row.name)
    return _page(request, form, row, overtaken)


@operator(methods=READ_AND_POST)
def delete(request: HttpRequest, name: str) -> HttpResponse:
    row = get_object_or_404(Deployment, name=name)
    if request.method == "POST":
        try:
            deployments.delete(row, **by(request))
        except InUse as error:
            messages.error(request, str(error))
            return redirect("admin_deployment_delete", row.name)
        messages.success(request, _("Deleted: %(name)s.") % {"name": row.name})
        return redirect("admin_deployments")
    context = {"deployment": row, "affected": affected.by_deployment(row)}
    return render(request, "portal/deployments/delete.html", context)


def _form(request: HttpRequest, row: Deployment | None) -> DeploymentForm:
    held = row.members.select_related("backend") if row else ()
    return DeploymentForm(
        request.POST or None,
        instance=Deployment.objects.get(pk=row.pk) if row else None,
        backends=list(Backend.objects.order_by("name")),
        pool={member.backend.name: Terms.of(member) for member in held},
    )


def _page(
    request: HttpRequest, form: DeploymentForm, row: Deployment | None, overtaken: editing.Edit | None = None
) -> HttpResponse:
    told = seen()
    verdicts = [known.verdict for known in told.known.values()] if told else []
    context: dict[str, Any] = {
        "form": form,
        "edit": overtaken,
        "zone": "UTC",
        "deployment": row,
        "affected": affected.by_deployment(row) if row else None,
        "models": sorted({model for verdict in verdicts if verdict for model in verdict.models or ()}),
    }
    return render(request, "portal/deployments/form.html", context)
