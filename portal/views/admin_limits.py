"""Other limits for a tenant or one of its aliases, by those who run the platform."""

from typing import Any, Final
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _

from accounts.models import Tenant
from gateway.config import limit_changes
from gateway.models import Limit, ModelAlias, PlannedTenant
from portal import editing
from portal.access import by, operator
from portal.consequences import consequences
from portal.forms.limits import LimitsForm
from portal.standing import Standing, standings

READ_AND_POST: Final = ("GET", "HEAD", "POST")


@operator(methods=READ_AND_POST)
def of_tenant(request: HttpRequest, tenant_slug: str) -> HttpResponse:
    tenant = get_object_or_404(Tenant, slug=tenant_slug)
    planned = PlannedTenant.objects.filter(tenant=tenant).select_related("plan").first()
    return _edit(request, tenant, tenant, {"shown": tenant, "plan": planned.plan if planned else None})


@operator(methods=READ_AND_POST)
def of_alias(request: HttpRequest, tenant_slug: str, pk: UUID) -> HttpResponse:
    alias = get_object_or_404(ModelAlias.objects.select_related("tenant"), tenant__slug=tenant_slug, pk=pk)
    return _edit(request, alias.tenant, alias, {"shown": alias.tenant, "alias": alias})


def _edit(request: HttpRequest, tenant: Tenant, holder: Tenant | ModelAlias, context: dict[str, Any]) -> HttpResponse:
    """A POST that only asks for the words changes nothing."""
    with editing.alone(request, f"limits {holder.pk}"):
        return _edit_alone(request, tenant, holder, context)


def _edit_alone(request: HttpRequest, tenant: Tenant, holder: Tenant | ModelAlias, context: dict[str, Any]) -> HttpResponse:
    target = f"tenant {tenant.slug}" if holder is tenant else f"alias {tenant.slug}/{holder.name}"
    stand = held_by(tenant, holder)
    form = LimitsForm(request.POST or None, held=[one.row.configured for one in stand])
    overtaken = editing.of_forms(request, target, tenant, [form])
    is_said = request.method == "POST" and form.is_valid()
    if is_said and "say" not in request.POST and not overtaken.is_overtaken:
        done = limit_changes.change(holder, form.wanted, **by(request))
        changed = _("Changed: it counts for every call that begins from now on.") if done else _("Nothing was changed.")
        messages.success(request, changed)
        if request.POST.get("from") == "alias" and holder is not tenant:
            return redirect("admin_alias", holder.pk)
        return redirect("limits", tenant.slug)
    told = consequences(stand, form.wanted) if is_said else []
    context |= {"form": form, "by_name": {one.row.name: one for one in stand}, "told": told, "is_said": is_said}
    context |= {"edit": overtaken, "zone": tenant.zone}
    return render(request, "portal/limits/form.html", context)


def held_by(tenant: Tenant, holder: Tenant | ModelAlias) -> list[Standing]:
    """The limits of a tenant or one of its aliases, as they stand now."""
    rows = Limit.objects.filter(**{"tenant" if holder is tenant else "alias": holder}).select_related("alias")
    return standings(tenant, list(rows))
