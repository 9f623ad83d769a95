"""All tenants, for those who run the platform: found, looked into, suspended, put on plans; and viewed as their members do."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.contrib import messages
from django.db.models import Count, Max, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts import tenants
from accounts.models import ApiKey, Membership, Tenant, User
from accounts.roles import Role
from gateway.config import quota_plans
from gateway.models import ContentPolicy, Limit, ModelAlias, PlannedTenant, QuotaPlan
from portal import keyset, viewing
from portal.access import by, operator
from portal.consequences import consequences
from portal.forms.tenants import NO_PLAN, DeleteForm, PlanChoiceForm, PriorityForm, SuspendForm, TenantFilter
from portal.keyset import LONG_AGO, Column
from portal.standing import Standing, standings, standings_of, tightest

READ_AND_POST: Final = ("GET", "HEAD", "POST")
POST: Final = ("POST",)
_SLUG: Final = Column("slug")
ORDERS: Final = keyset.orders(
    name=(Column("name"), _SLUG),
    used=(Column("used_at", keyset.moment), _SLUG),
    made=(Column("created_at", keyset.moment), _SLUG),
)


@dataclass(frozen=True, slots=True)
class Row:
    """plan: its name, "" for none. use: its limit that is used most; None: it has none. owners: the first one first."""

    tenant: Tenant
    plan: str
    use: Standing | None
    owners: Sequence[User]
    last_used_at: datetime | None

    @property
    def more_owners(self) -> int:
        return max(0, len(self.owners) - 1)


@operator()
def index(request: HttpRequest) -> HttpResponse:
    form = TenantFilter(request.GET)
    form.is_valid()
    said = form.cleaned_data
    sort = said.get("sort") or "name"
    page = keyset.page_of(request, _found(said), ORDERS[sort])
    context = {
        "form": form,
        "is_filtered": any(said.get(name) for name in ("q", "state", "plan")),
        "page": page,
        "sort": sort,
        "rows": _rows(page.rows),
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


@operator(methods=READ_AND_POST)
def delete(request: HttpRequest, tenant_slug: str) -> HttpResponse:
    tenant = _tenant(tenant_slug)
    form = DeleteForm(request.POST or None, tenant=tenant)
    gone = {
        "keys": ApiKey.objects.for_tenant(tenant).filter(revoked_at=None).count(),
        "aliases": ModelAlias.objects.filter(tenant=tenant).count(),
        "policies": ContentPolicy.objects.for_tenant(tenant).count(),
        "members": Membership.objects.for_tenant(tenant).count(),
    }
    if request.method == "POST" and form.is_valid():
        tenants.delete(tenant, gone=gone, **by(request))
        messages.success(request, _("Deleted: %(name)s. Its usage and its audit trail stay.") % {"name": tenant.name})
        return redirect("admin_tenants")
    return render(request, "portal/admin_tenants/delete.html", {"shown": tenant, "form": form, "gone": gone})


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


def _found(said: dict[str, str]) -> QuerySet[Any]:
    used = ApiKey.objects.filter(tenant=OuterRef("pk")).order_by().values("tenant").values(latest=Max("last_used_at"))
    used_at = Coalesce(Subquery(used), Value(LONG_AGO))  # a tenant that was never used stands before all that were
    rows = Tenant.objects.annotate(used_at=used_at).select_related("planned__plan")
    if q := said.get("q"):
        rows = rows.filter(Q(name__icontains=q) | Q(slug__icontains=q))
    if state := said.get("state"):
        rows = rows.filter(is_active=state == "active")
    if plan := said.get("plan"):
        rows = rows.filter(planned=None) if plan == NO_PLAN else rows.filter(planned__plan__name=plan)
    return rows


def _rows(found: Sequence[Any]) -> list[Row]:
    """One query for all limits and one for all owners, and one round trip for how the limits stand."""
    limits: dict[object, list[Limit]] = {tenant.pk: [] for tenant in found}
    for limit in Limit.objects.filter(tenant__in=found):
        limits[limit.tenant_id].append(limit)
    stand = standings_of([(tenant, limits[tenant.pk]) for tenant in found])
    owners: dict[object, list[User]] = {tenant.pk: [] for tenant in found}
    for member in Membership.objects.filter(tenant__in=found, role=Role.OWNER).select_related("user").order_by("pk"):
        owners[member.tenant_id].append(member.user)
    return [
        Row(
            tenant,
            plan=_plan_name(tenant),
            use=tightest(told),
            owners=owners[tenant.pk],
            last_used_at=None if tenant.used_at == LONG_AGO else tenant.used_at,
        )
        for tenant, told in zip(found, stand, strict=True)
    ]


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
