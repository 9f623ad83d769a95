"""Who has a second factor besides the password, and who owes one: a rule asks for it, and there is none."""

from collections.abc import Iterable
from uuid import UUID

from allauth.mfa.models import Authenticator

from accounts import security
from accounts.models import User

FACTORS = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)  # recovery codes alone are none


def is_owed_by(user: User) -> bool:
    """One query where no rule reaches the person, else two."""
    return security.requires_second_factor(user) and not is_had_by(user)


def is_had_by(user: User) -> bool:
    return bool(had_among([user]))


def had_among(users: Iterable[User]) -> frozenset[UUID]:
    """The ids of those who have one, in one query."""
    rows = Authenticator.objects.filter(user__in=list(users), type__in=FACTORS)
    return frozenset(rows.values_list("user_id", flat=True))
