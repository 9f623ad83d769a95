"""Where a person is signed in, and how that is ended."""

from collections.abc import Sequence
from typing import Any, Unpack

from allauth.usersessions.models import UserSession
from django.contrib.auth.signals import user_logged_in
from django.db import transaction
from django.dispatch import receiver
from django.http import HttpRequest

from accounts import audit
from accounts.models import User


def of(user: User) -> list[UserSession]:
    """Sessions that are alive, the latest first."""
    return sorted(UserSession.objects.purge_and_list(user), key=lambda row: row.created_at, reverse=True)


@transaction.atomic
def end(user: User, rows: Sequence[UserSession], **by: Unpack[audit.By]) -> None:
    """Their next request is asked to sign in. Nothing is written where there is none to end."""
    if not rows:
        return
    for row in rows:
        row.end()
    audit.record(verb="person.sessions_ended", target=f"person {user}", before={"sessions": len(rows)}, **by)


@receiver(user_logged_in)
def listed(request: HttpRequest, **kwargs: Any) -> None:
    """allauth lists the sessions that it began; those of the link of an invitation are Django's."""
    if request.META.get("REMOTE_ADDR"):
        UserSession.objects.create_from_request(request)
