"""What the counters of limits must have used, by the ledger: to restore them after Redis was emptied, and to check them.

Redis counts a call's tokens and money when it is settled, which is its duration after its start; so does this.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from django.conf import settings
from django.db import connection

from usage import rollups
from usage.limits import NAMES, PERIODIC, WINDOW_BUCKETS, BoundLimit, period_start_s
from usage.reservation import Counter
from usage.spans import at

_COUNTED: Final = set(NAMES) - {"concurrent_requests"}  # slots are held, never used
_SETTLED: Final = "created_at + duration_ms * interval '1 ms'"

_Used = list[tuple[str, str, int, int]]  # key id, alias, start of the bucket in Unix seconds, amount


def quota_counters(tenant_id: str, time_zone: str, limits: Sequence[BoundLimit], *, now_s: float) -> list[Counter]:
    """What each of `limits` has used at now_s, as Quota.restore takes it; a limit that has used nothing has one of 0.

    What is still on the journal is not in it: posting.drain_journal() first, and see that nothing was journaled since.
    """
    rollups.realign()
    counters: list[Counter] = []
    for name in sorted({bound.limit.name for bound in limits} & _COUNTED):
        if name in PERIODIC:
            since_s = int(period_start_s(name, now_s, time_zone))
            used = _of_period(tenant_id, name, since_s)
        elif name == "tokens_per_hour":
            since_s = (int(now_s // 60) - WINDOW_BUCKETS + 1) * 60
            used = _of_hour(tenant_id, since_s)
        else:
            since_s = int(now_s) - WINDOW_BUCKETS + 1
            used = _of_minute(tenant_id, since_s)
        for bound in limits:
            if bound.limit.name == name:
                counters += _counters(bound, used, since_s)
    return counters


def _of_minute(tenant_id: str, since_s: int) -> _Used:
    return _rows(
        """
        SELECT key_id::text, alias, floor(extract(epoch FROM created_at))::bigint AS bucket, count(*) FROM usage_usagerecord
        WHERE tenant_id = %s AND created_at >= %s AND part = 0 AND usage_source <> 'none' GROUP BY key_id, alias, bucket
        """,
        [tenant_id, at(since_s)],
    )


def _of_hour(tenant_id: str, since_s: int) -> _Used:
    return _rows(
        f"""
        SELECT key_id::text, alias, floor(extract(epoch FROM {_SETTLED}) / 60)::bigint * 60 AS bucket,
            sum(prompt_tokens + completion_tokens)::bigint FROM usage_usagerecord
        WHERE tenant_id = %s AND created_at >= %s AND {_SETTLED} >= %s GROUP BY key_id, alias, bucket
        """,  # noqa: S608 - own names
        [tenant_id, at(since_s - settings.CALL_MAX_S), at(since_s)],
    )


def _of_period(tenant_id: str, name: str, since_s: int) -> _Used:
    """Of the days' rollups since the period began, and of calls that began before it and were settled in it."""
    amount = "cost_nano" if name == "money_per_month" else "prompt_tokens + completion_tokens"
    return _rows(
        f"""
        SELECT key_id::text, alias, %s, sum(amount)::bigint FROM (
            SELECT key_id, alias, {amount} AS amount FROM usage_dayrollup WHERE tenant_id = %s AND starts_at >= %s
            UNION ALL
            SELECT key_id, alias, {amount} FROM usage_usagerecord
            WHERE tenant_id = %s AND created_at >= %s AND created_at < %s AND {_SETTLED} >= %s
        ) AS used GROUP BY key_id, alias
        """,  # noqa: S608 - own names
        [since_s, tenant_id, at(since_s), tenant_id, at(since_s - settings.CALL_MAX_S), at(since_s), at(since_s)],
    )


def _rows(sql: str, values: list[Any]) -> _Used:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        rows: _Used = cursor.fetchall()
    return rows


def _counters(bound: BoundLimit, rows: _Used, since_s: int) -> Iterator[Counter]:
    used: dict[int, int] = {since_s: 0}
    for key_id, alias, bucket_s, amount in rows:
        if bound.subject == "tenant" or bound.subject_id == (key_id if bound.subject == "key" else alias):
            used[bucket_s] = used.get(bucket_s, 0) + amount
    for bucket_s, amount in used.items():
        yield Counter(bound.subject, bound.subject_id, bound.limit.name, amount, bucket_s)
