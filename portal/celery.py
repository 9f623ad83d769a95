"""The Celery app of worker and beat: `celery -A portal.celery worker`, `celery -A portal.celery beat`."""

import os
from contextlib import suppress
from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from kombu import Connection

from portal import jobs

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings.web")


class Broker(Connection):
    """Tries every second to get back to Redis. By itself it would wait for up to 30 s, and calls with limits with it."""

    def maybe_close_channel(self, channel: Any) -> None:
        """A channel that holds tasks would give them back, over a transport that is gone: the worker would end by that.

        Redis still has them, and hands them out again after its visibility timeout.
        """
        with suppress(AttributeError):
            super().maybe_close_channel(channel)

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        return super().ensure_connection(*args, **{"interval_start": 1, "interval_step": 0, "interval_max": 1, **options})


class Amqp(AMQP):
    Connection = Broker


app = Celery("sekisho", amqp=Amqp)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
jobs.connect_signals()
