"""The Celery app of worker and beat: `celery -A portal.celery worker`, `celery -A portal.celery beat`."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings.web")

app = Celery("sekisho")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
