"""The verbs of tenants that operators do: make one, change its terms, suspend, resume, delete, look at it as members do.

Each is one transaction with one audit event.
"""

from collections.abc import Mapping
from typing import Any, Final, Unpack

from django.core.exceptions import ValidationError
from django.db import transaction

from accounts import audit
from accounts.models import Tenant

REASON_LENGTH: Final = 300


class TenantError(Exception):
    """What was asked for cannot be. field: the argument at fault; message: for people, in their language."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


@transaction.atomic
def create(*, extra: dict[str, Any] | None = None, by: audit.By, **facts: Any) -> Tenant:
    """A tenant of these columns. extra: what the audit event tells besides. Raises TenantError."""
    tenant = Tenant(**facts)
    try:
        tenant.full_clean()
    except ValidationError as error:
        field, said = next(iter(error.message_dict.items()))
        raise TenantError(field, " ".join(said)) from error
    tenant.save(force_insert=True)
    audit.record(verb="tenant.created", target=f"tenant {tenant.slug}", tenant=tenant, after={**facts, **(extra or {})}, **by)
    return tenant


@transaction.atomic
def set_priority(tenant: Tenant, priority: int, **by: Unpack[audit.By]) -> bool:
    """False when it has it: nothing is written then."""
    held = _lock(tenant).priority
    if held == priority:
        return False
    tenant.priority = priority
    tenant.save(update_fields=["priority"])
    _record("tenant.changed", tenant, by, before={"priority": held}, after={"priority": priority})
    return True


@transaction.atomic
def suspend(tenant: Tenant, reason: str, **by: Unpack[audit.By]) -> bool:
    """Refuse its keys from now on; `reason` is told to its members. False when it was suspended for this reason before."""
    _lock(tenant)
    if not tenant.is_active and tenant.suspension_reason == reason:
        return False
    before = _state(tenant)
    tenant.is_active, tenant.suspension_reason = False, reason
    tenant.save(update_fields=["is_active", "suspension_reason"])
    _record("tenant.suspended", tenant, by, before=before, after=_state(tenant))
    return True


@transaction.atomic
def resume(tenant: Tenant, **by: Unpack[audit.By]) -> bool:
    """Let its keys work again. False when they do."""
    _lock(tenant)
    if tenant.is_active:
        return False
    before = _state(tenant)
    tenant.is_active, tenant.suspension_reason = True, ""
    tenant.save(update_fields=["is_active", "suspension_reason"])
    _record("tenant.resumed", tenant, by, before=before, after=_state(tenant))
    return True


@transaction.atomic
def begin_viewing(tenant: Tenant, **by: Unpack[audit.By]) -> None:
    """Note that an operator looks at the tenant's pages as its members do."""
    _record("tenant.viewing_begun", tenant, by)


@transaction.atomic
def end_viewing(tenant: Tenant, **by: Unpack[audit.By]) -> None:
    _record("tenant.viewing_ended", tenant, by)


@transaction.atomic
def delete(tenant: Tenant, *, gone: Mapping[str, int], **by: Unpack[audit.By]) -> None:
    """Take the tenant away for good, with its keys, aliases, limits, policies and members' roles; people stay.

    What was used stays in the ledger, and what was done in the audit trail, under the names they had. gone: how many of
    each go along, for the audit event. `tenant` has no row any more.
    """
    _lock(tenant)
    facts = {"name": tenant.name, "is_active": tenant.is_active, **gone}
    _record("tenant.deleted", tenant, by, before=facts)
    tenant.delete()


def _lock(tenant: Tenant) -> Tenant:
    """The row as it is now, and so `tenant`: of two at once, the second sees what the first has done."""
    tenant.refresh_from_db(from_queryset=Tenant.objects.select_for_update(no_key=True))
    return tenant


def _state(tenant: Tenant) -> dict[str, object]:
    return {"is_active": tenant.is_active, "suspension_reason": tenant.suspension_reason}


def _record(verb: str, tenant: Tenant, by: audit.By, *, before: object = None, after: object = None) -> None:
    audit.record(verb=verb, target=f"tenant {tenant.slug}", tenant=tenant, before=before, after=after, **by)
