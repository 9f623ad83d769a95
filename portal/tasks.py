"""What the worker does for the portal. Thin: each task calls one verb."""

import logging

from celery import shared_task

from accounts import audit
from accounts.models import User
from portal import exports

_log = logging.getLogger(__name__)


@shared_task
def verify_audit(user_id: str, address: str | None, request_id: str) -> None:
    """On an operator's word. What was found is an event of the trail, in that operator's name."""
    actor = User.objects.get(pk=user_id)
    found = audit.verify_and_record(actor=actor, address=address, request_id=request_id)
    if found.broken_at is not None:
        _log.error("The audit trail is broken at event %d", found.broken_at)


@shared_task
def make_export(export_id: str) -> None:
    """On somebody's word, who waits for the file."""
    exports.make(export_id)


@shared_task
def clear_exports() -> None:
    """Every ten minutes: files past their time, and those whose worker was lost."""
    exports.clear()
