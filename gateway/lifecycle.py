"""Start and end of a gateway worker: what lives as long as the process is built here, once, and taken down here."""

import gevent
from django.conf import settings

from gateway import call_log
from gateway.config import directory
from usage.events import UsageEvent
from usage.journal import Journal
from usage.store import connect

_journal: Journal | None = None


def start() -> None:
    """Called in each worker before its first request: log, configuration, journal."""
    global _journal  # noqa: PLW0603 - the one place that writes it
    call_log.configure()
    directory.start()
    _journal = Journal(connect(settings.REDIS_URL, max_connections=4, timeout_s=2))
    gevent.spawn(_journal.run)


def stop() -> None:
    """Called when the worker has served its last request: nothing that was recorded may stay behind."""
    if _journal is not None:
        _journal.stop()


def record(event: UsageEvent) -> None:
    """Put a usage event on the journal; no I/O here."""
    if _journal is not None:
        _journal.append(event)
