"""The verb of limits: other ones for a tenant, a key or an alias, in one transaction with one audit event.

A key that is made or revised together with its limits leaves one event too, which tells of both.
"""

from collections.abc import Iterable
from typing import Any, Unpack

from django.db import transaction

from accounts import audit, issuing
from accounts.issuing import Terms
from accounts.models import ApiKey, Tenant
from gateway.config.limits import differences
from gateway.models import Limit, ModelAlias, PlannedTenant, QuotaPlan
from usage import limits

Holder = Tenant | ApiKey | ModelAlias


@transaction.atomic
def change(holder: Holder, wanted: Iterable[limits.Limit], **by: Unpack[audit.By]) -> bool:
    """Make `wanted` the limits of `holder`, and all of them, for the calls that begin from now on. False: they were.

    A tenant that is on a plan is taken off it: the limits are its own from then on.
    """
    tenant = holder if isinstance(holder, Tenant) else holder.tenant
    planned = _locked(tenant) if isinstance(holder, Tenant) else None
    asked = list(wanted)
    before, after = told(holder, asked)
    if not after:
        return False
    Limit.replace_all(holder, asked)
    if planned is not None:
        before, after = {**before, "plan": planned.plan.name}, {**after, "plan": None}
    kind, name = _named(holder)
    audit.record(verb=f"{kind}.changed", target=f"{kind} {name}", tenant=tenant, before=before, after=after, **by)
    return True


@transaction.atomic
def issue_key(tenant: Tenant, terms: Terms, wanted: Iterable[limits.Limit], **by: Unpack[audit.By]) -> tuple[ApiKey, str]:
    """issuing.issue(), with limits: no call is served without them. Raises IssuingError."""
    asked = list(wanted)
    key, text = issuing.issue(tenant, terms, more=said(asked), **by)
    Limit.replace_all(key, asked)
    return key, text


@transaction.atomic
def revise_key(key: ApiKey, terms: Terms, wanted: Iterable[limits.Limit], **by: Unpack[audit.By]) -> bool:
    """issuing.revise(), with limits. Raises IssuingError."""
    asked = list(wanted)
    before, after = told(key, asked)
    is_changed = issuing.revise(key, terms, before=before, after=after, **by)
    if after:
        Limit.replace_all(key, asked)
    return is_changed


def said(wanted: Iterable[limits.Limit]) -> dict[str, Any]:
    """Limits where there were none, as the audit trail tells them."""
    return {f"limits.{name}": now for name, _, now in differences((), wanted)}


def told(holder: Holder | QuotaPlan, wanted: Iterable[limits.Limit]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What changes with `wanted`, as the audit trail tells it: before and after. Both empty: nothing."""
    changed = list(differences((row.configured for row in holder.limits.all()), wanted))
    return {f"limits.{name}": was for name, was, _ in changed}, {f"limits.{name}": now for name, _, now in changed}


def _locked(tenant: Tenant) -> PlannedTenant | None:
    """The tenant held against who changes its limits too, and so is its place on a plan."""
    Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
    return PlannedTenant.objects.select_for_update(of=("self",)).select_related("plan").filter(tenant=tenant).first()


def _named(holder: Holder) -> tuple[str, str]:
    if isinstance(holder, Tenant):
        return "tenant", holder.slug
    if isinstance(holder, ApiKey):
        return "key", str(holder)
    return "alias", f"{holder.tenant.slug}/{holder.name}"
