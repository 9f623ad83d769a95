"""How values read: a text in the reader's language, a number with its grouping."""

from collections.abc import Mapping

from django import template
from django.utils import formats
from django.utils.translation import get_language

register = template.Library()


@register.filter
def in_language(texts: Mapping[str, str] | None) -> str:
    """The text for the reader's language, else the English one, else whichever there is, else nothing."""
    known = {code: text for code, text in (texts or {}).items() if text}
    return known.get(get_language() or "") or known.get("en") or next(iter(known.values()), "")


@register.filter
def number(value: int) -> str:
    return formats.number_format(value, use_l10n=True, force_grouping=True)
