"""Who owes a second factor: a rule asks for one, and there is none."""

from allauth.mfa.models import Authenticator

from accounts import security
from accounts.models import User

FACTORS = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)


def is_owed_by(user: User) -> bool:
    """One query where no rule reaches the person, else two."""
    return security.requires_second_factor(user) and not is_had_by(user)


def is_had_by(user: User) -> bool:
    """Recovery codes alone are none."""
    return bool(Authenticator.objects.filter(user=user, type__in=FACTORS).exists())
