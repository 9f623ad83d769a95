"""Quota plans: named sets of limits, and who is on them."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.contrib import messages
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _

from accounts.models import Tenant
from gateway.config import quota_plans
from gateway.models import Limit, QuotaPlan
from portal import editing, keyset
from portal.access import by, operator
from portal.consequences import Consequence, consequences
from portal.forms.limits import LimitsForm
from portal.forms.tenants import PlanNameForm
from portal.standing import Standing, standings_of
from usage import limits

READ_AND_POST: Final = ("GET", "HEAD", "POST")
POST: Final = ("POST",)
TENANTS_SHOWN: Final = 50


@dataclass(frozen=True, slots=True)
class Affected:
    """told: what of a tenant's limits would change."""

    tenant: Tenant
    told: list[Consequence]

    @property
    def stops_calls(self) -> bool:
        return any(one.stops_calls for one in self.told)


@operator()
def index(request: HttpRequest) -> HttpResponse:
    plans = QuotaPlan.objects.annotate(on_it=Count("tenants")).prefetch_related("limits")
    page = keyset.page_of(request, plans, (keyset.Column("name"),))
    return render(request, "portal/quota_plans/list.html", {"page": page})


@operator(methods=READ_AND_POST)
def new(request: HttpRequest) -> HttpResponse:
    named, form = PlanNameForm(request.POST or None), LimitsForm(request.POST or None)
    if request.method == "POST" and named.is_valid() & form.is_valid():
        try:
            plan = quota_plans.create(named.cleaned_data["name"], form.wanted, **by(request))
        except quota_plans.PlanError as error:
            named.add_error(error.field, error.message)
        else:
            messages.success(request, _("The plan is there. Put tenants on it on their pages."))
            return redirect("admin_plan", plan.pk)
    return render(request, "portal/quota_plans/form.html", {"named": named, "form": form})


@operator(methods=READ_AND_POST)
def show(request: HttpRequest, pk: UUID) -> HttpResponse:
    """A POST that only asks for the words changes nothing."""
    with editing.alone(request, f"plan {pk}"):
        return _show(request, pk)


def _show(request: HttpRequest, pk: UUID) -> HttpResponse:
    plan = get_object_or_404(QuotaPlan, pk=pk)
    held = [row.configured for row in plan.limits.all()]
    named = PlanNameForm(request.POST or None, initial={"name": plan.name})
    form = LimitsForm(request.POST or None, held=held)
    overtaken = editing.of_forms(request, f"plan {plan.name}", None, [named, form])
    is_said = request.method == "POST" and named.is_valid() & form.is_valid()
    if is_said and "say" not in request.POST and not overtaken.is_overtaken:
        try:
            done = quota_plans.revise(plan, named.cleaned_data["name"], form.wanted, **by(request))
        except quota_plans.PlanError as error:
            named.add_error(error.field, error.message)
        else:
            changed = _("Changed, for every tenant on this plan.") if done else _("Nothing was changed.")
            messages.success(request, changed)
            return redirect("admin_plan", plan.pk)
    on_it = Tenant.objects.filter(planned__plan=plan).order_by("name", "slug")
    shown = _affected(list(on_it[:TENANTS_SHOWN]), form.wanted if is_said else held)
    count = on_it.count()
    context = {"plan": plan, "named": named, "form": form, "is_said": is_said, "affected": shown, "count": count}
    context |= {"edit": overtaken, "zone": "UTC"}
    context["others"] = count - len(shown)
    return render(request, "portal/quota_plans/form.html", context)


@operator(methods=POST)
def delete(request: HttpRequest, pk: UUID) -> HttpResponse:
    plan = get_object_or_404(QuotaPlan, pk=pk)
    try:
        quota_plans.delete(plan, **by(request))
    except quota_plans.PlanError as error:
        messages.error(request, error.message)
        return redirect("admin_plan", plan.pk)
    messages.success(request, _("The plan is gone."))
    return redirect("admin_plans")


def _affected(tenants: list[Tenant], wanted: list[limits.Limit] | tuple[limits.Limit, ...]) -> list[Affected]:
    rows: dict[object, list[Limit]] = {tenant.pk: [] for tenant in tenants}
    for row in Limit.objects.filter(tenant__in=tenants):
        rows[row.tenant_id].append(row)
    stand: list[list[Standing]] = standings_of([(tenant, rows[tenant.pk]) for tenant in tenants])
    return [Affected(tenant, consequences(told, wanted)) for tenant, told in zip(tenants, stand, strict=True)]
