"""What the worker does for the portal. Thin: each task calls one verb."""

import logging

from celery import shared_task
from django.utils import timezone

from accounts import audit, playground
from accounts.models import User

_log = logging.getLogger(__name__)


@shared_task
def verify_audit(user_id: str, address: str | None, request_id: str) -> None:
    """On an operator's word. What was found is an event of the trail, in that operator's name."""
    actor = User.objects.get(pk=user_id)
    found = audit.verify_and_record(actor=actor, address=address, request_id=request_id)
    if found.broken_at is not None:
        _log.error("The audit trail is broken at event %d", found.broken_at)


@shared_task
def end_playground_keys() -> None:
    """Every hour. Their texts ended long before: this is for the list of keys, and for what the gateway is told of."""
    playground.end_unused(timezone.now())
