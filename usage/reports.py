"""Every question about usage, from the rollups; from the ledger one call's story, and what policies did. Dicts, for JSON."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import connection
from django.utils import timezone

from accounts.models import ApiKey, Tenant
from usage import histograms
from usage.models import ReportingZone, UsageRecord
from usage.money import units
from usage.rollups import ALL_KEYS, TABLES, summed, zone_named
from usage.spans import Span, edges_s
from usage.totals import ANY, HISTOGRAMS, SUMS

Group = Literal["alias", "key", "status"]
GROUPS: Final[dict[Group, str]] = {"alias": "alias", "key": "key_id", "status": "status"}
BUCKETS_MOST: Final = 2000  # a day by the minute, twelve weeks by the hour
ROWS_MOST: Final = 50_000


class ReportTooLarge(ValueError):
    """More than one answer should hold. The message says what to ask for instead."""


def usage_report(
    tenant: Tenant,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    bucket: Span = "hour",
    group_by: Collection[Group] = (),
    key_id: str | None = None,
    now: datetime | None = None,
) -> dict[str, Any]:
    """The body of `GET /v1/usage`: sums by bucket of the tenant's time zone and by group, oldest first; no empty ones.

    start, end: by default the last 24 hours; a time without a zone is the tenant's. They are widened to whole buckets.
    key_id: of this key alone. `key` in a row is the key's id, and key_name its name now. cost: units, decimal text.
    Raises ReportTooLarge, and ValueError for an end that is not after its start.
    """
    rows, zone = _rows(tenant, start, end, bucket=bucket, group_by=group_by, key_id=key_id, now=now, columns=_SUMMED)
    data = [head | _sums(values) for head, values in rows]
    return {
        "object": "usage",
        "time_zone": zone.key,
        "data": data,
        "total": _sums([sum(column) for column in zip(*(values for _, values in rows), strict=True)] or [0] * len(SUMS)),
    }


def latency_report(
    tenant: Tenant,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    bucket: Span = "hour",
    group_by: Collection[Group] = (),
    key_id: str | None = None,
    now: datetime | None = None,
    fractions: Sequence[float] = (0.5, 0.95, 0.99),
) -> list[dict[str, Any]]:
    """Buckets and groups as in usage_report, each with `duration_ms` and `first_token_ms`: the percentiles asked for.

    None where no call counts: those refused have no latency, those not streamed no first token.
    """
    columns = [summed(name) for name in HISTOGRAMS]
    rows, _ = _rows(tenant, start, end, bucket=bucket, group_by=group_by, key_id=key_id, now=now, columns=columns)
    names = ("duration_ms", "first_token_ms")
    return [
        head
        | {
            name: [histograms.percentile(counts, fraction) for fraction in fractions]
            for name, counts in zip(names, values, strict=True)
        }
        for head, values in rows
    ]


def request_report(request_id: str, tenant: Tenant, *, key_id: str | None = None) -> dict[str, Any] | None:
    """The body of `GET /v1/requests/{id}`; None where this tenant, or with key_id this key, made no such call.

    A call that was posted as lost and ended after all is told as it ended, with the tokens of all its parts.
    """
    try:
        wanted = UUID(request_id)
    except ValueError:
        return None
    parts = UsageRecord.objects.filter(request_id=wanted, tenant_id=tenant.pk).order_by("part")
    if key_id is not None:
        parts = parts.filter(key_id=key_id)
    records = list(parts)
    return request_story(records) if records else None


def request_story(parts: Sequence[UsageRecord]) -> dict[str, Any]:
    """One call, as the parts that it was posted in tell it, in their order."""
    last = parts[-1]
    prompt, cached, completion, cost = (
        sum(getattr(part, name) for part in parts)
        for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "cost_nano")
    )
    return {
        "object": "request",
        "id": str(last.request_id),
        "created": int(last.created_at.timestamp()),
        "alias": last.alias,
        "status": last.status,
        "outcome": last.outcome,
        "error_code": last.error_code or None,
        "stream": last.stream,
        "usage": {
            "prompt_tokens": prompt,
            "cached_tokens": cached,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "source": last.usage_source,
        },
        "cost": units(cost),
        "queue_ms": last.queue_ms,
        "first_token_ms": last.first_token_ms,
        "duration_ms": last.duration_ms,
        "limits": [_limit_seen(limit, last) for limit in last.limits or []],
        **_decided(last),
    }


def policy_report(
    tenant: Tenant | None,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    bucket: Span = "day",
    now: datetime | None = None,
    policy: str | None = None,
    besides: Collection[UUID] = (),
) -> list[dict[str, Any]]:
    """How often each rule did what, by bucket as in usage_report, oldest first: what a monitored rule would have blocked.

    tenant None: of the platform's policies, over all tenants, in buckets of UTC; else of the tenant's own. policy: of those of
    this name alone. Calls of before 2026-11-21 do not tell whose a policy was: they count as the tenant's own, and, but for the
    tenants in `besides`, as the platform's.
    decisions: as many as there were; calls: in how many calls. Of a call with very many decisions the first hundred count.
    Raises as usage_report.
    """
    edges = _edges(start, end, bucket, _zone(tenant) if tenant else ZoneInfo("UTC"), now or timezone.now())
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH call AS (
                SELECT DISTINCT ON (request_id) request_id, tenant_id, created_at, policy FROM usage_usagerecord
                WHERE {"tenant_id = %(tenant)s AND " if tenant else ""}
                    created_at >= %(start)s AND created_at < %(end)s AND policy IS NOT NULL
                    AND jsonb_typeof(policy) = 'array'
                ORDER BY request_id, part DESC
            )
            SELECT width_bucket(created_at, %(edges)s::timestamptz[]), one->>'policy', (one->>'version')::int, one->>'rule',
                one->>'kind', one->>'action', count(*), count(DISTINCT request_id)
            FROM call CROSS JOIN jsonb_array_elements(policy) AS one WHERE one ? 'rule'
                AND (one->>'holder' = %(holder)s OR NOT one ? 'holder' AND tenant_id <> ALL(%(besides)s))
                {"AND one->>'policy' = %(policy)s" if policy is not None else ""}
            GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6 LIMIT %(most)s
            """,  # noqa: S608 - own words
            {
                "edges": edges,
                "tenant": tenant.pk if tenant else None,
                "besides": list(besides),
                "holder": "tenant" if tenant else "platform",
                "policy": policy,
                "start": edges[0],
                "end": edges[-1],
                "most": ROWS_MOST + 1,
            },
        )
        found = cursor.fetchall()
    if len(found) > ROWS_MOST:
        raise ReportTooLarge(f"More than {ROWS_MOST} rows: ask for a shorter time or a longer bucket.")
    ends = [edge.isoformat() for edge in edges]
    names = ("policy", "version", "rule", "kind", "action", "decisions", "calls")
    return [
        {"start": ends[number - 1], "end": ends[number], **dict(zip(names, values, strict=True))} for number, *values in found
    ]


