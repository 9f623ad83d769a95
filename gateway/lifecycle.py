"""Start and end of a gateway worker: what lives as long as the process is built here, once, and taken down here."""

import time

import gevent
import redis
from django.conf import settings

from gateway import call_log, last_used
from gateway.config import directory
from gateway.upstream.client import IDLE_MAX_S
from gateway.upstream.opening import client
from usage.degraded import LocalLimiter
from usage.events import UsageEvent
from usage.reservation import Reservation
from usage.settling import Settling
from usage.spool import Spool
from usage.store import connect

_store: redis.Redis | None = None
_settling: Settling | None = None


def start() -> None:
    """Called in each worker before its first request: log, configuration, quota and spool."""
    global _settling, _store  # noqa: PLW0603 - the one place that writes them
    call_log.configure()
    directory.start()
    _store = connect(settings.REDIS_URL)
    spool = Spool(settings.SPOOL_FOLDER, max_bytes=settings.SPOOL_MAX_BYTES)
    local = LocalLimiter(settings.GATEWAY_WORKERS, max_s=settings.DEGRADED_MAX_S)
    _settling = Settling(_store, spool, local)
    gevent.spawn(_settling.run)
    gevent.spawn(spool.run)
    gevent.spawn(_drop_idle_connections)


def settling() -> Settling:
    """What holds and settles the calls of this worker."""
    if _settling is None:
        raise RuntimeError("gateway.lifecycle.start() has not been called in this process.")
    return _settling


def _drop_idle_connections() -> None:
    """Backends close idle connections themselves: after a burst ours would lie half-closed until the next call."""
    while True:
        gevent.sleep(IDLE_MAX_S / 2)
        client.drop_idle()


def stop() -> None:
    """Called when the worker has served its last request: what was recorded goes out, or stays on the disk."""
    if _settling is not None:
        _settling.stop()


def note_use(lookup_id: str) -> None:
    """Remember that a key was used, once a minute and not on the call's own time."""
    now_s = time.time()
    if _store is not None and last_used.is_due(lookup_id, now_s):
        gevent.spawn(last_used.note, _store, lookup_id, now_s)


def record(reservation: Reservation | None, event: UsageEvent) -> None:
    """Settle an ended call."""
    if _settling is not None:
        _settling.settle(reservation, event)
