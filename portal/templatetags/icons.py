"""Icons: lucide's, as inline SVG the size of the text beside them. In every template, without being loaded."""

from functools import lru_cache

from django import template
from django.utils.safestring import SafeString
from lucide.templatetags.lucide import lucide

register = template.Library()


@register.simple_tag
@lru_cache(maxsize=256)
def icon(name: str, size: int = 16) -> SafeString:
    """name: one of lucide's. Beside it a word says what it means: it is hidden from who listens. size: px, without styles."""
    return SafeString(lucide(name, size=size, aria_hidden="true", **{"class": f"icon icon-{name}"}))
