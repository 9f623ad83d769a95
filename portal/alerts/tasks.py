"""What the worker does for alerts. Thin: each task calls one verb; a store that is out is asked again at the next turn."""

import logging
from typing import Final

from celery import shared_task
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from portal.alerts import delivering, firing, retention
from usage.store import RedisError, StoreUnavailable

_STORE_OUT: Final = (RedisError, StoreUnavailable, OperationalError, InterfaceError)
_log = logging.getLogger(__name__)


@shared_task
def watch() -> None:
    """Every 15 s: look at what the rules watch, and fire."""
    try:
        firing.watch(timezone.now())
    except _STORE_OUT as error:
        _log.warning("Alerts wait: %s", type(error).__name__)


@shared_task
def deliver() -> None:
    """Every 5 s: send what is due."""
    try:
        delivering.deliver()
    except _STORE_OUT as error:
        _log.warning("Deliveries of alerts wait: %s", type(error).__name__)


@shared_task
def prune() -> None:
    """Daily: remove what is past its time."""
    removed = retention.prune(timezone.now())
    _log.info("Alerts and deliveries past their time are removed: %d, %d", *removed)
