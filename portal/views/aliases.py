"""What a tenant may call: its aliases, with all that a client must know of each."""

import json
from dataclasses import dataclass
from typing import Final

from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from accounts.models import Tenant
from accounts.roles import Action
from gateway.models import ContentPolicy, Limit, ModelAlias
from portal import keyset
from portal.access import person, require
from portal.forms.admin_aliases import OwnAliases

ALIASES_PER_PAGE: Final = 10  # each is a card


@dataclass(frozen=True, slots=True)
class Shown:
    """defaults: request fields with what they are set to, as JSON."""

    alias: ModelAlias
    policies: list[str]
    defaults: list[tuple[str, str]]


@require(Action.VIEW)
def index(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    limits = Prefetch("limits", Limit.objects.order_by("name"))
    aliases = ModelAlias.objects.filter(tenant=tenant).prefetch_related(limits)
    if person(request).is_operator:  # what backs an alias is nobody else's to know
        aliases = aliases.select_related("deployment", "canary")
    published = ContentPolicy.objects.for_tenant(tenant).published()
    everywhere = {policy.name: policy.is_everywhere for policy in published}
    of_platform = ContentPolicy.objects.published().filter(tenant=None, is_everywhere=True)
    form = OwnAliases(request.GET)
    form.is_valid()
    page = keyset.page_of(request, form.narrowed(aliases), (keyset.Column("name"),), size=ALIASES_PER_PAGE)
    context = {
        "tenant": tenant,
        "form": form,
        "is_filtered": form.is_narrow,
        "page": page,
        "aliases": [_shown(alias, [name for name, applies in everywhere.items() if applies]) for alias in page],
        "own_policies": everywhere.keys(),
        "of_platform": list(of_platform.order_by("name").values_list("name", flat=True)),  # of its rules a tenant sees none
    }
    return render(request, "portal/aliases/list.html", context)


def _shown(alias: ModelAlias, everywhere: list[str]) -> Shown:
    defaults = [(name, json.dumps(value, ensure_ascii=False)) for name, value in alias.defaults.items()]
    return Shown(alias, sorted({*alias.policies, *everywhere}), defaults)
