"""Start and end of a gateway worker: what lives as long as the process is built here, once, and taken down here."""

import gc
import time
from contextlib import suppress
from functools import partial
from typing import Final

import gevent
import redis
from django.conf import settings
from uuid_utils.compat import uuid7

from gateway import afterwards, call_log, last_used, metrics, presence
from gateway.call import running
from gateway.config import directory
from gateway.routing.board import board
from gateway.routing.candidates import usable_members
from gateway.routing.exchange import Exchange
from gateway.routing.health import Health
from gateway.routing.slots import slots
from gateway.upstream.attempt import client
from gateway.upstream.client import IDLE_MAX_S
from gateway.upstream.opening import leave_where_it_hangs
from usage.degraded import LocalLimiter
from usage.events import EndedCall
from usage.line import Line
from usage.reservation import Reservation
from usage.settling import Settling
from usage.spool import Spool
from usage.store import connect

HUNG_LOOK_S: Final = 1.0
YOUNG_OBJECTS: Final = 10_000  # Python's own 700 are made by a call or two; as many as these are some megabytes

_store: redis.Redis | None = None
_settling: Settling | None = None
_health: Health | None = None
_worker: Final = uuid7().hex
_is_stopping = False


def start() -> None:
    """Called in each worker before its first request: log, configuration, quota and spool, the backends' health."""
    global _health, _settling, _store  # noqa: PLW0603 - the one place that writes them
    call_log.configure()
    afterwards.begin()
    configuration = directory.start()
    _store = connect(settings.REDIS_URL)
    spool = Spool(settings.SPOOL_FOLDER, max_bytes=settings.SPOOL_MAX_BYTES)
    local = LocalLimiter(settings.GATEWAY_WORKERS, max_s=settings.DEGRADED_MAX_S)
    line = Line(_store) if Line.suits(settings.REDIS_URL) else None
    _settling = Settling(_store, spool, local, line)
    gevent.spawn(_settling.run)
    gevent.spawn(spool.run)
    _health = Health(board, Exchange(_store, _worker), configuration.platform)
    gevent.spawn(_health.run)
    gevent.spawn(presence.keep_telling, _store, _worker, partial(_presence, spool, begun_s=time.time()))
    metrics.show(metrics.Backends(board.totals))
    gevent.spawn(metrics.keep_writing)
    gevent.spawn(call_log.keep_writing)
    usable = partial(usable_members, board=board)
    slots.start(settings.REDIS_URL, workers=settings.GATEWAY_WORKERS, queue_max_s=settings.QUEUE_MAX_S, usable=usable)
    gevent.spawn(slots.run)
    gevent.spawn(_drop_idle_connections)
    gevent.spawn(_look_for_hung_backends)
    _spare_the_collector()


def _spare_the_collector() -> None:
    """What has been loaded stays for good: the collector of garbage need not look through its 100,000 objects again and again.

    A call makes hundreds of objects, nearly all of which go by themselves: the collector looks for circles less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)


def begin_stop() -> None:
    """SIGTERM: calls that run may go on for GRACE_S, and /readyz says 503 from now on. Safe in a signal handler."""
    global _is_stopping  # noqa: PLW0603 - written here alone
    if not _is_stopping:
        _is_stopping = True
        gevent.spawn_later(settings.GRACE_S, break_off_calls)


def is_stopping() -> bool:
    return _is_stopping


def break_off_calls() -> None:
    """The grace is over: who still waits gets an error event or a status, where the end of the process would cut it."""
    for call in running():
        call.break_off()


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


def _look_for_hung_backends() -> None:
    while True:
        gevent.sleep(HUNG_LOOK_S)
        leave_where_it_hangs()


def _presence(spool: Spool, *, begun_s: float) -> presence.Presence:
    synced_at, state = directory.synced_at(), spool.state()
    return presence.Presence(
        at_s=board.now_s(),
        begun_s=begun_s,
        version=settings.VERSION,
        snapshot_age_s=None if synced_at is None else time.monotonic() - synced_at,
        pending=state.pending_lines,
        lost=state.dropped_lines,
        is_spool_writable=state.is_writable,
    )


def stop() -> None:
    """Called when the worker has served its last request: what was recorded goes out, or stays on the disk."""
    slots.stop()
    if _store is not None:
        presence.leave(_store, _worker)
    if _health is not None:
        _health.stop()
    if _settling is not None:
        _settling.stop()
    afterwards.catch_up()
    call_log.flush()
    with suppress(OSError):
        metrics.write()


def note_use(lookup_id: str, now_s: float) -> None:
    """Remember that a key was used, not on the call's own time: for whoever has asked last_used.is_due."""
    if _store is not None:
        gevent.spawn(last_used.note, _store, lookup_id, now_s)


def record(reservation: Reservation | None, event: EndedCall) -> None:
    """Settle an ended call."""
    if _settling is not None:
        _settling.settle(reservation, event)
