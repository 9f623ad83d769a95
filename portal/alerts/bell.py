"""A person's notices: how many are unread, a page of them, and having read them."""

from typing import Any, Final
from uuid import UUID

from django.db.models import Q, QuerySet
from django.utils import timezone

from accounts.models import Tenant, User
from portal.alerts.models import Notice

COUNTED_MOST: Final = 100  # beyond it the bell says 99+


def unread(user: User) -> int:
    """One cheap query, by the index of what is unread; COUNTED_MOST at most."""
    return visible_to(user).filter(read_at=None)[:COUNTED_MOST].count()


def visible_to(user: User) -> QuerySet[Notice, Notice]:
    """Those of tenants they are still a member of, and those of the platform while they run it."""
    if user.is_operator:
        return Notice.objects.filter(user=user)
    return Notice.objects.filter(user=user, alert__tenant__in=Tenant.objects.visible_to(user))


def mark_read(user: User, pk: UUID | None = None) -> int:
    """One, or with None all of them."""
    chosen: Any = Q() if pk is None else Q(pk=pk)
    return Notice.objects.filter(chosen, user=user, read_at=None).update(read_at=timezone.now())
