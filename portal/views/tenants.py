"""The tenants a person may see, and the page of one: how to call it, its aliases, its keys."""

from typing import Final

from django.conf import settings
from django.core.paginator import Paginator
from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _

from accounts.models import ApiKey, Tenant
from accounts.roles import Action
from gateway.models import ModelAlias
from portal import snippets, viewing
from portal.access import may, person, require, signed_in

ROWS_PER_PAGE: Final = 50


@signed_in()
def home(request: HttpRequest) -> HttpResponse:
    """The only tenant at once, else the list. Operators have a list of their own."""
    viewed = viewing.viewed(request)
    if viewed is not None:
        return redirect("tenant", viewed.slug)
    if person(request).is_operator:
        return redirect("admin_tenants")
    page = Paginator(Tenant.objects.visible_to(person(request)), ROWS_PER_PAGE).get_page(request.GET.get("page"))
    if page.paginator.count == 1:
        return redirect("tenant", page[0].slug)
    return render(request, "portal/tenants/list.html", {"page": page})


@require(Action.VIEW)
def show(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    user = person(request)
    aliases = ModelAlias.objects.filter(tenant=tenant).order_by("name")
    if user.is_operator:  # what backs an alias is nobody else's to know
        aliases = aliases.select_related("deployment")
    # Revoked keys last: they are history.
    keys = ApiKey.objects.for_tenant(tenant).order_by(F("revoked_at").desc(nulls_first=True), "name", "created_at")
    context = {
        "tenant": tenant,
        "has_other_tenants": viewing.viewed(request) is None and Tenant.objects.visible_to(user).exclude(pk=tenant.pk).exists(),
        "aliases": aliases,
        "page": Paginator(keys, ROWS_PER_PAGE).get_page(request.GET.get("page")),
        "may_manage_keys": lambda: may(request, tenant, Action.MANAGE_KEYS),  # asked where there is no key alone
        **_first_call(aliases[0].name if aliases else None),
    }
    return render(request, "portal/tenants/show.html", context)


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
