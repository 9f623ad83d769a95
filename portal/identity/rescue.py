"""For somebody who cannot get in any more: a link for a new password, and the second factor taken off."""

from typing import Unpack

from allauth.account.utils import user_pk_to_url_str
from allauth.mfa.models import Authenticator
from django.contrib.auth.tokens import default_token_generator
from django.db import transaction
from django.urls import reverse

from accounts import audit
from accounts.models import User


def path_for_new_password(user: User) -> str:
    """Works once, for PASSWORD_RESET_TIMEOUT: its token covers the password that it replaces."""
    key = default_token_generator.make_token(user)
    return reverse("account_reset_password_from_key", kwargs={"uidb36": user_pk_to_url_str(user), "key": key})


@transaction.atomic
def hand_out_link(user: User, **by: Unpack[audit.By]) -> str:
    audit.record(verb="person.link_made", target=f"person {user}", **by)
    return path_for_new_password(user)


@transaction.atomic
def remove_second_factor(user: User, **by: Unpack[audit.By]) -> bool:
    """App, passkeys and recovery codes, so that the password alone opens the account. False where there is none."""
    rows = Authenticator.objects.filter(user=user)
    kinds = sorted(set(rows.values_list("type", flat=True)))
    if not kinds:
        return False
    rows._raw_delete(rows.db)  # noqa: SLF001 - without the signals of single rows: this is one act, with one event
    audit.record(verb="person.second_factor_removed", target=f"person {user}", before={"kinds": kinds}, **by)
    return True
