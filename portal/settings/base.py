"""What every profile shares. Values come from env.py; each has its unit, default and row in README."""

from portal.settings import env

BASE_DIR = env.PROJECT
SEKISHO_HOME = env.home()

SECRET_KEY = env.secret("SEKISHO_SECRET_KEY")
DEBUG = False
ALLOWED_HOSTS = env.names("SEKISHO_ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"])
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SILENCED_SYSTEM_CHECKS: list[str] = []

# API keys are kept as HMAC-SHA-256 under the first pepper; the others still verify. `id:secret,...`
KEY_PEPPERS = env.keyring("SEKISHO_KEY_PEPPERS")
# Backend credentials are encrypted under the first Fernet key; the others still decrypt. `id:key,...`
FIELD_KEYS = env.keyring("SEKISHO_FIELD_KEYS")
# Makes each tenant's cache_salt and end-user labels; changing it empties the backends' prefix caches once.
SALT_KEY = env.secret("SEKISHO_SALT_KEY")

REDIS_URL = env.redis_url()

GATEWAY_PUBLIC_URL = env.text("SEKISHO_GATEWAY_URL", "http://127.0.0.1:8001")
