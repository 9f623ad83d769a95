"""The verbs of quota plans: each is one transaction with one audit event.

A plan's limits are copied to the tenants on it, so that gateways, reports and the file know of tenants' limits alone.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Unpack
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.utils.translation import gettext as _

from accounts import audit
from accounts.models import Tenant
from gateway.config import publish
from gateway.config.limit_changes import told
from gateway.models import Limit, PlannedTenant, QuotaPlan
from usage import limits

_REMOVE_OTHERS = "DELETE FROM gateway_limit WHERE tenant_id = ANY(%s) AND NOT name = ANY(%s)"


class PlanError(Exception):
    """What was asked for cannot be. field: the argument at fault; message: for people, in their language."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


@transaction.atomic
def create(name: str, wanted: Sequence[limits.Limit], **by: Unpack[audit.By]) -> QuotaPlan:
    """Raises PlanError."""
    plan = _checked(QuotaPlan(name=name))
    plan.save(force_insert=True)
    facts = told(plan, wanted)[1]
    Limit.replace_all(plan, wanted)
    _record("plan.created", plan, after=facts, **by)
    return plan


@transaction.atomic
def revise(plan: QuotaPlan, name: str, wanted: Sequence[limits.Limit], **by: Unpack[audit.By]) -> bool:
    """Give the plan, and every tenant on it, other limits. False when nothing changes. Raises PlanError."""
    row = QuotaPlan.objects.select_for_update(no_key=True).get(pk=plan.pk)
    before, after = told(row, wanted)
    on_it: list[UUID] = []
    if after:
        rows = PlannedTenant.objects.select_for_update().filter(plan=row).order_by("tenant")
        on_it = list(rows.values_list("tenant_id", flat=True))
        Limit.replace_all(row, wanted)
        _copy(wanted, on_it)
        after["tenants"] = len(on_it)
    if row.name != name:
        before["name"], after["name"] = row.name, name
        row.name = name
        _checked(row).save(update_fields=["name"])
    plan.refresh_from_db()
    if not after:
        return False
    _record("plan.changed", plan, before=before, after=after, **by)
    return True


@transaction.atomic
def put(tenant: Tenant, plan: QuotaPlan | None, **by: Unpack[audit.By]) -> bool:
    """Put `tenant` on `plan`: its limits are the plan's then. None: off its plan, the limits stay. False: it was so before."""
    if plan is not None:
        QuotaPlan.objects.select_for_update(no_key=True).get(pk=plan.pk)
    Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
    held = PlannedTenant.objects.select_for_update(of=("self",)).select_related("plan").filter(tenant=tenant).first()
    if (held.plan if held else None) == plan:
        return False
    before, after = enlist(tenant, plan)
    names = {"plan": held.plan.name if held else None}, {"plan": plan.name if plan else None}
    target = f"tenant {tenant.slug}"
    audit.record(verb="tenant.changed", target=target, tenant=tenant, before=names[0] | before, after=names[1] | after, **by)
    return True


def enlist(tenant: Tenant, plan: QuotaPlan | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rows of put(), in the caller's transaction and told by its audit event: what changes, before and after."""
    if plan is None:
        PlannedTenant.objects.filter(tenant=tenant).delete()
        return {}, {}
    wanted = [row.configured for row in plan.limits.all()]
    changed = told(tenant, wanted)
    Limit.replace_all(tenant, wanted)
    PlannedTenant.objects.update_or_create(tenant=tenant, defaults={"plan": plan})
    return changed


@transaction.atomic
def delete(plan: QuotaPlan, **by: Unpack[audit.By]) -> None:
    """Raises PlanError while a tenant is on it."""
    row = QuotaPlan.objects.select_for_update().get(pk=plan.pk)
    if row.tenants.exists():
        raise PlanError("name", _("Tenants are on this plan: put them on another one first."))
    _record("plan.deleted", row, before=told(row, ())[0], **by)
    row.delete()


def _copy(wanted: Sequence[limits.Limit], tenants: Sequence[UUID]) -> None:
    """In a few statements however many they are; past the signals, so what publishes them is noted here."""
    rows = [Limit(tenant_id=tenant_id, **asdict(limit)) for tenant_id in tenants for limit in wanted]
    Limit.objects.bulk_create(
        rows, batch_size=1000, update_conflicts=True, unique_fields=["tenant", "name"], update_fields=["max", "mode", "clamps"]
    )
    with connection.cursor() as cursor:
        cursor.execute(_REMOVE_OTHERS, [list(tenants), [limit.name for limit in wanted]])
    publish.note_tenants(str(tenant_id) for tenant_id in tenants)


def _checked(plan: QuotaPlan) -> QuotaPlan:
    try:
        plan.full_clean()
    except ValidationError as error:
        raise PlanError("name", " ".join(message for said in error.message_dict.values() for message in said)) from error
    return plan


def _record(verb: str, plan: QuotaPlan, *, before: object = None, after: object = None, **by: Unpack[audit.By]) -> None:
    audit.record(verb=verb, target=f"plan {plan.name}", before=before, after=after, **by)
