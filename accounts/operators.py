"""Who runs the platform: add an operator, take one away. Each is one transaction with its audit event.

There is always an active operator: whoever takes one away first locks them all.
"""

from typing import Unpack

from django.db import transaction
from django.utils.translation import gettext as _

from accounts import audit
from accounts.models import User


class OperatorError(Exception):
    """What was asked for cannot be. message: for people, in their language."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@transaction.atomic
def add(email: str, **by: Unpack[audit.By]) -> tuple[User, bool]:
    """Make `email` an operator; True with it when the account is new, and has no password yet. Raises OperatorError."""
    address = User.objects.normalize_email(email.strip()).lower()
    user = User.objects.select_for_update().filter(email=address).first()
    if user is not None and user.is_operator:
        raise OperatorError(_("%(email)s is an operator already.") % {"email": address})
    if user is not None and not user.is_active:
        raise OperatorError(_("The account of %(email)s is closed.") % {"email": address})
    is_new = user is None
    if user is None:
        user = User.objects.create_user(address, None, is_operator=True)
    else:
        user.is_operator = True
        user.save(update_fields=["is_operator"])
    audit.record(verb="operator.added", target=f"operator {user}", after={"account": "new" if is_new else "known"}, **by)
    return user, is_new


@transaction.atomic
def remove(user: User, **by: Unpack[audit.By]) -> None:
    """Let `user` run the platform no more; the account and its memberships stay. Raises OperatorError for the last one."""
    operators = list(User.objects.select_for_update().filter(is_operator=True).order_by("pk"))
    row = next((operator for operator in operators if operator.pk == user.pk), None)
    if row is None:
        raise OperatorError(_("%(email)s is no operator any more.") % {"email": user.email})
    if not any(operator.is_active for operator in operators if operator.pk != row.pk):
        raise OperatorError(_("This is the last operator: add another one first."))
    row.is_operator = False
    row.save(update_fields=["is_operator"])
    audit.record(verb="operator.removed", target=f"operator {row}", **by)
