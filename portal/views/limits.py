"""Every limit on a tenant, its aliases and its keys, and how much of it is used."""

from typing import Any, Final

from django.db.models import Case, Q, Value, When
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from accounts.models import Tenant
from accounts.roles import Action
from gateway.models import Limit, ModelAlias
from portal import keyset
from portal.access import person, require
from portal.forms.limits import LimitFilter
from portal.keyset import Column
from portal.standing import standings
from usage.limits import NAMES

# The tenant's, then those of aliases, then those of keys, each by name.
ORDER: Final = (
    Column("whose", keyset.whole),
    Column("named"),
    Column("holder", keyset.identity),
    Column("kind", keyset.whole),
)
ALIASES_SHOWN: Final = 100


@require(Action.VIEW)
def index(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    context = _shown(request, tenant)
    if person(request).is_operator:
        context["aliases"] = ModelAlias.objects.filter(tenant=tenant).order_by("name")[:ALIASES_SHOWN]
    return render(request, "portal/limits/list.html", context)


@require(Action.VIEW)
def part(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    """What of the page changes by itself."""
    return render(request, "portal/limits/_live.html", _shown(request, tenant))


def _shown(request: HttpRequest, tenant: Tenant) -> dict[str, Any]:
    unexpired = Q(key__expires_at=None) | Q(key__expires_at__gt=timezone.now())
    live = Q(key=None) | (Q(key__revoked_at=None) & unexpired)
    whose = Case(When(tenant__isnull=False, then=0), When(alias__isnull=False, then=1), default=2)
    named = Coalesce("alias__name", "key__name", Value(""))
    kind = Case(*(When(name=name, then=place) for place, name in enumerate(NAMES)), default=len(NAMES))
    form = LimitFilter(request.GET)
    form.is_valid()
    rows = form.narrowed(Limit.objects.for_tenant(tenant).filter(live).select_related("alias", "key"))
    rows = rows.annotate(whose=whose, named=named, holder=Coalesce("key_id", "alias_id", "tenant_id"), kind=kind)
    page = keyset.page_of(request, rows, ORDER)
    shown = standings(tenant, page.rows)
    return {
        "tenant": tenant,
        "form": form,
        "is_filtered": form.is_narrow,
        "page": page,
        "standings": shown,
        "is_untold": any(standing.state is None for standing in shown),
    }