def _decided(call: UsageRecord) -> dict[str, Any]:
    """What content policies decided, in `policy`; how many more decisions there were, in `policy_more`."""
    told = call.policy or []
    return {
        "policy": [{"start": None, "end": None} | decision for decision in told if "more" not in decision],
        "policy_more": sum(decision.get("more", 0) for decision in told),
    }


def _limit_seen(limit: dict[str, Any], call: UsageRecord) -> dict[str, Any]:
    """A limit as the call found it, in the words of `GET /v1/limits`: names for ids, and money in units."""
    names = {"key": call.key_name, "alias": call.alias, "tenant": call.tenant}
    told = limit | {"name": names[limit["subject"]]}
    if limit["limit"] == "money_per_month":
        told |= {amount: units(told[amount]) for amount in ("used", "reserved", "max") if amount in told}
    return told


_SUMMED: Final = [f"sum({name})::bigint" for name in SUMS]
_Row = tuple[dict[str, Any], list[Any]]  # start, end and groups; the columns asked for


def _rows(
    tenant: Tenant,
    start: datetime | None,
    end: datetime | None,
    *,
    bucket: Span,
    group_by: Collection[Group],
    key_id: str | None,
    now: datetime | None,
    columns: Sequence[str],
) -> tuple[list[_Row], ZoneInfo]:
    zone = _zone(tenant)
    edges = _edges(start, end, bucket, zone, now or timezone.now())
    groups = [name for name in GROUPS if name in group_by]
    chosen = ", ".join(["width_bucket(starts_at, %(edges)s::timestamptz[])", *(GROUPS[name] for name in groups)])
    places = ", ".join(str(place) for place in range(1, len(groups) + 2))
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT {chosen}, {", ".join(columns)} FROM {(TABLES if "key" in groups or key_id is not None else ALL_KEYS)[bucket]}
            WHERE tenant_id = %(tenant)s AND starts_at >= %(start)s AND starts_at < %(end)s
                {"AND key_id = %(key)s" if key_id is not None else ""}
            GROUP BY {places} HAVING {ANY} ORDER BY {places} LIMIT {ROWS_MOST + 1}
            """,  # noqa: S608 - own names
            {"edges": edges, "tenant": tenant.pk, "start": edges[0], "end": edges[-1], "key": key_id},
        )
        found = cursor.fetchall()
    if len(found) > ROWS_MOST:
        raise ReportTooLarge(f"More than {ROWS_MOST} rows: ask for a shorter time, a longer bucket or fewer groups.")
    names = dict(ApiKey.objects.for_tenant(tenant).values_list("pk", "name")) if "key" in groups else {}
    ends = [edge.isoformat() for edge in edges]
    rows = []
    for number, *values in found:
        head = {"start": ends[number - 1], "end": ends[number], **dict(zip(groups, values, strict=False))}
        if "key" in head:
            head |= {"key": str(head["key"]), "key_name": names.get(head["key"])}
        rows.append((head, values[len(groups) :]))
    return rows, zone


def _edges(start: datetime | None, end: datetime | None, bucket: Span, zone: ZoneInfo, now: datetime) -> list[datetime]:
    """The buckets that start..end touches: where each starts, and where the last ends."""
    end = _aware(end or now, zone)
    start = _aware(start or end - timedelta(hours=24), zone)
    if start >= end:
        raise ValueError("The end must be after the start.")
    try:
        edges = edges_s(bucket, start.timestamp(), end.timestamp(), zone, most=BUCKETS_MOST)
    except OverflowError:
        raise ValueError("The calendar does not reach that far.") from None
    if edges is None:
        raise ReportTooLarge(f"More than {BUCKETS_MOST} buckets: ask for a shorter time or a longer bucket.")
    return [datetime.fromtimestamp(edge, zone) for edge in edges]


def _aware(moment: datetime, zone: ZoneInfo) -> datetime:
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)).astimezone(UTC)


def _zone(tenant: Tenant) -> ZoneInfo:
    """The zone its rollups are cut in: the tenant's own, but for the second after that was changed."""
    name = ReportingZone.objects.filter(tenant_id=tenant.pk).values_list("time_zone", flat=True).first()
    return zone_named(name or tenant.time_zone)


def _sums(values: Sequence[int]) -> dict[str, Any]:
    sums = dict(zip(SUMS, values, strict=True))
    return {
        "requests": sums["requests"],
        "prompt_tokens": sums["prompt_tokens"],
        "cached_tokens": sums["cached_tokens"],
        "completion_tokens": sums["completion_tokens"],
        "total_tokens": sums["prompt_tokens"] + sums["completion_tokens"],
        "errors": sums["errors"],
        "refused": sums["refused"],
        "blocked": sums["blocked"],
        "cost": units(sums["cost_nano"]),
    }
