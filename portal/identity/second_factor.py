"""Who has a second factor besides the password, and who owes one: a rule asks for it, and there is none; and what each factor
is called by whose it is.
"""

from collections.abc import Iterable
from typing import Unpack
from uuid import UUID

from allauth.mfa.models import Authenticator
from django.db import transaction

from accounts import audit, security
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


@transaction.atomic
def rename(factor: Authenticator, name: str, **by: Unpack[audit.By]) -> bool:
    """Call an app or a passkey otherwise. False: it was called so before."""
    row = Authenticator.objects.select_for_update().get(pk=factor.pk)
    held = str(row.data.get("name", ""))
    if held == name:
        return False
    row.data["name"] = name
    row.save(update_fields=["data"])
    before, after = {"kind": row.type, "name": held}, {"kind": row.type, "name": name}
    audit.record(verb="person.second_factor_renamed", target=f"person {row.user}", before=before, after=after, **by)
    return True
