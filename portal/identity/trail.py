"""Signing in and out, and what people do to their own sign-in, in the audit trail: told by signals, for allauth's views do it.

Those that write rows run in the transaction that portal/views/account.py opens: the event stands if and only if the act does.
What was typed is never told: a password is easily typed where the address belongs.
"""

from typing import Any, Final

from allauth.account import signals
from allauth.account.internal.flows.login import get_authentication_records
from allauth.core import context
from allauth.mfa import signals as mfa_signals
from allauth.mfa.models import Authenticator
from axes.signals import user_locked_out
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.core.cache import cache
from django.db import transaction
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver
from django.http import HttpRequest

from accounts import audit
from accounts.models import User
from portal.access import acting
from portal.identity import lockouts
from portal.identity.second_factor import FACTORS

FAILURES_TOLD: Final = 20
FAILURES_WITHIN_S: Final = 900
NOBODY: Final = "nobody signed in"
UNKNOWN: Final = "(no such account)"


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


@receiver(user_logged_in)
def signed_in(request: HttpRequest, user: User, **kwargs: Any) -> None:
    """by: password, provider and what else proved who it is; that of an invitation's link is none of allauth's."""
    if not request.META.get("REMOTE_ADDR"):
        return  # nobody came by a page
    records = get_authentication_records(request, user)
    methods = [str(record.get("type") or record.get("provider") or record["method"]) for record in records]
    with transaction.atomic():
        after = {"by": methods or ["invitation"]}
        audit.record(verb="person.signed_in", target=f"person {user}", after=after, **acting(request, user))


@receiver(user_logged_out)
def signed_out(request: HttpRequest, user: User | None, **kwargs: Any) -> None:
    if user is None or not request.META.get("REMOTE_ADDR"):
        return
    with transaction.atomic():
        audit.record(verb="person.signed_out", target=f"person {user}", **acting(request, user))


def password_refused(request: HttpRequest, email: str) -> None:
    """The attempt that locks the account out is told as that; those that it keeps off are not told."""
    if not getattr(request, "axes_locked_out", False):
        _failed(request, User.objects.filter(email=email.strip().lower()).first(), "password")


@receiver(mfa_signals.authentication_failed)
def code_refused(request: HttpRequest, user: User, **kwargs: Any) -> None:
    _failed(request, user, "second factor")


@receiver(user_locked_out)
def locked_out(request: HttpRequest, username: str, ip_address: str, **kwargs: Any) -> None:
    """Told once, where it begins."""
    if lockouts.note(username or "", ip_address or ""):
        _failed(request, User.objects.filter(email=username or "").first(), "password", verb="person.locked_out")


def _failed(request: HttpRequest, user: User | None, at: str, *, verb: str = "person.sign_in_failed") -> None:
    """An unknown account is told like a known one, so that neither answer comes later than the other.

    Of one client address only so many are told in a while: whoever guesses does not fill the trail.
    """
    told = f"sign-in-failures:{lockouts.address_of(request)}"
    cache.add(told, 0, FAILURES_WITHIN_S)
    if cache.incr(told) > FAILURES_TOLD:
        return
    who = acting(request, request.user if isinstance(request.user, User) else None)
    if who["actor"] is None:
        who["actor_label"] = NOBODY
    with transaction.atomic():
        audit.record(verb=verb, target=f"person {user or UNKNOWN}", after={"at": at}, **who)


def _told(verb: str, factor: Authenticator) -> None:
    user = factor.user
    who: audit.By = acting(context.request, user) if context.request else {"actor": None, "actor_label": "command"}
    audit.record(verb=verb, target=f"person {user}", after={"kind": factor.type}, **who)
