"""The gateway's profile: /v1 and nothing else. No database is configured, so that no call can make a query."""

from portal.settings import env
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

# Limits of the HTTP edge. Bytes and seconds.
REQUEST_BODY_MAX_BYTES = env.integer("SEKISHO_REQUEST_BODY_MAX_BYTES", 20 * 1024 * 1024, low=1024, high=2**31)
REQUEST_BODY_MIN_BYTES_PER_S = 16 * 1024
REQUEST_BODY_GRACE_S = 30.0
CALL_MAX_S = env.number("SEKISHO_CALL_MAX_S", 1800, low=1, high=86400)
# The longest a streamed call may wait for its first event, and so for its turn in a backend queue. Seconds.
FIRST_TOKEN_MAX_S = env.number("SEKISHO_FIRST_TOKEN_MAX_S", 300, low=0.05, high=86400)
CONNECT_MAX_S = env.number("SEKISHO_CONNECT_MAX_S", 2, low=0.05, high=60)
KEEP_ALIVE_COMMENT_S = env.number("SEKISHO_KEEP_ALIVE_COMMENT_S", 15, low=0.05, high=600)
KEY_CACHE_ENTRIES = env.integer("SEKISHO_KEY_CACHE_ENTRIES", 20_000, low=100, high=10_000_000)
# Proxies whose X-Forwarded-For is believed: networks.
TRUSTED_PROXIES = env.names("SEKISHO_TRUSTED_PROXIES", [])
# Who may read /metrics and the details of /readyz: networks, beside the load balancer's own probe of the status.
OPERATOR_NETWORKS = env.names("SEKISHO_OPERATOR_NETWORKS", ["127.0.0.0/8", "::1/128"])
