"""What people do to their own sign-in, in the audit trail: told by signals, because allauth's views do it.

Those that write rows run in the transaction that portal/views/account.py opens: the event stands if and only if the act does.
"""

from typing import Any

from allauth.account import signals
from allauth.core import context
from allauth.mfa.models import Authenticator
from axes.signals import user_locked_out
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver
from django.http import HttpRequest

from accounts import audit
from accounts.models import User
from portal.access import acting
from portal.identity import lockouts
from portal.identity.second_factor import FACTORS


@receiver([signals.password_changed, signals.password_set, signals.password_reset])
def password_changed(request: HttpRequest, user: User, **kwargs: Any) -> None:
    audit.record(verb="person.password_changed", target=f"person {user}", **acting(request, user))


@receiver(post_save, sender=Authenticator)
def factor_added(instance: Authenticator, created: bool, **kwargs: Any) -> None:
    if created and instance.type in FACTORS:  # recovery codes come along with the first of them
        _told("person.second_factor_added", instance)


@receiver(post_delete, sender=Authenticator)
def factor_removed(instance: Authenticator, **kwargs: Any) -> None:
    if instance.type in FACTORS:
        _told("person.second_factor_removed", instance)


@receiver(user_locked_out)
def locked_out(request: HttpRequest, username: str, ip_address: str, **kwargs: Any) -> None:
    """No event: strangers would fill the trail. The list in Redis is bounded."""
    lockouts.note(username or "", ip_address or "")


def _told(verb: str, factor: Authenticator) -> None:
    user = factor.user
    who: audit.By = acting(context.request, user) if context.request else {"actor": None, "actor_label": "command"}
    audit.record(verb=verb, target=f"person {user}", after={"kind": factor.type}, **who)
