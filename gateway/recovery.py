"""Counters of limits, brought back after Redis was emptied: from the ledger and what was still on the journal."""

import time
from typing import cast

from django.conf import settings

from accounts.models import ApiKey, Tenant
from gateway.models import Limit, ModelAlias
from usage import limits as usage_limits
from usage.counters import quota_counters
from usage.limits import BoundLimit, Mode
from usage.partitions import PARTITIONS, partition
from usage.posting import drain_journal
from usage.quota import Quota
from usage.store import connect

TRIES = 5  # calls without limits go on meanwhile, and each may put an event on the journal between reading and marking


def restore_counters() -> int:
    """Restore every partition that is not alive; how many were. Until then calls with limits there are refused or degraded.

    Raises StoreUnavailable.
    """
    with connect(settings.REDIS_URL, max_connections=2, timeout_s=5) as client:
        quota = Quota(client)
        dead = [number for number in range(PARTITIONS) if not quota.is_alive(number)]
        return sum(_restore(quota, number) for number in dead)


def _restore(quota: Quota, number: int) -> bool:
    tenants = [tenant for tenant in Tenant.objects.all() if partition(str(tenant.id)) == number]
    for _ in range(TRIES):
        journal_end = quota.journal_end(number)
        drain_journal()
        now_s = time.time()
        for tenant in tenants:
            if bound := bound_limits(tenant):
                counters = quota_counters(str(tenant.id), tenant.time_zone, bound, now_s=now_s)
                quota.restore(str(tenant.id), counters, time_zone=tenant.time_zone, now_s=now_s)
        if quota.mark_alive(number, journal_end=journal_end, now_s=now_s):
            return True
    return False


def bound_limits(tenant: Tenant) -> tuple[BoundLimit, ...]:
    """Every limit of a tenant, of its keys and of its aliases."""
    rows = Limit.objects.for_tenant(tenant).select_related("key", "alias")
    return tuple(
        BoundLimit(*_subject(row, tenant), usage_limits.Limit(row.name, row.max, cast("Mode", row.mode), row.clamps))
        for row in rows
    )


def _subject(row: Limit, tenant: Tenant) -> tuple[str, str]:
    match row.key, row.alias:
        case ApiKey() as key, _:
            return "key", str(key.id)
        case _, ModelAlias() as alias:
            return "alias", alias.name
    return "tenant", str(tenant.id)
