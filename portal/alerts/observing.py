"""What rules find at one moment: counters of limits, rollups, ends of keys, verdicts on backends. Never reads a record.

Every function answers with what is over a threshold now, by rule. None: nobody can tell, so nothing begins and nothing ends.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db.models import Q

from accounts.models import ApiKey, Tenant
from gateway import presence
from gateway.models import Backend, Limit
from portal import backend_state
from portal.alerts import kinds
from portal.alerts.models import AlertRule
from portal.standing import Standing, standings_of
from usage.lag import journal_lag
from usage.limits import PERIODIC, period
from usage.store import RedisError, connect
from usage.traffic import Calls, Refused, calls_since, refused_since

Found = dict[UUID, "list[Observed] | None"]  # by rule

REFUSED_FOR: Final = timedelta(minutes=2)
# Calls rarely fit a limit to its last token. Where it is used this far and calls are refused for a limit, it is used up.
NEARLY_ALL: Final = 0.9


@dataclass(frozen=True, slots=True)
class Observed:
    """threshold: the worst one that is reached. window "": an episode, which ends when it is well again."""

    subject: str
    threshold: int
    window: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def observe(rules: Sequence[AlertRule], now: datetime) -> Found:
    """All rules at once. rules: with their tenants."""
    by_kind: dict[str, list[AlertRule]] = defaultdict(list)
    for rule in rules:
        by_kind[rule.kind].append(rule)
    found: Found = {}
    for kind, asked in by_kind.items():
        found |= _OBSERVERS[kind](asked, now)
    return found


def limits(rules: Sequence[AlertRule], now: datetime) -> Found:
    tenants = {rule.tenant_id: rule.tenant for rule in rules if rule.tenant is not None}
    rows = _limits_of([tenant.pk for tenant in tenants.values()], now)
    holders = [(tenant, rows[tenant.pk]) for tenant in tenants.values()]
    told = dict(zip(tenants, standings_of(holders), strict=True))
    refused = refused_since([tenant.pk for tenant in tenants.values()], now - REFUSED_FOR)
    return {rule.pk: _over(rule, told[rule.tenant_id], refused) for rule in rules}


def keys(rules: Sequence[AlertRule], now: datetime) -> Found:
    """A key that lived no longer than that from the beginning is not told of: who made it knows. Nor is a playground's."""
    soon = now + timedelta(days=max(max(rule.thresholds) for rule in rules))
    lasting = ApiKey.objects.filter(tenant__in=[rule.tenant_id for rule in rules], revoked_at=None, successor=None)
    ending = lasting.filter(is_playground=False, expires_at__gt=now, expires_at__lte=soon)
    by_tenant: dict[UUID | None, list[ApiKey]] = defaultdict(list)
    for key in ending.order_by("expires_at"):
        by_tenant[key.tenant_id].append(key)
    return {
        rule.pk: [one for key in by_tenant[rule.tenant_id] if (one := _ending(rule, key, now)) is not None] for rule in rules
    }


def error_rates(rules: Sequence[AlertRule], now: datetime) -> Found:
    everyone = list(Tenant.objects.values_list("pk", flat=True)) if any(rule.tenant_id is None for rule in rules) else []
    found: Found = {}
    for minutes in {rule.minutes for rule in rules}:
        asked = [rule for rule in rules if rule.minutes == minutes]
        tenants = everyone or [rule.tenant_id for rule in asked if rule.tenant_id is not None]
        # Rollups are of whole minutes: the one that is cut by the beginning counts whole.
        since = (now - timedelta(minutes=minutes)).replace(second=0, microsecond=0)
        told = calls_since(tenants, since)
        of_all = Calls(sum(one.requests for one in told.values()), sum(one.errors for one in told.values()))
        for rule in asked:
            calls = of_all if rule.tenant_id is None else told.get(rule.tenant_id, Calls())
            found[rule.pk] = list(_failing(rule, calls))
    return found


def backends(rules: Sequence[AlertRule], now: datetime) -> Found:
    seen = backend_state.seen()
    if seen is None or not seen.workers:
        return {rule.pk: None for rule in rules}
    out = []
    for row in Backend.objects.filter(is_draining=False):
        known = seen.known.get(row.name)
        if known is not None and known.ejected is not None:
            out.append((row.name, known.ejected, max(0.0, seen.now_s - known.ejected.at_s)))
    return {
        rule.pk: [
            Observed(
                f"backend:{name}",
                threshold,
                facts={"backend": name, "since_s": round(ejected.at_s), "reason": ejected.text},
            )
            for name, ejected, out_s in out
            if (threshold := _kind(rule).crossed(rule.thresholds, out_s / 60)) is not None
        ]
        for rule in rules
    }


def journal(rules: Sequence[AlertRule], now: datetime) -> Found:
    try:
        with connect(settings.REDIS_URL, max_connections=1) as client:
            lag = journal_lag(client, now_s=now.timestamp())
    except RedisError:
        return {rule.pk: None for rule in rules}
    facts = {"entries": lag.entries, "oldest_s": round(lag.oldest_s)}
    return {
        rule.pk: [
            Observed("journal", threshold, facts=facts)
            for threshold in [_kind(rule).crossed(rule.thresholds, lag.oldest_s)]
            if threshold is not None
        ]
        for rule in rules
    }


