"""Is the installation sound? Each check looks at the real thing and returns findings; a bad one says what to do."""

import sys
import time
import zoneinfo
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import requests
from cryptography.fernet import Fernet
from django.conf import settings
from django.db import DatabaseError
from django.utils.translation import gettext as _
from redis.exceptions import RedisError

from gateway.config.documents import MARKER
from gateway.models import Backend, Publication
from portal import home, stores
from portal.stores import START, Finding
from usage.lag import journal_lag
from usage.store import connect

HTTP_S: Final = (2.0, 4.0)  # connect, read


def python() -> Finding:
    """Told, not judged: an older one cannot even read this code."""
    return Finding("Python", True, ".".join(map(str, sys.version_info[:3])))


def time_zones() -> Finding:
    try:
        zoneinfo.ZoneInfo("Asia/Tokyo")
    except zoneinfo.ZoneInfoNotFoundError:
        return Finding("Time zones", False, "no zone data", "Install the package tzdata.")
    return Finding("Time zones", True, f"{len(zoneinfo.available_timezones())} zones")


def secrets() -> Finding:
    """That they are there, settings have seen already; here: that they are of use, and closed to others."""
    file = settings.SEKISHO_HOME / "secrets.env"
    if file.exists() and file.stat().st_mode & 0o077:
        return Finding("Secrets", False, f"{file} can be read by others", f"Run: chmod 600 '{file}'")
    if len(settings.SECRET_KEY) < 32 or len(settings.SALT_KEY) < 16:
        return Finding("Secrets", False, "too short", "SEKISHO_SECRET_KEY needs 32 characters, SEKISHO_SALT_KEY 16.")
    for key_id, key in settings.FIELD_KEYS:
        try:
            Fernet(key)
        except ValueError:
            return Finding("Secrets", False, f"field key {key_id} is none of Fernet's", "Make one with Fernet.generate_key().")
    return Finding("Secrets", True, str(file) if file.exists() else "from the environment")


def migrations() -> Finding:
    try:
        missing = stores.unapplied_migrations()
    except DatabaseError:
        return Finding(_("Tables"), False, _("unknown, the database does not answer"), _("Mend the database first."))
    if missing:
        return Finding(
            _("Tables"), False, _("%(number)d migrations missing") % {"number": len(missing)}, _("Run: manage.py migrate")
        )
    return Finding(_("Tables"), True, _("up to date"))


def published() -> Finding:
    remedy = _("Is the worker running? It publishes every 2 s.")
    try:
        expected = Publication.objects.values_list("marker", flat=True).first()
        with connect(settings.REDIS_URL, max_connections=2, timeout_s=2) as client:
            held = client.get(MARKER)
    except (DatabaseError, RedisError):
        return Finding(_("Configuration"), False, _("unknown, a store does not answer"), _("Mend the stores first."))
    if held is None or expected is None:
        return Finding(_("Configuration"), False, _("not published"), remedy)
    if held.decode() != expected:
        return Finding(_("Configuration"), False, _("Redis holds another one than the database"), remedy)
    return Finding(_("Configuration"), True, _("published"))


def journal() -> Finding:
    """Do ended calls reach the ledger, and if not, for how long may they wait?"""
    try:
        with connect(settings.REDIS_URL, max_connections=2, timeout_s=2) as client:
            lag = journal_lag(client, now_s=time.time())
    except RedisError:
        return Finding(_("Journal"), False, _("unknown, Redis does not answer"), _("Mend Redis first."))
    if not lag.is_late:
        return Finding(_("Journal"), True, _("%(number)d ended calls wait for the ledger") % {"number": lag.entries})
    told = _(
        "%(number)d ended calls wait for the ledger, the oldest for %(minutes).0f min; "
        "in %(hours).1f h the oldest of them are lost"
    )
    detail = told % {"number": lag.entries, "minutes": lag.oldest_s / 60, "hours": lag.full_in_s / 3600}
    return Finding(_("Journal"), False, detail, _("Are PostgreSQL and the worker running? The worker posts every second."))


