"""The tenants a person may see, and the first page of one: how it was used lately, or the way to its first call."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.models import Tenant
from accounts.roles import Action
from gateway.models import ModelAlias
from portal import keyset, overview, snippets, viewing
from portal.access import may, person, require, signed_in
from usage.series import buckets


@signed_in()
def home(request: HttpRequest) -> HttpResponse:
    """The only tenant at once, else the list. Operators have a list of their own."""
    viewed = viewing.viewed(request)
    if viewed is not None:
        return redirect("tenant", viewed.slug)
    if person(request).is_operator:
        return redirect("admin_tenants")
    page = keyset.page_of(request, Tenant.objects.visible_to(person(request)), (keyset.Column("slug"),))
    if page.total == 1:
        return redirect("tenant", page.rows[0].slug)
    return render(request, "portal/tenants/list.html", {"page": page})


@require(Action.VIEW)
def show(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    """The last 24 hours; before anything was used, the way to the first call."""
    others = Tenant.objects.visible_to(person(request)).exclude(pk=tenant.pk)
    has_others = viewing.viewed(request) is None and others.exists()
    context: dict[str, Any] = {"tenant": tenant, "has_other_tenants": has_others}
    if overview.has_usage(tenant):
        return render(request, "portal/tenants/show.html", context | overview.context(tenant, timezone.now()))
    alias = ModelAlias.objects.filter(tenant=tenant).order_by("name").values_list("name", flat=True).first()
    context |= {
        "steps": overview.steps(tenant),
        "may_manage_keys": may(request, tenant, Action.MANAGE_KEYS),
        **_first_call(alias),
    }
    return render(request, "portal/tenants/begin.html", context)


@require(Action.VIEW)
def now(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    """The live part of the page, renewed while it is looked at. Where the first call came meanwhile: the page anew."""
    if request.GET.get("of") == "steps":
        steps = overview.steps(tenant)
        may_manage = may(request, tenant, Action.MANAGE_KEYS)
        context = {"tenant": tenant, "steps": steps, "may_manage_keys": may_manage}
        answer = render(request, "portal/tenants/_steps.html", context)
        if steps.has_usage:
            answer["HX-Refresh"] = "true"
        return answer
    here, before = overview.now_and_before(tenant, timezone.now())
    cards = overview.cards(tenant, here, buckets(here), buckets(before))
    return render(request, "portal/tenants/_cards.html", {"tenant": tenant, "cards": cards})


def _first_call(alias: str | None) -> dict[str, str]:
    url = snippets.base_url(settings.GATEWAY_PUBLIC_URL)
    if alias is None:
        return {"base_url": url}
    greeting = _("Hello!")
    return {
        "base_url": url,
        "curl": snippets.curl(url, alias, greeting),
        "openai_python": snippets.openai_python(url, alias, greeting),
    }
