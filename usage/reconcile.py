"""Reconciliation: do the ledger, its rollups and Redis' counters say the same? A drift is logged and audited, not mended."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Final

from django.conf import settings
from django.db import connection, transaction

from accounts import audit
from accounts.models import Tenant
from usage import posting
from usage.counters import quota_counters
from usage.limits import BoundLimit
from usage.models import Reconciliation, ReportingZone
from usage.months import LEDGER
from usage.partitions import PARTITIONS
from usage.quota import CountersLost, Quota
from usage.retention import MINUTES_KEPT_DAYS
from usage.rollups import ALL_KEYS, DAY_KEYS, TABLES, zone_named
from usage.spans import Span, at, floor_s, next_s
from usage.store import connect
from usage.totals import SUMS

MONTHLY: Final = ("tokens_per_month", "money_per_month")
RUNS_KEPT: Final = 400
DRIFTS_AUDITED: Final = 50  # the log has them all

# As rollups.Totals counts, said a second time and in another language on purpose.
_OF_RECORDS: Final = """
    count(*) FILTER (WHERE part = 0),
    count(*) FILTER (WHERE part = 0 AND outcome IN ('failed', 'timeout', 'lost')),
    count(*) FILTER (WHERE part = 0 AND outcome = 'refused' AND error_code <> 'content_blocked'),
    count(*) FILTER (WHERE part = 0 AND error_code = 'content_blocked'),
    sum(prompt_tokens)::bigint, sum(cached_tokens)::bigint, sum(completion_tokens)::bigint, sum(cost_nano)::bigint
