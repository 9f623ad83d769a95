"""The aliases of every tenant, for those who run the platform: found, made, changed, deleted."""

from typing import Any, Final
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _

from accounts.models import Tenant
from gateway.config import aliases
from gateway.models import ModelAlias
from portal import affected, editing, keyset
from portal.access import by, operator
from portal.forms.admin_aliases import AliasFilter, AliasForm, DeleteForm, TenantForm
from portal.forms.limits import LimitsForm
from portal.keyset import Column
from portal.views.admin_limits import held_by

READ_AND_POST: Final = ("GET", "HEAD", "POST")
_NAME: Final = Column("name")
_TENANT: Final = Column("tenant__slug")
ORDERS: Final = keyset.orders(
    tenant=(_TENANT, _NAME), name=(_NAME, _TENANT), deployment=(Column("deployment__name"), _TENANT, _NAME)
)
TENANTS_OFFERED: Final = 200


@operator()
def index(request: HttpRequest) -> HttpResponse:
    form = AliasFilter(request.GET)
    form.is_valid()
    rows = form.narrowed(ModelAlias.objects.select_related("tenant", "deployment", "canary").prefetch_related("limits"))
    sort = form.order("tenant")
    page = keyset.page_of(request, rows, ORDERS[sort])
    context = {"form": form, "is_filtered": form.is_narrow, "page": page, "sort": sort}
    return render(request, "portal/admin_aliases/list.html", context)


@operator(methods=READ_AND_POST)
def new(request: HttpRequest) -> HttpResponse:
    """Whose it shall be stands in the URL; while it does not, that is asked first."""
    whose = TenantForm(request.GET or None)
    if not whose.is_valid():
        offered = Tenant.objects.order_by("slug").values_list("slug", "name")[:TENANTS_OFFERED]
        return render(request, "portal/admin_aliases/whose.html", {"form": whose, "tenants": offered})
    tenant: Tenant = whose.cleaned_data["tenant"]
    form = AliasForm(request.POST or None, instance=ModelAlias(tenant=tenant), tenant=tenant)
    if request.method == "POST" and form.is_valid():
        try:
            made = aliases.create(tenant, form.cleaned_data["name"], form.values, **by(request))
        except ValidationError as error:
            form.refuse(error)
        else:
            done = _("Made: clients of %(tenant)s may call it from now on, with keys that are not narrowed to others.")
            messages.success(request, done % {"tenant": tenant.name})
            return redirect("admin_alias", made.pk)
    return render(request, "portal/admin_aliases/form.html", {"form": form, "owner": tenant})


@operator(methods=READ_AND_POST)
def edit(request: HttpRequest, pk: UUID) -> HttpResponse:
    with editing.alone(request, f"alias {pk}"):
        return _edit(request, pk)


def _edit(request: HttpRequest, pk: UUID) -> HttpResponse:
    row = _alias(pk)
    form = AliasForm(request.POST or None, instance=_alias(pk), tenant=row.tenant)
    overtaken = editing.of_forms(request, f"alias {row.tenant.slug}/{row.name}", row.tenant, [form])
    if request.method == "POST" and form.is_valid() and not overtaken.is_overtaken:
        try:
            changed = aliases.change(row, form.values, **by(request))
        except ValidationError as error:
            form.refuse(error)
        else:
            done = _("Changed: it counts for every call that begins from now on.") if changed else _("Nothing was changed.")
            messages.success(request, done)
            return redirect("admin_alias", row.pk)
    context = {"form": form, "owner": row.tenant, "alias": row, "calls": affected.calls_lately(row)}
    context |= {"edit": overtaken, "zone": row.tenant.zone, **_limits(row)}
    return render(request, "portal/admin_aliases/form.html", context)


@operator(methods=READ_AND_POST)
def delete(request: HttpRequest, pk: UUID) -> HttpResponse:
    row = _alias(pk)
    form = DeleteForm(request.POST or None, alias=row)
    if request.method == "POST" and form.is_valid():
        aliases.delete(row, **by(request))
        messages.success(request, _("Deleted: %(name)s.") % {"name": f"{row.tenant.slug}/{row.name}"})
        return redirect("admin_aliases")
    context = {
        "form": form,
        "alias": row,
        "owner": row.tenant,
        "calls": affected.calls_lately(row),
        "keys": affected.keys_naming(row),
        "limits": row.limits.count(),
    }
    return render(request, "portal/admin_aliases/delete.html", context)


def _limits(row: ModelAlias) -> dict[str, Any]:
    """A form of their own on the page: what it sends goes to the page of the limits."""
    stand = held_by(row.tenant, row)
    form = LimitsForm(held=[one.row.configured for one in stand])
    return {"limited": form, "limited_edit": editing.begun([form]), "by_name": {one.row.name: one for one in stand}}


def _alias(pk: UUID) -> ModelAlias:
    return get_object_or_404(ModelAlias.objects.select_related("tenant", "deployment", "canary"), pk=pk)
