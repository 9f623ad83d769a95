"""What the base template needs on every page, error pages included: no query, no session."""

from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest
from django.utils.translation import get_language, get_language_info
from django.utils.translation import gettext_lazy as _

from portal import viewing
from portal.middleware import REQUEST_ID

THEME_COOKIE: Final = "sekisho_theme"  # static/portal/theme.js writes it
THEMES: Final = {"system": _("System"), "light": _("Light"), "dark": _("Dark")}


def theme(request: HttpRequest) -> str:
    """The theme the person chose; whatever else the cookie holds means `system`."""
    chosen = request.COOKIES.get(THEME_COOKIE, "")
    return chosen if chosen in THEMES else "system"


def page(request: HttpRequest) -> dict[str, Any]:
    """Context processor."""
    current = get_language()
    return {
        "theme": theme(request),
        "themes": THEMES,
        "viewed": viewing.viewed(request),
        "request_id": request.META.get(REQUEST_ID, ""),
        "other_languages": [get_language_info(code) for code, _name in settings.LANGUAGES if code != current],
    }
