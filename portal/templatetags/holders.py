"""Links between the pages of whoever holds what this page shows: the tenant, or the platform."""

from typing import Any

from django import template

from portal.holders import url_of

register = template.Library()


@register.simple_tag(takes_context=True)
def held_url(context: template.Context, page: str, *args: Any) -> str:
    return url_of(context["tenant"], page, *args)
