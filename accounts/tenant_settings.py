"""What a tenant decides about itself, and how that is changed: one transaction with its audit event."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Unpack

from django.db import transaction

from accounts import audit
from accounts.models import Tenant


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """As the columns of Tenant. What only operators decide (slug, state, priority) is not here."""

    name: str
    language: str
    time_zone: str
    error_dialect: str
    unknown_fields: str
    cors_origins: Sequence[str]
    usage_retention_days: int
    store_out: str


@transaction.atomic
def change(tenant: Tenant, settings: TenantSettings, **by: Unpack[audit.By]) -> bool:
    """Give `tenant` these settings. False when they are those it has: nothing is written then.

    `tenant` is brought up to date. Raises ValidationError, by column, for what the columns do not take.
    """
    row = Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
    wanted = asdict(settings)
    wanted["cors_origins"] = list(dict.fromkeys(settings.cors_origins))
    held = {name: getattr(row, name) for name in wanted}
    changed = {name: value for name, value in wanted.items() if value != held[name]}
    if changed:
        for name, value in changed.items():
            setattr(row, name, value)
        row.clean_fields()
        row.save(update_fields=list(changed))
        before = {name: held[name] for name in changed}
        audit.record(verb="tenant.changed", target=f"tenant {row}", tenant=row, before=before, after=changed, **by)
    tenant.refresh_from_db()
    return bool(changed)
