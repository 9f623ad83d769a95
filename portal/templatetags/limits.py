"""Limits on a page: one of many by its name, and how it reads."""

from collections.abc import Mapping

from django import template
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from portal.standing import Standing
from portal.templatetags.display import amount
from usage.limits import Limit

register = template.Library()


@register.filter
def named(standings: Mapping[str, Standing] | None, name: str) -> Standing | None:
    return (standings or {}).get(name)


@register.simple_tag
def taken(standing: Standing) -> int:
    """What is used and reserved."""
    return standing.state.used + standing.state.reserved if standing.state else 0


@register.filter
def limit_in_words(limit: Limit | None) -> str | SafeString:
    """`50,000`, `50,000 (only counted)`; a word for none."""
    if limit is None:
        return _("none")
    most = amount(limit.max, limit.name)
    if limit.mode == "shadow":
        return _("%(most)s (only counted)") % {"most": most}
    return _("%(most)s (shortens answers)") % {"most": most} if limit.clamps else most
