"""The key with which the portal calls the gateway for one person of a tenant: short-lived, and shown to nobody.

One row a person and tenant, so that all they try there stands under one key in the ledger; its text is made anew each time.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Unpack
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from accounts import audit, issuing, keys
from accounts.models import ApiKey, Membership, Tenant, User
from accounts.roles import ALLOWED, Action
from accounts.scopes import CHAT

LIFE: Final = timedelta(minutes=30)
IDLE: Final = timedelta(days=7)
NAME_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Renewed:
    """text: returned this once. replaced: the lookup id that opens nothing any more; None: there was none."""

    key: ApiKey
    text: str
    replaced: str | None


def find(tenant: Tenant, person: User) -> ApiKey | None:
    """The person's own of this tenant, however old its text is."""
    return ApiKey.objects.for_tenant(tenant).filter(is_playground=True, created_by=person, revoked_at=None).first()


@transaction.atomic
def renew(tenant: Tenant, person: User, **by: Unpack[audit.By]) -> Renewed:
    """Give the person's key a new text and LIFE from now. The first time a day is an audit event: what they try is told
    by the ledger, call by call. Raises IssuingError for a tenant that is suspended.

    The caller holds lock(): two at once would end each other's text.
    """
    now = timezone.now()
    text = keys.mint()
    row = find(tenant, person)
    if row is None:
        terms = issuing.Terms(name_of(person), scopes=(CHAT,), expires_at=now + LIFE)
        return Renewed(issuing.issue_for_playground(tenant, terms, text, **by), text, None)
    issuing.refuse_suspended(tenant)
    replaced, before = row.lookup_id, row.expires_at
    pepper = keys.peppers(settings.KEY_PEPPERS)[0]
    row.lookup_id, row.hint = keys.lookup_id(text, pepper), keys.hint(text)
    row.pepper_id, row.digest = pepper.id, keys.digest(text, pepper)
    row.expires_at, row.name = now + LIFE, name_of(person)
    row.save(update_fields=["lookup_id", "hint", "pepper_id", "digest", "expires_at", "name"])
    if before is None or not _is_same_day(before - LIFE, now, tenant):
        issuing.record_played(row, by)
    return Renewed(row, text, replaced)


def lock(person: User) -> None:
    """Until the end of the transaction nobody else renews a key of this person's."""
    User.objects.select_for_update(no_key=True).get(pk=person.pk)


def end_unused(now: datetime) -> int:
    """Revoke those that nobody used for IDLE, or whose person may not use the playground any more. How many it were."""
    allowed = [role for role, actions in ALLOWED.items() if Action.USE_PLAYGROUND in actions]
    members = Membership.objects.filter(tenant=OuterRef("tenant"), user=OuterRef("created_by"), role__in=allowed)
    may = Q(created_by__is_operator=True) | Exists(members)
    kept = Q(expires_at__gt=now - IDLE) & Q(created_by__is_active=True) & may
    own = ApiKey.objects.filter(is_playground=True, revoked_at=None)
    rows = own.exclude(pk__in=own.filter(kept).values("pk"))
    return sum(issuing.revoke(key, actor=None, actor_label="playground") for key in rows.select_related("tenant"))


def name_of(person: User) -> str:
    """Of the key, and so of its calls in the ledger."""
    return f"Playground: {person.email}"[:NAME_MAX]


def _is_same_day(one: datetime, other: datetime, tenant: Tenant) -> bool:
    zone = ZoneInfo(tenant.time_zone)
    return one.astimezone(zone).date() == other.astimezone(zone).date()
