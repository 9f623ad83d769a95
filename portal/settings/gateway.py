"""The gateway's profile: /v1 and nothing else. No database is configured, so that no call can make a query."""

from portal.settings.base import *  # noqa: F403 - a profile is the base and what it adds

ROOT_URLCONF = "gateway.urls"
WSGI_APPLICATION = "gateway.wsgi.application"
INSTALLED_APPS: list[str] = []
# Django's default middleware costs 45 us a call, and adds Vary and Content-Language to streams (2026-11).
MIDDLEWARE = ["gateway.api.middleware.edge"]
DATABASES: dict[str, object] = {}
APPEND_SLASH = False
USE_I18N = False
# Hosts are checked by the worker's own strict rule: any well-formed Host is served, the API has no links to poison.
ALLOWED_HOSTS = ["*"]
LOGGING_CONFIG = None

REST_FRAMEWORK = {
    "UNAUTHENTICATED_USER": None,
    "UNAUTHENTICATED_TOKEN": None,
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": [],
    "EXCEPTION_HANDLER": "gateway.api.errors.handle_exception",
    "URL_FORMAT_OVERRIDE": None,
}
