"""Who has a second factor besides the password. The rows are django-allauth's, where it is installed."""

from collections.abc import Iterable
from typing import Final
from uuid import UUID

from django.apps import apps

from accounts.models import User

_NO_FACTOR: Final = "recovery_codes"  # of no use alone: they stand in for a factor that is lost


def has_second_factor(users: Iterable[User]) -> frozenset[UUID] | None:
    """Those of `users` who have one, by id, in one query; None: this installation knows no second factors."""
    if not apps.is_installed("allauth.mfa"):
        return None
    rows = apps.get_app_config("mfa").get_model("Authenticator").objects.filter(user__in=list(users)).exclude(type=_NO_FACTOR)
    return frozenset(rows.values_list("user_id", flat=True))
