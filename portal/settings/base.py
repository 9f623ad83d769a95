"""What every profile shares. Values come from env.py; each has its unit, default and row in README."""

import re
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

from portal.settings import env

BASE_DIR = env.PROJECT
VERSION: str = tomllib.loads((BASE_DIR / "pyproject.toml").read_text())["project"]["version"]
SEKISHO_HOME = env.home()

SECRET_KEY = env.secret("SEKISHO_SECRET_KEY")
DEBUG = False
ALLOWED_HOSTS = env.names("SEKISHO_ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"])
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SILENCED_SYSTEM_CHECKS = ["security.W004", "security.W008"]  # TLS ends at the load balancer: it redirects and sets HSTS

# API keys are kept as HMAC-SHA-256 under the first pepper; the others still verify. `id:secret,...`
KEY_PEPPERS = env.keyring("SEKISHO_KEY_PEPPERS")
# Backend credentials are encrypted under the first Fernet key; the others still decrypt. `id:key,...`
FIELD_KEYS = env.keyring("SEKISHO_FIELD_KEYS")
# Makes each tenant's cache_salt and end-user labels; changing it empties the backends' prefix caches once.
SALT_KEY = env.secret("SEKISHO_SALT_KEY")

REDIS_URL = env.redis_url()

# Where the gateway asks the portal for reports (portal/views/reports.py); that host is one of the portal's own.
PORTAL_URL = env.text("SEKISHO_PORTAL_URL", "http://127.0.0.1:8000").rstrip("/")
ALLOWED_HOSTS.append(re.sub(r":[0-9]*\Z", "", urlsplit(PORTAL_URL).netloc))

GATEWAY_PUBLIC_URL = env.text("SEKISHO_GATEWAY_URL", "http://127.0.0.1:8001")

# Limits of the HTTP edge. Bytes and seconds.
REQUEST_BODY_MAX_BYTES = env.integer("SEKISHO_REQUEST_BODY_MAX_BYTES", 20 * 1024 * 1024, low=1024, high=2**31)
REQUEST_BODY_MIN_BYTES_PER_S = 16 * 1024
REQUEST_BODY_GRACE_S = 30.0
CALL_MAX_S = env.number("SEKISHO_CALL_MAX_S", 1800, low=1, high=86400)
# The longest a streamed call may wait for its first event, and so for its turn in a backend queue. Seconds.
FIRST_TOKEN_MAX_S = env.number("SEKISHO_FIRST_TOKEN_MAX_S", 300, low=0.05, high=86400)
# The longest silence between two events of a stream, and the longest a whole answer that has begun may take. Seconds.
STALL_MAX_S = env.number("SEKISHO_STALL_MAX_S", 60, low=0.05, high=86400)
# The longest a call may wait for a free place where a deployment is at its ceiling. Seconds.
QUEUE_MAX_S = env.number("SEKISHO_QUEUE_MAX_S", 10, low=0, high=3600)
CONNECT_MAX_S = env.number("SEKISHO_CONNECT_MAX_S", 2, low=0.05, high=60)
# How long calls may go on after SIGTERM before they are broken off. Seconds.
GRACE_S = env.number("SEKISHO_GRACE_S", 1800, low=0, high=86400)
KEEP_ALIVE_COMMENT_S = env.number("SEKISHO_KEEP_ALIVE_COMMENT_S", 15, low=0.05, high=600)
KEY_CACHE_ENTRIES = env.integer("SEKISHO_KEY_CACHE_ENTRIES", 20_000, low=100, high=10_000_000)
# Proxies whose X-Forwarded-For is believed: networks.
TRUSTED_PROXIES = env.names("SEKISHO_TRUSTED_PROXIES", [])
# Who may read /metrics and the details of /readyz: networks, beside the load balancer's own probe of the status.
OPERATOR_NETWORKS = env.names("SEKISHO_OPERATOR_NETWORKS", ["127.0.0.0/8", "::1/128"])
# Where gateway workers keep ended calls until the ledger surely has them, and how much of the disk each may take.
SPOOL_FOLDER = Path(env.text("SEKISHO_SPOOL_FOLDER", str(env.home() / "spool")))
SPOOL_MAX_BYTES = env.integer("SEKISHO_SPOOL_MAX_BYTES", 512 * 1024 * 1024, low=1024 * 1024, high=2**40)
# While Redis is out, tenants that chose so are served on for this long, each worker enforcing its share of the limits.
DEGRADED_MAX_S = env.number("SEKISHO_DEGRADED_MAX_S", 300, low=0, high=86400)
GATEWAY_WORKERS = env.integer("SEKISHO_GATEWAY_WORKERS", 2, low=1, high=256)
