"""Start and end of a gateway worker: what lives as long as the process is built here, once, and taken down here."""

import time

import gevent
import redis
from django.conf import settings

from gateway import call_log, last_used
from gateway.config import directory
from gateway.upstream.client import IDLE_MAX_S
from gateway.upstream.opening import client
from usage.events import UsageEvent
from usage.journal import Journal
from usage.store import connect

_store: redis.Redis | None = None
_journal: Journal | None = None


def start() -> None:
    """Called in each worker before its first request: log, configuration, journal."""
    global _journal, _store  # noqa: PLW0603 - the one place that writes them
    call_log.configure()
    directory.start()
    _store = connect(settings.REDIS_URL, max_connections=4, timeout_s=2)
    _journal = Journal(_store)
    gevent.spawn(_journal.run)
    gevent.spawn(_drop_idle_connections)


def _drop_idle_connections() -> None:
    """Backends close idle connections themselves: after a burst ours would lie half-closed until the next call."""
    while True:
        gevent.sleep(IDLE_MAX_S / 2)
        client.drop_idle()


def stop() -> None:
    """Called when the worker has served its last request: nothing that was recorded may stay behind."""
    if _journal is not None:
        _journal.stop()


def note_use(lookup_id: str) -> None:
    """Remember that a key was used, once a minute and not on the call's own time."""
    now_s = time.time()
    if _store is not None and last_used.is_due(lookup_id, now_s):
        gevent.spawn(last_used.note, _store, lookup_id, now_s)


def record(event: UsageEvent) -> None:
    """Put a usage event on the journal; no I/O here."""
    if _journal is not None:
        _journal.append(event)
