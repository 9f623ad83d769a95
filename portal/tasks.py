"""What the worker does for the portal. Thin: each task calls one verb."""

import logging
from collections.abc import Callable
from smtplib import SMTPException
from typing import Any, Final

from celery import shared_task
from django.utils import timezone

from accounts import audit, playground
from accounts.models import User
from portal import exports, letters

_log = logging.getLogger(__name__)
TRIES: Final = 5
PAUSE_S: Final = 30
EXPORT_AGAIN_S: Final = 5


@shared_task
def verify_audit(user_id: str, address: str | None, request_id: str) -> None:
    """On an operator's word. What was found is an event of the trail, in that operator's name."""
    actor = User.objects.get(pk=user_id)
    found = audit.verify_and_record(actor=actor, address=address, request_id=request_id)
    if found.broken_at is not None:
        _log.error("The audit trail is broken at event %d", found.broken_at)


@shared_task(bind=True, max_retries=TRIES - 1)
def send_invitation(task: Any, invitation_id: str, sealed_link: str) -> None:
    _until_sent(task, lambda: letters.send_invitation(invitation_id, sealed_link))


@shared_task(bind=True, max_retries=TRIES - 1)
def send_new_password(task: Any, email: str, origin: str, language: str | None) -> None:
    _until_sent(task, lambda: letters.send_new_password(email, origin, language))


def _until_sent(task: Any, send: Callable[[], None]) -> None:
    """A mail server that does not take it is asked again. The log gets no address, and no link."""
    try:
        send()
    except (SMTPException, OSError) as error:
        _log.warning("A letter could not be sent by mail: %s", type(error).__name__)
        raise task.retry(countdown=PAUSE_S * 2**task.request.retries, exc=Undelivered(type(error).__name__)) from None


class Undelivered(Exception):
    """No mail server took a letter."""


@shared_task
def end_playground_keys() -> None:
    """Every hour. Their texts ended long before: this is for the list of keys, and for what the gateway is told of."""
    playground.end_unused(timezone.now())


@shared_task(bind=True, max_retries=None)
def make_export(task: Any, export_id: str) -> None:
    """On somebody's word, who waits for the file."""
    if not exports.make(export_id):
        raise task.retry(countdown=EXPORT_AGAIN_S)


@shared_task
def clear_exports() -> None:
    """Every ten minutes: files past their time, and those whose worker was lost."""
    exports.clear()