"""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Drift:
    """Two that should be equal. name: of the number.

    where: minute, hour, day (the rollup), the same with _all_keys behind it, day_key, or counter (Redis).
    """

    where: str
    tenant_id: str
    subject: str
    name: str
    ledger: int
    found: int


@dataclass(frozen=True, slots=True)
class Report:
    """day: of each tenant's own reporting zone. counters: how many of Redis' were compared."""

    day: date
    tenants: int
    counters: int
    drifts: tuple[Drift, ...]


def reconcile(day: date, *, now_s: float) -> Report:
    """Compare the ledger with each rollup for `day`, and with Redis' counters for the month of now_s; tell of drifts.

    Raises RedisError or StoreUnavailable when Redis is out; what the rollups showed has been told by then.
    """
    zones = {str(pk): name for pk, name in ReportingZone.objects.values_list("tenant_id", "time_zone")}
    of_rollups = [drift for tenant_id, name in zones.items() for drift in _rollup_drifts(tenant_id, name, day, now_s)]
    _tell(day, of_rollups)
    compared, of_counters = _counter_drifts(now_s)
    _tell(day, of_counters)
    report = Report(day, len(zones), compared, (*of_rollups, *of_counters))
    _keep(report, now_s)
    return report


_Totals = dict[tuple[str, str], Sequence[int]]  # by key and alias; "" where they are not told apart


def _rollup_drifts(tenant_id: str, zone_name: str, day: date, now_s: float) -> list[Drift]:
    zone = zone_named(zone_name)
    starts_s = floor_s("day", datetime(day.year, day.month, day.day, tzinfo=zone).timestamp(), zone)
    ends_s = next_s("day", starts_s, zone)
    spans: list[Span] = ["hour", "day"]
    if now_s - ends_s < (MINUTES_KEPT_DAYS - 2) * 86400:
        spans.append("minute")
    totals = _totals(tenant_id, spans, at(starts_s), at(ends_s))
    ledger = totals.pop("ledger")
    of_all, of_keys = _added(ledger, key=False), _added(ledger, alias=False)
    drifts: list[Drift] = []
    for span in spans:
        drifts += _compared(span, tenant_id, ledger, totals[span])
        drifts += _compared(f"{span}_all_keys", tenant_id, of_all, totals[f"{span}_all_keys"])
    return [*drifts, *_compared("day_key", tenant_id, of_keys, totals["day_key"])]


def _totals(tenant_id: str, spans: Sequence[Span], start: datetime, end: datetime) -> dict[str, _Totals]:
    """Of the ledger and each rollup, in one statement, which sees one moment: posting goes on meanwhile."""
    sums = ", ".join(f"sum({name})::bigint" for name in SUMS)
    sources = [
        ("ledger", LEDGER, "created_at", "key_id::text, alias", _OF_RECORDS),
        *((span, TABLES[span], "starts_at", "key_id::text, alias", sums) for span in spans),
        *((f"{span}_all_keys", ALL_KEYS[span], "starts_at", "''::text, alias", sums) for span in spans),
        ("day_key", DAY_KEYS, "starts_at", "key_id::text, ''::text", sums),
    ]
    selects = [
        f"SELECT '{name}', {subject}, {figures} FROM {table} "  # noqa: S608 - own names
        f"WHERE tenant_id = %(tenant)s AND {column} >= %(start)s AND {column} < %(end)s GROUP BY 1, 2, 3"
        for name, table, column, subject, figures in sources
    ]
    totals: dict[str, _Totals] = {name: {} for name, *_ in sources}
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(selects), {"tenant": tenant_id, "start": start, "end": end})
        for name, key_id, alias, *figures in cursor.fetchall():
            totals[name][key_id, alias] = figures
    return totals


def _added(totals: _Totals, *, key: bool = True, alias: bool = True) -> _Totals:
    """By what is True alone."""
    found: _Totals = {}
    for (key_id, name), figures in totals.items():
        subject = (key_id if key else "", name if alias else "")
        found[subject] = [sum(pair) for pair in zip(figures, found.get(subject, [0] * len(SUMS)), strict=True)]
    return found


def _compared(where: str, tenant_id: str, ledger: _Totals, found: _Totals) -> Iterator[Drift]:
    nothing = [0] * len(SUMS)
    for key_id, alias in sorted(ledger.keys() | found.keys()):
        named = {"day_key": f"key {key_id}"}.get(where, f"key {key_id} alias {alias}" if key_id else f"alias {alias}")
        pairs = zip(SUMS, ledger.get((key_id, alias), nothing), found.get((key_id, alias), nothing), strict=True)
        for name, ours, theirs in pairs:
            if ours != theirs:
                yield Drift(where, tenant_id, named, name, ours, theirs)


def _counter_drifts(now_s: float) -> tuple[int, list[Drift]]:
    """How many counters were compared, and which of them hold another sum than the ledger.

    Calls go on meanwhile: the ledger must lie between what the counter held before it was read and what it holds after.
    """
    drifts: list[Drift] = []
    compared = 0
    zones = {str(pk): name for pk, name in Tenant.objects.values_list("pk", "time_zone")}
    with connect(settings.REDIS_URL, max_connections=2, timeout_s=5) as client:
        quota = Quota(client)
        for tenant_id, limits in _monthly(quota).items():
            zone = zones.get(tenant_id)
            if zone is None:
                continue
            try:
                before = quota.state(tenant_id, limits, time_zone=zone, now_s=now_s)
                posting.drain_journal()
                ledger = quota_counters(tenant_id, zone, limits, now_s=now_s)
                after = quota.state(tenant_id, limits, time_zone=zone, now_s=now_s)
            except CountersLost:  # being restored
                continue
            sums = {(c.subject, c.subject_id, c.name): c.used for c in ledger}
            for low, high in zip(before, after, strict=True):
                bound, compared = low.bound, compared + 1
                ours = sums[bound.subject, bound.subject_id, bound.limit.name]
                if not low.used <= ours <= high.used:
                    subject = f"{bound.subject} {bound.subject_id}"
                    drifts.append(Drift("counter", tenant_id, subject, bound.limit.name, ours, low.used))
    return compared, drifts


def _monthly(quota: Quota) -> dict[str, list[BoundLimit]]:
    """The counters of this month's limits that Redis holds, by tenant; their maxima do not matter here."""
    found: dict[str, list[BoundLimit]] = {}
    for number in range(PARTITIONS):
        for tenant_id, bound in quota.kept(number, MONTHLY):
            found.setdefault(tenant_id, []).append(bound)
    return found


def _tell(day: date, drifts: Sequence[Drift]) -> None:
    for drift in drifts:
        _log.error("Usage has drifted: %s", drift)
    if drifts:
        told = {"drifts": len(drifts), "first": [asdict(drift) for drift in drifts[:DRIFTS_AUDITED]]}
        with transaction.atomic():
            audit.record(
                verb="usage.drifted", target=f"usage of {day}", actor=None, actor_label="worker: reconcile", after=told
            )


def _keep(report: Report, now_s: float) -> None:
    """For the page of operators: the latest runs."""
    Reconciliation.objects.update_or_create(
        ran_at=at(now_s),
        defaults={
            "day": report.day,
            "tenants": report.tenants,
            "counters": report.counters,
            "drifts": len(report.drifts),
            "first": [asdict(drift) for drift in report.drifts[:DRIFTS_AUDITED]],
        },
    )
    kept = Reconciliation.objects.order_by("-ran_at").values_list("ran_at", flat=True)[:RUNS_KEPT]
    Reconciliation.objects.filter(ran_at__lt=min(kept)).delete()
