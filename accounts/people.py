"""What people say of themselves: one transaction with its audit event."""

from typing import Unpack

from django.db import transaction

from accounts import audit
from accounts.models import User


@transaction.atomic
def revise(user: User, *, name: str | None = None, language: str | None = None, **by: Unpack[audit.By]) -> bool:
    """Name and language of `user`; None leaves it. False when they are as they were: nothing is written then."""
    row = User.objects.select_for_update().get(pk=user.pk)
    asked = {"name": name, "language": language}
    wanted = {field: value for field, value in asked.items() if value is not None}
    before = {field: getattr(row, field) for field, value in wanted.items() if getattr(row, field) != value}
    if not before:
        return False
    for field in before:
        setattr(row, field, wanted[field])
        setattr(user, field, wanted[field])
    row.save(update_fields=list(before))
    after = {field: wanted[field] for field in before}
    audit.record(verb="person.changed", target=f"person {row}", before=before, after=after, **by)
    return True