def gateway(rules: Sequence[AlertRule], now: datetime) -> Found:
    """Of a gateway that was never started nobody waits for a word."""
    try:
        with connect(settings.REDIS_URL, max_connections=1) as client:
            told = presence.told_s(client)
    except RedisError:
        told = None
    if told is None:
        return {rule.pk: None for rule in rules}
    now_s, told_s = told
    return {
        rule.pk: [
            Observed("gateway", threshold, facts={"since_s": round(told_s)})
            for threshold in [_kind(rule).crossed(rule.thresholds, (now_s - told_s) / 60)]
            if threshold is not None
        ]
        for rule in rules
    }


_OBSERVERS: Final = {
    kinds.LIMIT: limits,
    kinds.KEY_EXPIRY: keys,
    kinds.ERROR_RATE: error_rates,
    kinds.BACKEND_DOWN: backends,
    kinds.JOURNAL_LAG: journal,
    kinds.GATEWAY_SILENT: gateway,
}


def _kind(rule: AlertRule) -> kinds.Kind:
    return kinds.KINDS[rule.kind]


def _limits_of(tenant_ids: list[UUID], now: datetime) -> dict[UUID, list[Limit]]:
    """Those of the tenants, their aliases, and their keys that work."""
    usable = Q(key__tenant__in=tenant_ids, key__revoked_at=None) & (Q(key__expires_at=None) | Q(key__expires_at__gt=now))
    whose = Q(tenant__in=tenant_ids) | Q(alias__tenant__in=tenant_ids) | usable
    rows: dict[UUID, list[Limit]] = {tenant_id: [] for tenant_id in tenant_ids}
    for row in Limit.objects.filter(whose).select_related("alias", "key").order_by("pk"):
        rows[row.tenant_id or (row.alias or row.key).tenant_id].append(row)  # type: ignore[union-attr] # a limit has one subject
    return rows


def _over(rule: AlertRule, told: Iterable[Standing], refused: set[Refused]) -> list[Observed] | None:
    """None where the state of one of them is not known: all of them are of one tenant, and so of one place in Redis."""
    watched = [one for one in told if not rule.limits or one.row.name in rule.limits]
    if any(one.state is None for one in watched):
        return None
    return [found for one in watched if (found := _over_one(rule, one, refused)) is not None]


def _over_one(rule: AlertRule, one: Standing, refused: set[Refused]) -> Observed | None:
    row, state, tenant = one.row, one.state, rule.tenant
    if state is None or tenant is None:
        return None
    # What calls in flight have reserved mostly comes back; slots in use are reserved by their nature.
    used = state.reserved if row.name == "concurrent_requests" else state.used
    is_refusing = row.mode == "enforce" and used >= row.max * NEARLY_ALL and _is_refused(row, tenant, refused)
    percent = used * 100 // row.max
    threshold = _kind(rule).crossed(rule.thresholds, 100 if is_refusing else percent)
    if threshold is None:
        return None
    window = ""
    if row.name in PERIODIC:
        # A limit that is raised is armed anew.
        window = f"{period(row.name, time.time(), tenant.time_zone)[0]}/{row.max}"
    facts = {
        "limit": row.name,
        "of": row.subject,
        "of_id": str(row.key_id or row.alias_id or tenant.pk),
        "of_name": row.key.name if row.key else row.alias.name if row.alias else tenant.name,
        "used": used,
        "max": row.max,
        "percent": percent,
        "mode": row.mode,
        "is_refusing": is_refusing or (row.mode == "enforce" and used >= row.max),
        "resets_s": round(one.resets_at.timestamp()) if one.resets_at else None,
    }
    return Observed(f"limit:{row.pk}", threshold, window, facts)


def _is_refused(row: Limit, tenant: Tenant, refused: set[Refused]) -> bool:
    for one in refused:
        if one.tenant_id == tenant.pk and (
            row.tenant_id is not None or row.key_id == one.key_id or (row.alias is not None and row.alias.name == one.alias)
        ):
            return True
    return False


def _ending(rule: AlertRule, key: ApiKey, now: datetime) -> Observed | None:
    if key.expires_at is None:
        return None
    told = [days for days in rule.thresholds if key.created_at <= key.expires_at - timedelta(days=days)]
    threshold = _kind(rule).crossed(told, (key.expires_at - now) / timedelta(days=1))
    if threshold is None:
        return None
    facts = {
        "key_id": str(key.pk),
        "key": key.name,
        "hint": key.hint,
        "ends_s": round(key.expires_at.timestamp()),
        "used_s": round(key.last_used_at.timestamp()) if key.last_used_at else None,
        "owner_id": str(key.created_by_id) if key.created_by_id else None,
    }
    return Observed(f"key:{key.pk}", threshold, key.expires_at.isoformat(timespec="seconds"), facts)


def _failing(rule: AlertRule, calls: Calls) -> Iterator[Observed]:
    if calls.requests < rule.least_calls:
        return
    percent = calls.errors * 100 / calls.requests
    threshold = _kind(rule).crossed(rule.thresholds, percent)
    if threshold is not None:
        facts = {
            "errors": calls.errors,
            "requests": calls.requests,
            "percent": round(percent, 1),
            "minutes": rule.minutes,
        }
        yield Observed("errors", threshold, facts=facts)
