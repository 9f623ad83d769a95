"""How values read: a text in the reader's language, a number with its grouping; and what the reader may do."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django import template
from django.utils import formats
from django.utils.translation import get_language

from accounts.roles import Action
from gateway.config.limits import plain
from portal import measures, wording
from portal.access import may
from usage.money import units

register = template.Library()


@register.filter
def in_language(texts: Mapping[str, str] | None) -> str:
    """The text for the reader's language, else the English one, else whichever there is, else nothing."""
    known = {code: text for code, text in (texts or {}).items() if text}
    return known.get(get_language() or "") or known.get("en") or next(iter(known.values()), "")


@register.filter
def in_words(name: str) -> str:
    """A verb of the audit trail, the name of a limit, the ending of a call."""
    return wording.in_words(name)


@register.filter
def rule_word(name: str) -> str:
    """The kind or the action of a rule of a policy, and where it looks."""
    return str(wording.KINDS.get(name) or wording.ACTIONS_SHORT.get(name) or wording.SURFACES.get(name) or name)


@register.filter
def number(value: int) -> str:
    return measures.whole(value)


@register.filter
def amount(value: int, limit_name: str) -> str:
    """What a limit counts: money in units of the currency, all else in whole numbers."""
    shown = Decimal(units(value)) if limit_name == "money_per_month" else value
    return formats.number_format(shown, use_l10n=True, force_grouping=True)


@register.filter
def as_duration(value_ms: float | None) -> str:
    return measures.duration(value_ms)


@register.filter
def figure(value: Any) -> str:
    """A whole number, or money as it stands."""
    return number(value) if isinstance(value, int) else str(value)


@register.filter
def price(value: Decimal) -> str:
    return formats.number_format(plain(value), use_l10n=True)


@register.simple_tag(takes_context=True)
def is_allowed(context: template.Context, action: str) -> bool:
    """May the reader do `action` in the tenant of this page?"""
    return may(context["request"], context["tenant"], Action(action))
