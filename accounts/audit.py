"""The audit trail: record() appends to a chain of hashes, walk() and verify() check it. Nothing else writes the table.

The digest covers all of an event but its two foreign keys: they become NULL when the user or the tenant is deleted, and
the labels beside them stay.
"""

import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from hashlib import sha256
from ipaddress import ip_address
from typing import Any, Final, NotRequired, TypedDict, Unpack

from django.conf import settings
from django.core.exceptions import BadRequest
from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.db.transaction import TransactionManagementError
from django.utils import timezone

from accounts.keys import PATTERN
from accounts.models import AuditEvent, Tenant, User

MASK: Final = "***"  # what a caller writes in place of a secret
VERIFIED: Final = "audit.verified"
TARGET_MOST: Final = 200  # characters, as the column has it: nobody is kept from acting by a long name
_WALKED_AT_ONCE: Final = 1_000
_LOCK: Final = 0x5365_6B69_7368_6F01  # any number, the same in every process: "Sekisho", 1
_SECRET_NAME: Final = re.compile(r"secret|credential|password|(?:^|_)text(?:$|_)", re.IGNORECASE)


class HoldsKey(BadRequest, ValueError):
    """A text that people wrote holds an API key, which the trail would keep for good. A page answers it with 400."""


class By(TypedDict):
    """Who acts, and through which request. actor None: a command or the system, which names itself in actor_label."""

    actor: User | None
    actor_label: NotRequired[str]
    address: NotRequired[str | None]
    request_id: NotRequired[str]


def record(
    *, verb: str, target: str, tenant: Tenant | None = None, before: object = None, after: object = None, **by: Unpack[By]
) -> AuditEvent:
    """Append one event inside the caller's transaction: it stands if and only if the act does.

    before, after: JSON, or None; secrets are masked by the caller. Raises ValueError for what looks like an unmasked one,
    HoldsKey for an API key, and TransactionManagementError outside a transaction. Call it last: from here to the commit all
    other writers wait.
    """
    actor, label = by["actor"], by.get("actor_label", "")
    if actor is None and not label:
        raise ValueError("An audit event needs an actor, or an actor_label.")
    _refuse_secrets({"target": target, "before": before, "after": after})
    connection = transaction.get_connection()
    if not connection.in_atomic_block:
        raise TransactionManagementError("An audit event belongs into the transaction of what it tells of.")
    with connection.cursor() as cursor:  # a statement of its own, so that the next one sees what the last writer committed
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    last = AuditEvent.objects.order_by("-sequence").first()
    event = AuditEvent(
        sequence=last.sequence + 1 if last else 1,
        created_at=timezone.now(),
        actor=actor,
        actor_label=label or str(actor),
        tenant=tenant,
        tenant_slug=tenant.slug if tenant else "",
        verb=verb,
        target=target[:TARGET_MOST],
        before=_storable(before),
        after=_storable(after),
        address=by.get("address") or None,
        request_id=by.get("request_id", ""),
    )
    event.digest = _digest(event, last.digest if last else "")
    event.save(force_insert=True)
    return event


@dataclass(frozen=True, slots=True)
class Chain:
    """What a walk along the chain found. up_to: the last event that is as it was written; 0: none is, or there is none.

    broken_at: the first place where the chain is broken; None: it is whole. is_missing: no event has that number.
    """

    up_to: int
    broken_at: int | None = None
    is_missing: bool = False


def walk() -> Chain:
    """Check every event, in order, a batch in memory at a time.

    Events cut off the end leave a whole chain: who must notice that keeps the last sequence and digest elsewhere.
    """
    previous, seen = "", 0
    while batch := list(AuditEvent.objects.filter(sequence__gt=seen).order_by("sequence")[:_WALKED_AT_ONCE]):
        for event in batch:
            expected = seen + 1
            if event.sequence != expected:
                return Chain(seen, expected, is_missing=True)
            if not hmac.compare_digest(event.digest, _digest(event, previous)):
                return Chain(seen, expected)
            previous, seen = event.digest, expected
    return Chain(seen)


def verify() -> int | None:
    """The first sequence number at which the chain is broken (changed, removed or out of order); None when it is whole."""
    return walk().broken_at


def verify_and_record(**by: Unpack[By]) -> Chain:
    """Walk, and append what was found as an event of its own: when the chain was whole, and up to where, stands in it."""
    found = walk()  # before the transaction: writers wait for nobody who reads
    after = {"up_to": found.up_to, "broken_at": found.broken_at, "missing": found.is_missing}
    with transaction.atomic():
        record(verb=VERIFIED, target="audit trail", after=after, **by)
    return found


def _digest(event: AuditEvent, previous: str) -> str:
    content = {
        "sequence": event.sequence,
        "created_at": event.created_at.astimezone(UTC).isoformat(timespec="microseconds"),
        "actor": event.actor_label,
        "tenant": event.tenant_slug,
        "verb": event.verb,
        "target": event.target,
        "before": event.before,
        "after": event.after,
        "address": str(ip_address(event.address)) if event.address else None,  # PostgreSQL spells some IPv6 otherwise
        "request_id": event.request_id,
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    key = hmac.digest(settings.SALT_KEY.encode(), b"audit", "sha256")
    return hmac.new(key, f"{previous}\n{canonical}".encode(), sha256).hexdigest()


def _storable(value: object) -> Any:
    """`value` as it comes back from jsonb. Fractions become text: jsonb spells numbers its own way (1e22, -0.0)."""
    return json.loads(json.dumps(value, cls=DjangoJSONEncoder), parse_float=str, parse_constant=str)


def _refuse_secrets(value: object, name: str = "") -> None:
    """A last guard against a caller that forgot to mask: names that tell of a secret, and texts that hold an API key."""
    if _SECRET_NAME.search(name) and value not in (None, "", MASK, True, False):
        raise ValueError(f"“{name}” looks like a secret: mask it before it is recorded.")
    if isinstance(value, str) and PATTERN.search(value):
        raise HoldsKey(f"“{name}” holds an API key: mask it before it is recorded.")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_secrets(item, str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_secrets(item, name)
