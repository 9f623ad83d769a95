"""The verbs of webhooks: each is one transaction with one audit event. A secret is returned once, by what made it.

Addresses often hold a secret of their receiver's in their path: the audit trail is told their host alone.
"""

from datetime import timedelta
from typing import Any, Final, Unpack
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from accounts import audit
from accounts.audit import MASK
from accounts.models import Tenant
from gateway.config import encryption
from portal.alerts import outgoing, pace, signing
from portal.alerts.models import Delivery, Webhook

OVERLAPS_H: Final = (0, 1, 24, 168)


@transaction.atomic
def create(holder: Tenant | None, name: str, url: str, **by: Unpack[audit.By]) -> tuple[Webhook, str]:
    """Raises ValidationError."""
    secret = signing.new_secret()
    webhook = Webhook(tenant=holder, name=name, url=url, secret_ciphertext=encryption.encrypt(secret))
    _checked(webhook)
    webhook.save(force_insert=True)
    _record("webhook.created", webhook, by, after={"url": masked(url), "secret": MASK})
    return webhook, secret


@transaction.atomic
def change(webhook: Webhook, *, name: str, url: str, is_active: bool, **by: Unpack[audit.By]) -> bool:
    """False: it was so already. Raises ValidationError."""
    row = _locked(webhook)
    wanted: dict[str, Any] = {"name": name, "url": url, "is_active": is_active}
    changed = {field: value for field, value in wanted.items() if getattr(row, field) != value}
    if not changed:
        return False
    before = {field: getattr(row, field) for field in changed}
    for field, value in changed.items():
        setattr(row, field, value)
    _checked(row)
    row.save(update_fields=list(changed))
    _record("webhook.changed", row, by, before=_told(before), after=_told(changed))
    return True


@transaction.atomic
def rotate(webhook: Webhook, overlap: timedelta, **by: Unpack[audit.By]) -> str:
    """A new secret; the one before signs beside it until `overlap` is over. One still older signs no more."""
    row = _locked(webhook)
    secret = signing.new_secret()
    row.old_secret_ciphertext, row.old_until = row.secret_ciphertext, timezone.now() + overlap
    if not overlap:
        row.old_secret_ciphertext, row.old_until = "", None
    row.secret_ciphertext = encryption.encrypt(secret)
    row.save(update_fields=["secret_ciphertext", "old_secret_ciphertext", "old_until"])
    _record("webhook.secret_rotated", row, by, after={"secret": MASK, "overlap_h": int(overlap.total_seconds() // 3600)})
    return secret


@transaction.atomic
def test(webhook: Webhook, **by: Unpack[audit.By]) -> Delivery:
    """Put a test into the outbox; the worker sends it within seconds."""
    row, now = _locked(webhook), timezone.now()
    sent = Delivery.objects.create(
        tenant=row.tenant, webhook=row, created_at=now, next_at=now, give_up_at=now + timedelta(minutes=5)
    )
    _record("webhook.tested", row, by)
    return sent


@transaction.atomic
def resend(delivery: Delivery, **by: Unpack[audit.By]) -> bool:
    """Once more, and for another day where it fails. False: it is on its way."""
    rows = Delivery.objects.select_for_update(of=("self",)).select_related("tenant", "webhook", "user")
    row = rows.get(pk=delivery.pk)
    if row.state == Delivery.State.WAITING:
        return False
    now = timezone.now()
    row.state, row.next_at, row.give_up_at, row.ended_at = Delivery.State.WAITING, now, now + pace.LIFETIME, None
    row.save(update_fields=["state", "next_at", "give_up_at", "ended_at"])
    to = f"webhook {row.webhook}" if row.webhook else f"mail {row.user}"
    audit.record(verb="delivery.resent", target=to, tenant=row.tenant, after={"id": row.pk}, **by)
    return True


@transaction.atomic
def delete(webhook: Webhook, **by: Unpack[audit.By]) -> None:
    """With its deliveries."""
    row = _locked(webhook)
    _record("webhook.deleted", row, by, before={"url": masked(row.url)})
    row.delete()


def masked(url: str) -> str:
    """Scheme and host."""
    parts = urlsplit(url)
    rest = f"/{MASK}" if parts.path.strip("/") or parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{rest}"


def reach_of(holder: Tenant | None) -> outgoing.Reach:
    return outgoing.reach_of_operators() if holder is None else outgoing.reach_of_tenants()


def _checked(webhook: Webhook) -> None:
    try:
        outgoing.check(webhook.url, reach_of(webhook.tenant))
    except ValueError as error:
        raise ValidationError({"url": str(error)}) from error
    except outgoing.AddressRefused:
        raise ValidationError({"url": outgoing.told_refused()}) from None
    webhook.full_clean(exclude=["secret_ciphertext", "old_secret_ciphertext"])


def _told(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: masked(value) if name == "url" else value for name, value in facts.items()}


def _locked(webhook: Webhook) -> Webhook:
    return Webhook.objects.select_for_update(of=("self",)).select_related("tenant").get(pk=webhook.pk)


def _record(verb: str, webhook: Webhook, by: audit.By, *, before: object = None, after: object = None) -> None:
    audit.record(verb=verb, target=f"webhook {webhook.name}", tenant=webhook.tenant, before=before, after=after, **by)
