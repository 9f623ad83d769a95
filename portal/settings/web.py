"""The portal's profile: the web UI, management commands, the celery worker and beat."""

from datetime import timedelta
from typing import Any

from celery.schedules import crontab
from django.utils.translation import gettext_lazy as _

from portal.settings import env
from portal.settings.base import *  # noqa: F403 - a profile is the base and what it adds
from portal.settings.base import BASE_DIR, GATEWAY_PUBLIC_URL, PORTAL_URL, REDIS_URL
from portal.settings.identity import *  # noqa: F403 - likewise

ROOT_URLCONF = "portal.urls"
WSGI_APPLICATION = "portal.wsgi.application"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "django_htmx",
    "django_cotton",
    "lucide",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "allauth.usersessions",
    "axes",
    "accounts",
    "usage",
    "gateway",
    "portal",
    "portal.alerts",
]
MIDDLEWARE = [
    # First, so that static files, redirects and refusals of the others carry their headers too.
    "portal.middleware.client_address",
    "portal.middleware.request_id",
    "portal.middleware.content_security_policy",
    "portal.middleware.Compression",
    "django.middleware.security.SecurityMiddleware",
    "portal.middleware.StaticFiles",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "axes.middleware.AxesMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "portal.context.page",
            ],
            "builtins": ["portal.templatetags.icons"],
        },
    }
]

# Where the portal itself reaches the gateway, for the playground.
GATEWAY_INNER_URL = env.text("SEKISHO_GATEWAY_INNER_URL", GATEWAY_PUBLIC_URL)

CACHES = {"default": {"BACKEND": "portal.cache.EnduringCache", "LOCATION": REDIS_URL, "KEY_PREFIX": "sekisho:portal"}}

# CONN_MAX_AGE stays 0 with psycopg's pool: under gevent an own age would keep one connection a greenlet (measured).
DATABASES = {"default": env.database()}
DATABASES["default"]["OPTIONS"] = {
    "connect_timeout": 2,
    **DATABASES["default"].get("OPTIONS", {}),  # what the URL asks for: sslmode and the like
    "pool": {"min_size": 1, "max_size": env.integer("SEKISHO_DATABASE_POOL", 4, low=1, high=100), "timeout": 5},
}

AUTH_USER_MODEL = "accounts.User"

LANGUAGE_CODE = "en"
LANGUAGES = [("ja", _("Japanese")), ("en", _("English"))]
LOCALE_PATHS = [BASE_DIR / "portal" / "locale"]
FORMAT_MODULE_PATH = ["portal.locale"]
USE_I18N = True
LANGUAGE_COOKIE_AGE = 365 * 86400  # seconds

STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True  # served from the apps' own folders: no collectstatic step to forget
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

# Where people reach the portal: the links of mails and webhooks begin so.
PORTAL_PUBLIC_URL = env.text("SEKISHO_PORTAL_PUBLIC_URL", PORTAL_URL).rstrip("/")
# What webhooks of tenants may reach besides public addresses over https: networks of the house, and plain http.
WEBHOOK_NETWORKS = env.names("SEKISHO_WEBHOOK_NETWORKS", [])
WEBHOOK_HTTP = env.switch("SEKISHO_WEBHOOK_HTTP", False)

# Rows of a file that is streamed while the person waits; a longer one is the worker's.
EXPORT_STREAMED_MAX_ROWS = env.integer("SEKISHO_EXPORT_STREAMED_MAX_ROWS", 50_000, low=1, high=2_000_000)

SESSION_COOKIE_AGE = 12 * 3600  # seconds: a working day
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = env.switch("SEKISHO_HTTPS", False)
CSRF_COOKIE_HTTPONLY = True
CSRF_FAILURE_VIEW = "portal.views.errors.csrf_failure"
CSRF_TRUSTED_ORIGINS = env.names("SEKISHO_TRUSTED_ORIGINS", [])
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

# Warnings and tracebacks to stderr; the id on an error page finds its lines.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"request_id": {"()": "portal.middleware.RequestIdFilter"}},
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(request_id)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "filters": ["request_id"], "formatter": "line"}},
    "root": {"level": "WARNING", "handlers": ["stderr"]},
    "loggers": {"django": {"level": "WARNING", "handlers": [], "propagate": True}},
}

# The broker is the same Redis; its time-outs bound what a frozen one can hold up (40 s with the defaults, measured).
CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://", 1).replace("?db=", "?virtual_host=", 1)
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
    "global_keyprefix": "sekisho:celery:",
}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # the worker outlives an outage of any length
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BEAT_SCHEDULE_FILENAME = str(env.home() / "celerybeat-schedule")


def _every(task: str, **interval: float) -> dict[str, Any]:
    """What no worker took by the next turn is dropped: a queue of turns helps nobody."""
    every = timedelta(**interval)
    return {"task": task, "schedule": every, "options": {"expires": every.total_seconds()}}


def _daily(task: str, hour: int, minute: int) -> dict[str, Any]:
    """By the clock, in UTC: an interval of a day would begin anew with each start of beat that has lost its file."""
    return {"task": task, "schedule": crontab(hour=str(hour), minute=str(minute)), "options": {"expires": 6 * 3600}}


CELERY_BEAT_SCHEDULE = {
    "publish-configuration": _every("gateway.tasks.publish_configuration", seconds=2),
    "restore-counters": _every("gateway.tasks.restore_counters", seconds=2),
    "record-last-used": _every("gateway.tasks.record_last_used", seconds=30),
    "count-backends": _every("gateway.tasks.count_backends", minutes=1),
    "clear-exports": _every("portal.tasks.clear_exports", minutes=10),
    "post-journal": _every("usage.tasks.post_journal", seconds=1),
    "reap": _every("usage.tasks.reap", seconds=10),
    "end-playground-keys": _every("portal.tasks.end_playground_keys", hours=1),
    "watch-alerts": _every("portal.alerts.tasks.watch", seconds=15),
    "deliver-alerts": _every("portal.alerts.tasks.deliver", seconds=5),
    # At night in Japan, one after the other; the day that is reconciled is over everywhere at any of these times.
    "make-partitions": _daily("usage.tasks.make_partitions", 17, 10),
    "enforce-retention": _daily("usage.tasks.enforce_retention", 17, 20),
    "reconcile": _daily("usage.tasks.reconcile", 17, 40),
    "prune-alerts": _daily("portal.alerts.tasks.prune", 18, 0),
}
