"""All tenants, for those who run the platform: found, looked into, suspended, put on plans; and viewed as their members do."""

from dataclasses import dataclass
from typing import Final

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, F, Max, OuterRef, Q, QuerySet, Subquery
from django.db.models.expressions import OrderBy
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts import tenants
from accounts.models import ApiKey, Membership, Tenant
from gateway.config import quota_plans
from gateway.models import Limit, ModelAlias, PlannedTenant, QuotaPlan
from portal import viewing
from portal.access import by, operator
from portal.consequences import consequences
from portal.forms.tenants import NO_PLAN, PlanChoiceForm, PriorityForm, SuspendForm, TenantFilter
from portal.standing import Standing, standings, standings_of, tightest

READ_AND_POST: Final = ("GET", "HEAD", "POST")
POST: Final = ("POST",)
ROWS_PER_PAGE: Final = 50
ORDERS: Final[dict[str, tuple[str | OrderBy, ...]]] = {
    "": ("name", "slug"),
    "used": (F("last_used_at").desc(nulls_last=True), "slug"),
    "new": ("-created_at", "slug"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """plan: its name, "" for none. use: its limit that is used most; None: it has none."""

    tenant: Tenant
    plan: str
    use: Standing | None


@operator()
def index(request: HttpRequest) -> HttpResponse:
    form = TenantFilter(request.GET)
    form.is_valid()
    said = form.cleaned_data
    page = Paginator(_found(said), ROWS_PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "form": form,
        "is_filtered": any(said.get(name) for name in ("q", "state", "plan")),
        "page": page,
        "rows": _rows(list(page.object_list)),
    }
    return render(request, "portal/admin_tenants/list.html", context)


@operator()
def show(request: HttpRequest, tenant_slug: str) -> HttpResponse:
    tenant = _tenant(tenant_slug)
    unexpired = Q(expires_at=None) | Q(expires_at__gt=timezone.now())
    of_keys = ApiKey.objects.for_tenant(tenant).aggregate(
        working=Count("pk", filter=unexpired & Q(revoked_at=None)), last_used_at=Max("last_used_at")
    )
    context = {
        "shown": tenant,
        "plan": _plan(tenant),
        "keys": of_keys,
        "aliases": ModelAlias.objects.filter(tenant=tenant).count(),
        "members": Membership.objects.for_tenant(tenant).count(),
        "standings": standings(tenant, list(tenant.limits.order_by("name"))),
        "form": PriorityForm(initial={"priority": tenant.priority}),
    }
    return render(request, "portal/admin_tenants/show.html", context)


@operator(methods=POST)
def set_priority(request: HttpRequest, tenant_slug: str) -> HttpResponse:
    tenant = _tenant(tenant_slug)
    form = PriorityForm(request.POST)
    if not form.is_valid():
        messages.error(request, " ".join(map(str, form.errors.get("priority", []))))
    elif tenants.set_priority(tenant, form.cleaned_data["priority"], **by(request)):
        messages.success(request, _("Changed: it counts for every call that begins from now on."))
    else:
        messages.success(request, _("Nothing was changed."))
    return redirect("admin_tenant", tenant.slug)


@operator(methods=READ_AND_POST)
def set_plan(request: HttpRequest, tenant_slug: str) -> HttpResponse:
    """A POST that only asks for the words changes nothing."""
    tenant = _tenant(tenant_slug)
    held = _plan(tenant)
    form = PlanChoiceForm(request.POST or None, initial={"plan": held.name if held else ""})
    plan = held
    if request.method == "POST" and form.is_valid():
        plan = form.cleaned_data["plan"]
        if "say" not in request.POST:
            done = quota_plans.put(tenant, plan, **by(request))
            messages.success(request, _("Its limits count for every call from now on.") if done else _("Nothing was changed."))
            return redirect("admin_tenant", tenant.slug)
    context = {"shown": tenant, "form": form, "plan": plan, "held": held}
    stand = standings(tenant, list(tenant.limits.order_by("name")))
    wanted = [row.configured for row in (plan.limits.all() if plan else tenant.limits.all())]
    return render(request, "portal/admin_tenants/plan.html", context | {"told": consequences(stand, wanted)})


@operator(methods=READ_AND_POST)
def suspend(request: HttpRequest, tenant_slug: str) -> HttpResponse:
    tenant = _tenant(tenant_slug)
    form = SuspendForm(request.POST or None, initial={"reason": tenant.suspension_reason})
    if request.method == "POST" and form.is_valid():
        done = tenants.suspend(tenant, form.cleaned_data["reason"], **by(request))
        told = _("Suspended: its keys are refused from now on.") if done else _("Nothing was changed.")
        messages.success(request, told)
        return redirect("admin_tenant", tenant.slug)
    working = ApiKey.objects.for_tenant(tenant).in_state("active").count()
    return render(request, "portal/admin_tenants/suspend.html", {"shown": tenant, "form": form, "working": working})


@operator(methods=POST)
def resume(request: HttpRequest, tenant_slug: str) -> HttpResponse:
    tenant = _tenant(tenant_slug)
    done = tenants.resume(tenant, **by(request))
    messages.success(request, _("Resumed: its keys work again.") if done else _("Nothing was changed."))
    return redirect("admin_tenant", tenant.slug)


@operator(methods=POST)
def view_as(request: HttpRequest, tenant_slug: str) -> HttpResponse:
    tenant = _tenant(tenant_slug)
    tenants.begin_viewing(tenant, **by(request))
    viewing.begin(request, tenant)
    return redirect("tenant", tenant.slug)


@operator(methods=POST, ends_viewing=True)
def stop_viewing(request: HttpRequest) -> HttpResponse:
    tenant = viewing.end(request)
    if tenant is None:
        return redirect("admin_tenants")
    tenants.end_viewing(tenant, **by(request))
    return redirect("admin_tenant", tenant.slug)


def _found(said: dict[str, str]) -> QuerySet[Tenant]:
    used = ApiKey.objects.filter(tenant=OuterRef("pk")).order_by().values("tenant").values(latest=Max("last_used_at"))
    rows = Tenant.objects.annotate(last_used_at=Subquery(used)).select_related("planned__plan")
    if q := said.get("q"):
        rows = rows.filter(Q(name__icontains=q) | Q(slug__icontains=q))
    if state := said.get("state"):
        rows = rows.filter(is_active=state == "active")
    if plan := said.get("plan"):
        rows = rows.filter(planned=None) if plan == NO_PLAN else rows.filter(planned__plan__name=plan)
    return rows.order_by(*ORDERS[said.get("sort", "")])


def _rows(found: list[Tenant]) -> list[Row]:
    """One query for all limits, and one round trip for how they stand."""
    limits: dict[object, list[Limit]] = {tenant.pk: [] for tenant in found}
    for limit in Limit.objects.filter(tenant__in=found):
        limits[limit.tenant_id].append(limit)
    stand = standings_of([(tenant, limits[tenant.pk]) for tenant in found])
    return [Row(tenant, _plan_name(tenant), tightest(told)) for tenant, told in zip(found, stand, strict=True)]


def _plan_name(tenant: Tenant) -> str:
    plan = _plan(tenant)
    return plan.name if plan else ""


def _plan(tenant: Tenant) -> QuotaPlan | None:
    """tenant: read together with its place on a plan."""
    try:
        return tenant.planned.plan
    except PlannedTenant.DoesNotExist:
        return None


def _tenant(slug: str) -> Tenant:
    return get_object_or_404(Tenant.objects.select_related("planned__plan"), slug=slug)