def backends() -> Iterator[Finding]:
    """Each backend: does it answer, and does it serve the models that deployments ask of it?"""
    try:
        rows = list(Backend.objects.prefetch_related("memberships__deployment"))
    except DatabaseError:
        yield Finding("Backends", False, "unknown, the database does not answer", "Mend the database first.")
        return
    if not rows:
        yield Finding("Backends", True, "none configured yet")
    with _session() as session:
        for row in rows:
            yield _backend(row, session)


def _backend(row: Backend, session: requests.Session) -> Finding:
    name = f"Backend {row.name}"
    try:
        headers = {"Authorization": f"Bearer {row.credential}"} if row.credential else {}
    except ValueError:
        return Finding(name, False, "its credential cannot be decrypted", "Put its key back into SEKISHO_FIELD_KEYS.")
    try:
        health = session.get(f"{row.url}/health", timeout=HTTP_S, allow_redirects=False)
        models = session.get(f"{row.url}/v1/models", headers=headers, timeout=HTTP_S, allow_redirects=False)
    except requests.RequestException as error:
        return Finding(name, False, f"{row.url} does not answer ({type(error).__name__})", "Is it running, and its URL right?")
    if HTTPStatus.UNAUTHORIZED in (health.status_code, models.status_code):
        return Finding(name, False, "refuses its credential", "Set the backend's API key.")
    if health.status_code != 200 or models.status_code != 200:
        statuses = f"/health {health.status_code}, /v1/models {models.status_code}"
        return Finding(name, False, statuses, "Look into the backend's own log.")
    try:
        served = {model["id"] for model in models.json()["data"]}
    except (ValueError, KeyError, TypeError):
        return Finding(name, False, "/v1/models is no list of models", "Is it a vLLM server, and its URL the base?")
    wanted = {member.deployment.served_model for member in row.memberships.all()}
    if missing := sorted(wanted - served):
        return Finding(name, False, f"does not serve {', '.join(missing)}", f"It serves: {', '.join(sorted(served))}.")
    return Finding(name, True, f"serves {', '.join(sorted(wanted)) or 'no deployment yet'}")


def servers() -> Iterator[Finding]:
    """Gateway and portal: who holds the port, and is it ready?"""
    running = home.addresses(settings.SEKISHO_HOME)
    api = running.api if running else settings.GATEWAY_PUBLIC_URL
    yield _server("Gateway", f"{api}/readyz")
    if running:
        yield _server("Portal", f"{running.portal}/sign-in/")


def _server(name: str, url: str) -> Finding:
    place = urlsplit(url)
    where = f"{place.hostname}:{place.port or (443 if place.scheme == 'https' else 80)}"
    try:
        with _session() as session:
            answer = session.get(url, timeout=HTTP_S, allow_redirects=False)
    except requests.ConnectionError:
        return Finding(name, False, f"nothing answers on {where}", str(START))
    except requests.RequestException as error:
        return Finding(name, False, f"{where}: {type(error).__name__}", "Look into its log.")
    if "x-request-id" not in answer.headers:
        return Finding(name, False, f"{where} is served by another program", "Stop that one, or choose another port.")
    if answer.status_code != 200:
        return Finding(name, False, f"{where} is not ready ({answer.status_code})", "Are the stores up and the worker running?")
    return Finding(name, True, where)


def worker() -> Finding:
    """Asked through the broker. Celery is loaded for this alone."""
    from kombu.exceptions import OperationalError

    from portal.celery import app

    try:
        if app.control.ping(timeout=1.0, limit=1):
            return Finding("Worker", True, "takes orders")
    except OperationalError:
        return Finding("Worker", False, "unknown, Redis does not answer", "Mend Redis first.")
    return Finding("Worker", False, "does not answer", "Start it: celery -A portal.celery worker --beat")


def all_findings() -> Iterator[Finding]:
    redis = stores.redis()
    yield from (python(), time_zones(), secrets(), stores.database(), migrations(), redis, published(), journal())
    yield from backends()
    yield from servers()
    if redis.is_good:  # without it, celery would try for six seconds
        yield worker()


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # a proxy of the environment would answer in the place of who is asked
    return session
