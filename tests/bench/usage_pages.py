"""How long the pages of usage take behind 10 million calls, and how many queries: .venv/bin/python -m tests.bench.usage_pages

One tenant with 2,000 keys and 10 million calls of the last 30 days, a tenth of the keys in each hour, and as many calls of
another tenant beside it. Made as totals: no page of sums reads a record; the list of requests is given 200,000 of today.
"""

import sys
import time
from datetime import timedelta
from typing import Any

from tests.bench.portal_pages import fill, measure, stores

RECORDS, DAYS, KEYS, ALIASES = 10_000_000, 30, 2000, 6
CALLS_LISTED = 200_000
PAGES = (
    "/t/tenant-0000/",
    "/t/tenant-0000/usage/",
    "/t/tenant-0000/usage/?range=30d",
    "/t/tenant-0000/usage/?range=30d&group=key&compare=previous",
    "/t/tenant-0000/usage/?range=7d&group=alias&sub=stream",
    "/t/tenant-0000/usage/?range=30d&group=end_user",
    "/t/tenant-0000/requests/",
    "/t/tenant-0000/monthly/",
    "/admin/usage/?range=30d",
    "/admin/monthly/",
    "/admin/reconciliation/",
)
FILL = """
INSERT INTO usage_hourrollup (tenant_id, starts_at, key_id, alias, backend, status, ending, stream, requests, errors, refused,
    blocked, prompt_tokens, cached_tokens, completion_tokens, cost_nano, busy_ms, durations, first_tokens)
SELECT tenant, starts_at, key_id, 'alias-' || number %% %(aliases)s, 'gpu-1', 200, 'completed', 'yes', calls, 0, 0, 0,
    calls * 900, calls * 300, calls * 250, calls * 1500000, calls * 2000, array_fill(calls / 28, ARRAY[28]),
    array_fill(calls / 28, ARRAY[28])
FROM unnest(%(tenants)s::uuid[]) AS tenant, generate_series(0, %(hours)s - 1) AS hour,
    unnest(%(keys)s::uuid[]) WITH ORDINALITY AS key (key_id, number),
    LATERAL (SELECT %(end)s::timestamptz - hour * interval '1 hour' AS starts_at, %(calls)s::int AS calls) AS made
WHERE (number + hour) %% 10 = 0
"""
LABELS = """
INSERT INTO usage_daylabel (tenant_id, starts_at, kind, label, requests, errors, refused, blocked, prompt_tokens,
    cached_tokens, completion_tokens, cost_nano)
SELECT tenant_id, starts_at, 'end_user', 'u' || number, 300, 0, 0, 0, 900, 300, 250, 1500000
FROM (SELECT DISTINCT tenant_id, starts_at FROM usage_dayrollup) AS days, generate_series(1, 1000) AS number
"""


def fill_usage() -> None:
    from django.db import connection
    from django.utils import timezone

    from accounts.models import ApiKey, Tenant
    from tests.usage.made import event
    from usage import ledger, rollups
    from usage.models import ReportingZone

    tenants = list(Tenant.objects.filter(slug__in=("tenant-0000", "tenant-0001")).order_by("slug"))
    keys = list(ApiKey.objects.filter(tenant=tenants[0]).values_list("pk", flat=True))
    hours = DAYS * 24
    now = timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(FILL, {
            "tenants": [tenant.pk for tenant in tenants], "hours": hours, "keys": keys, "aliases": ALIASES,
            "calls": RECORDS * 10 // (hours * KEYS), "end": now.replace(minute=0, second=0, microsecond=0),
        })  # fmt: skip
        sys.stdout.write(f"{cursor.rowcount:,} hours of all\n")
        for tenant in tenants:  # the days come from the hours as they do where a tenant changes its zone
            ReportingZone.objects.create(tenant_id=tenant.pk, time_zone="UTC")
            rollups.recut_sums(str(tenant.pk), ["hour"])
        rollups.realign()
        cursor.execute(LABELS)
        cursor.execute("SELECT count(*), sum(requests) FROM usage_dayrollup WHERE tenant_id = %s", [tenants[0].pk])
        days, calls = cursor.fetchone() or (0, 0)
        sys.stdout.write(f"of the tenant {days:,} days, {calls:,} calls\n")
    for first in range(0, CALLS_LISTED, 5000):
        ledger.post([event(tenants[0], now - timedelta(seconds=(first + n) / 5)) for n in range(5000)])
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


def main() -> None:
    with stores():
        from django.conf import settings
        from django.db import connection
        from django.test import Client
        from django.test.utils import setup_test_environment

        from usage.partitions import PARTITIONS
        from usage.quota import Quota
        from usage.store import connect

        setup_test_environment()
        quota = Quota(connect(settings.REDIS_URL))
        for number in range(PARTITIONS):
            quota.mark_alive(number, journal_end=quota.journal_end(number), now_s=time.time())
        client: Any = Client()
        client.force_login(fill())
        fill_usage()
        for page in PAGES:
            measure(client, page)
        connection.close()


if __name__ == "__main__":
    main()
