"""Counters of limits, brought back after Redis was emptied: from the ledger and what was still on the journal."""

import time
from typing import cast

import redis
from django.conf import settings

from accounts.models import ApiKey, Tenant
from gateway.models import Limit, ModelAlias
from usage import limits as usage_limits
from usage.counters import quota_counters
from usage.limits import BoundLimit, Mode
from usage.models import UsageRecord
from usage.partitions import PARTITIONS, partition
from usage.posting import drain_journal
from usage.quota import Quota
from usage.settling import is_resending
from usage.store import connect

TRIES = 5  # PostgreSQL may take longer than the journal stands still
YOUNG_S = 3  # a server: by then every gateway worker has found it, and has begun to send again what was not posted yet


def restore_counters() -> int:
    """Restore every partition that is not alive; how many were. Until then calls with limits there are refused or degraded.

    None while gateway workers are sending again what Redis has lost: it is not in the ledger yet. Raises StoreUnavailable.
    """
    with connect(settings.REDIS_URL, max_connections=2, timeout_s=5) as client:
        quota = Quota(client)
        dead = [number for number in range(PARTITIONS) if not quota.is_alive(number)]
        if not dead or _is_incomplete(client):
            return 0
        drain_journal()  # the most of it, while calls may still end
        return sum(_restore(quota, number) for number in dead)


def _is_incomplete(client: redis.Redis) -> bool:
    """May workers hold events that neither the ledger nor the journal has? On the first day there are none."""
    is_young = int(client.info("server")["uptime_in_seconds"]) < YOUNG_S
    return is_resending(client) or (is_young and UsageRecord.objects.exists())


def _restore(quota: Quota, number: int) -> bool:
    tenants = [tenant for tenant in Tenant.objects.all() if partition(str(tenant.id)) == number]
    limited = [(tenant, bound) for tenant in tenants if (bound := bound_limits(tenant))]
    for _ in range(TRIES):
        quota.begin_counting(number)
        journal_end = quota.journal_end(number)
        if limited:
            drain_journal([number])
        now_s = time.time()
        for tenant, bound in limited:
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
