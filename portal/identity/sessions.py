"""Where a person is signed in, and how that is ended."""

from collections.abc import Sequence
from typing import Unpack

from allauth.usersessions.models import UserSession
from django.db import transaction

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
