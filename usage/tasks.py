"""What the worker does for the usage floor. Thin: each task calls one verb and lets a store that is out be tried again."""

import logging
import time
from datetime import timedelta
from typing import Final

from celery import shared_task
from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from usage import months, posting, retention
from usage.partitions import PARTITIONS, leases_key
from usage.quota import Quota
from usage.reconcile import reconcile as reconcile_day
from usage.settling import is_resending
from usage.store import RedisError, StoreUnavailable, connect

POST_MOST_S: Final = 20.0  # one turn; the next is a second away
REAP_AFTER_S: Final = 2.0  # having seen a dead lease: if Redis was out, live workers renew theirs meanwhile
_STORE_OUT: Final = (RedisError, StoreUnavailable, OperationalError, InterfaceError)
_log = logging.getLogger(__name__)


@shared_task
def post_journal() -> None:
    """Every second: from the journal to the ledger. A store that is out loses nothing: what is not posted stays."""
    try:
        posting.post_journal(max_s=POST_MOST_S)
    except _STORE_OUT as error:
        _log.warning("The journal waits: %s", type(error).__name__)


@shared_task
def reap() -> None:
    """Every 10 s: end the calls of workers that died, where no other call of their subjects has done so."""
    try:
        with connect(settings.REDIS_URL, max_connections=1, timeout_s=5) as client:
            if not any(client.zcount(leases_key(number), "-inf", time.time() * 1000) for number in range(PARTITIONS)):
                return
            time.sleep(REAP_AFTER_S)
            if is_resending(client):
                return
            for number in range(PARTITIONS):
                for event in Quota(client).reap(number, now_s=time.time()):
                    _log.warning("A call was lost with its worker: %s of %s", event.request_id, event.tenant)
    except _STORE_OUT as error:
        _log.warning("Lost calls wait: %s", type(error).__name__)


@shared_task
def make_partitions() -> None:
    """Daily: the ledger's tables of the coming months."""
    months.make_ahead(timezone.now())


@shared_task
def enforce_retention() -> None:
    """Daily: delete what is older than its tenant keeps."""
    removed = retention.enforce(timezone.now())
    _log.info("Usage past its time is removed: %s", removed)


@shared_task
def reconcile() -> None:
    """Daily, for the last day that is over in every time zone: ledger, rollups and counters beside each other."""
    report = reconcile_day((timezone.now() - timedelta(hours=36)).date(), now_s=time.time())
    _log.info("Usage of %s is reconciled: %d tenants, %d drifts", report.day, report.tenants, len(report.drifts))
