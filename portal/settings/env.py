"""Typed readers: the only place that reads the environment.

What is not in the environment may stand in `<home>/secrets.env`, which `manage.py up` writes on its first run, so that
every other command started in the same checkout finds the same stores and the same secrets.
"""

import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import environ
from django.core.exceptions import ImproperlyConfigured

PROJECT = Path(__file__).resolve().parent.parent.parent
# sun_path holds 108 bytes with its end mark; "/.s.PGSQL.5432.lock" is the longest name put into the folder.
SOCKET_PATH_MAX_BYTES = 107 - len("/.s.PGSQL.5432.lock")


def home() -> Path:
    """The state folder: embedded stores, secrets, logs. SEKISHO_HOME, else `var` in the checkout."""
    return Path(os.environ.get("SEKISHO_HOME") or PROJECT / "var").absolute()


def run_folder(state: Path) -> Path:
    """Where the embedded stores put their sockets: `state/run`, unless that path is too long or unsafe to pass unquoted.

    For root it is always in the temporary folder: PostgreSQL then runs as nobody, who may not reach the state folder.
    The answer depends on path and user alone, so that every process of one installation finds the same sockets.
    """
    folder = state / "run"
    text = str(folder)
    if (
        os.getuid() != 0
        and len(text.encode()) <= SOCKET_PATH_MAX_BYTES
        and text.isascii()
        and not any(c in text for c in " \t\"'\\,")
    ):
        return folder
    tag = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"sekisho-{os.getuid()}-{tag}"


def embedded_database_url(state: Path) -> str:
    return f"postgresql://sekisho@/sekisho?host={quote(str(run_folder(state)), safe='')}"


def embedded_redis_url(state: Path) -> str:
    return f"unix://{run_folder(state)}/valkey.sock?db=0"


_env = environ.Env()


def read_secrets() -> None:
    """Take from `<home>/secrets.env` what the environment leaves out. Done on import, and once more when `up` made it."""
    path = home() / "secrets.env"
    if path.is_file():
        environ.Env.read_env(str(path), overwrite=False)


read_secrets()


def text(name: str, default: str) -> str:
    return str(_env.str(name, default=default))


def number(name: str, default: float, *, low: float, high: float) -> float:
    """A number within low..high; anything else stops the process with the reason."""
    try:
        value = float(_env.float(name, default=default))
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} must be a number from {low} to {high}") from error
    if not low <= value <= high:
        raise ImproperlyConfigured(f"{name} is {value}; it must be from {low} to {high}")
    return value


def integer(name: str, default: int, *, low: int, high: int) -> int:
    value = number(name, default, low=low, high=high)
    if value != int(value):
        raise ImproperlyConfigured(f"{name} is {value}; it must be a whole number")
    return int(value)


def switch(name: str, default: bool) -> bool:
    return bool(_env.bool(name, default=default))


def names(name: str, default: list[str]) -> list[str]:
    return [item.strip() for item in _env.list(name, default=default) if item.strip()]


def oidc_providers() -> list[dict[str, Any]]:
    """Whom people may sign in through: allauth's APPS. SEKISHO_OIDC names them, SEKISHO_OIDC_<NAME>_... describe each."""
    providers = []
    for name in names("SEKISHO_OIDC", []):
        if not re.fullmatch(r"[a-z0-9][a-z0-9_]{0,29}", name):
            raise ImproperlyConfigured(f"SEKISHO_OIDC: “{name}” must be of a-z, 0-9 and _, 30 characters at most")
        prefix = f"SEKISHO_OIDC_{name.upper()}"
        url = text(f"{prefix}_URL", "").rstrip("/")
        client_id = text(f"{prefix}_CLIENT_ID", "")
        if not url.startswith(("https://", "http://")) or not client_id:
            raise ImproperlyConfigured(f"SEKISHO_OIDC names “{name}”: set {prefix}_URL (the issuer) and {prefix}_CLIENT_ID")
        providers.append(
            {
                "provider_id": name,
                "name": text(f"{prefix}_NAME", name),
                "client_id": client_id,
                "secret": text(f"{prefix}_CLIENT_SECRET", ""),
                "settings": {"server_url": url, "vouches_for_addresses": switch(f"{prefix}_VOUCHES_FOR_ADDRESSES", False)},
            }
        )
    return providers


def mail() -> dict[str, Any]:
    """Django's EMAIL_... settings, from SEKISHO_MAIL_URL; empty: no mail is sent."""
    url = os.environ.get("SEKISHO_MAIL_URL")
    if not url:
        return {}
    config: dict[str, Any] = environ.Env.email_url_config(url)
    return config


def speaks_japanese() -> bool:
    """Does the terminal's user, going by the locale variables?"""
    locale = os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG") or ""
    return locale.startswith("ja")


def secret(name: str) -> str:
    """A value without which nothing may start; there is no default on purpose."""
    value = os.environ.get(name, "")
    if not value:
        raise ImproperlyConfigured(
            f"{name} is not set. Set it in the environment, or run `deploy/up` once: it makes the secrets "
            f"and keeps them in {home() / 'secrets.env'}."
        )
    return value


def keyring(name: str) -> tuple[tuple[str, str], ...]:
    """`id:secret,id:secret`, the first is the current one, the others only verify or decrypt."""
    ring = []
    for item in secret(name).split(","):
        key_id, colon, value = item.strip().partition(":")
        if not colon or not key_id or not value:
            raise ImproperlyConfigured(f"{name} must be a list like `k1:SECRET,k0:OLDSECRET`")
        ring.append((key_id, value))
    return tuple(ring)


def starts_postgres() -> bool:
    """Is PostgreSQL ours to start? Not when DATABASE_URL names one."""
    return not os.environ.get("DATABASE_URL")


def starts_valkey() -> bool:
    """Is Valkey ours to start? Not when REDIS_URL names one."""
    return not os.environ.get("REDIS_URL")


def database() -> dict[str, Any]:
    """Django's DATABASES["default"], from DATABASE_URL, else the embedded server of this state folder."""
    url = os.environ.get("DATABASE_URL")
    if not url:
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "sekisho",
            "USER": "sekisho",
            "HOST": str(run_folder(home())),
        }
    config: dict[str, Any] = environ.Env.db_url_config(url)
    if config.get("ENGINE") != "django.db.backends.postgresql":
        raise ImproperlyConfigured("DATABASE_URL must name a PostgreSQL server: postgresql://user:password@host/name")
    return config


def redis_url() -> str:
    """REDIS_URL, else the embedded Valkey of this state folder."""
    return os.environ.get("REDIS_URL") or embedded_redis_url(home())
