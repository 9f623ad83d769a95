"""The navigation of the page that is open."""

from dataclasses import dataclass

from django import template
from django.http import HttpRequest
from django.urls import reverse

from accounts.models import Tenant, User
from portal.access import may
from portal.rooms import OF_A_TENANT, OF_THE_PLATFORM, Room

register = template.Library()


@dataclass(frozen=True, slots=True)
class Door:
    room: Room
    url: str
    is_here: bool


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


def _door(room: Room, page: str, *args: str) -> Door:
    return Door(room, reverse(room.page, args=args), room.holds(page))
