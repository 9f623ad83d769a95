"""The navigation of the page that is open."""

from dataclasses import dataclass
from typing import Final

from django import template
from django.http import HttpRequest
from django.urls import reverse

from accounts.models import Tenant, User
from accounts.roles import Action
from portal.access import may
from portal.rooms import OF_A_TENANT, OF_THE_PLATFORM, Room

register = template.Library()


TENANTS_OFFERED: Final = 20


@dataclass(frozen=True, slots=True)
class Door:
    room: Room
    url: str
    is_here: bool


@dataclass(frozen=True, slots=True)
class Switch:
    """From tenant to tenant. tenants: with where each opens; has_more: there are others, on the list of all."""

    current: Tenant | None
    tenants: list[tuple[Tenant, str]]
    has_more: bool


@register.simple_tag(takes_context=True)
def doors(context: template.Context) -> list[Door]:
    """Of the tenant whose page this is, else of the platform for its operators, else none."""
    request: HttpRequest | None = context.get("request")
    match = request.resolver_match if request else None
    if request is None or match is None or not isinstance(request.user, User):
        return []
    page = match.url_name or ""
    tenant = context.get("tenant") if "slug" in match.kwargs else None
    if isinstance(tenant, Tenant) and not page.startswith("admin_"):
        return [_door(room, page, tenant.slug) for room in OF_A_TENANT if may(request, tenant, room.action)]
    return [_door(room, page) for room in OF_THE_PLATFORM] if request.user.is_operator else []


@register.simple_tag(takes_context=True)
def switch(context: template.Context) -> Switch | None:
    """For people of several tenants, else None. It leads to the same room, where every member may enter it."""
    request: HttpRequest | None = context.get("request")
    match = request.resolver_match if request else None
    if request is None or match is None or match.url_name == "home" or not isinstance(request.user, User):
        return None  # at home all of them are the page itself
    tenants = list(Tenant.objects.visible_to(request.user).order_by("name", "slug")[: TENANTS_OFFERED + 1])
    if len(tenants) < 2:
        return None
    rooms = (room for room in OF_A_TENANT if room.holds(match.url_name or "") and room.action == Action.VIEW)
    page = next((room.page for room in rooms), "tenant")
    offered = [(tenant, reverse(page, args=[tenant.slug])) for tenant in tenants[:TENANTS_OFFERED]]
    current = context.get("tenant") if "slug" in match.kwargs else None
    return Switch(current, offered, has_more=len(tenants) > TENANTS_OFFERED)


def _door(room: Room, page: str, *args: str) -> Door:
    return Door(room, reverse(room.page, args=args), room.holds(page))
