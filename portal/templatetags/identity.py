"""What the pages of sign-in say of browsers, and hand to the script of passkeys."""

import json
from typing import Any, Final

from django import template
from django.utils.translation import gettext as _

register = template.Library()

# The first that fits: browsers name their ancestors, too.
BROWSERS: Final = (("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
SYSTEMS: Final = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)


@register.filter
def browser(user_agent: str) -> str:
    """Its name and its system; what names neither, as it is, cut short."""
    name = next((name for mark, name in BROWSERS if mark in user_agent), "")
    system = next((name for mark, name in SYSTEMS if mark in user_agent), "")
    if name and system:
        return _("%(browser)s on %(system)s") % {"browser": name, "system": system}
    return name or system or user_agent[:40] or _("Unknown")


@register.filter
def as_json(value: Any) -> str:
    """For the text of an element: the template escapes it."""
    return json.dumps(value)
