"""How long a dashboard waits for its sums: .venv/bin/python -m tests.bench.reports

One tenant with 10 million records of the last 30 days: 40 keys, 6 aliases, 2 backends, 3 statuses, in all their combinations
in every hour, and as much again of other tenants around it. Made as rollups: reports never read the records.
"""

import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from tests.bench.database import database

RECORDS, DAYS, KEYS, ALIASES = 10_000_000, 30, 40, 6
STATUSES = {200: 0.9, 429: 0.08, 502: 0.02}
NOW = datetime(2026, 11, 20, 15, tzinfo=UTC)  # midnight in Tokyo
ROUNDS = 15

FILL = """
INSERT INTO usage_hourrollup (tenant_id, starts_at, key_id, alias, backend, status, requests, errors, refused, blocked,
    prompt_tokens, cached_tokens, completion_tokens, cost_nano, durations, first_tokens, ending, stream, busy_ms)
SELECT tenant, starts_at, ('0198c0de-0000-7000-8000-' || lpad(key::text, 12, '0'))::uuid, 'alias-' || alias, 'gpu-' || backend,
    status, calls, CASE status WHEN 502 THEN calls ELSE 0 END, CASE status WHEN 429 THEN calls ELSE 0 END, 0, calls * 900,
    calls * 300, calls * 250, calls * 1500000, array_fill(calls / 28, ARRAY[28]), array_fill(calls / 28, ARRAY[28]),
    CASE status WHEN 502 THEN 'failed' WHEN 429 THEN 'refused' ELSE 'completed' END, 'yes', calls * 2000
FROM unnest(%(tenants)s::uuid[]) AS tenant,
    generate_series(%(start)s::timestamptz, %(end)s::timestamptz - interval '1 hour', '1 hour') AS starts_at,
    generate_series(1, %(keys)s) AS key, generate_series(1, %(aliases)s) AS alias, generate_series(1, 2) AS backend,
    unnest(%(statuses)s::smallint[], %(calls)s::int[]) AS kind (status, calls)
"""


def measure(name: str, report: Callable[[], Any]) -> None:
    times_ms, cpu_s = [], time.process_time()
    for _ in range(ROUNDS):
        started = time.perf_counter()
        rows = report()
        times_ms.append((time.perf_counter() - started) * 1000)
    cpu_ms = (time.process_time() - cpu_s) / ROUNDS * 1000
    count = len(rows["data"] if isinstance(rows, dict) else rows)
    figures = f"best {min(times_ms):6.1f} ms, median {statistics.median(times_ms):6.1f} ms, own CPU {cpu_ms:5.1f} ms"
    sys.stdout.write(f"{name:<44} {figures}, {count} rows\n")


def main() -> None:
    with database():
        from django.db import connection

        from accounts.models import Tenant
        from usage import rollups
        from usage.models import ReportingZone
        from usage.reports import latency_report, usage_report

        tenants = [Tenant.objects.create(slug=f"tenant-{number}", name="A tenant") for number in range(2)]
        acme, start = tenants[0], NOW - timedelta(days=DAYS)
        a_row = RECORDS / (DAYS * 24 * KEYS * ALIASES * 2)
        with connection.cursor() as cursor:
            cursor.execute(
                FILL,
                {
                    "tenants": [tenant.pk for tenant in tenants], "start": start, "end": NOW, "keys": KEYS, "aliases": ALIASES,
                    "statuses": list(STATUSES), "calls": [max(1, round(share * a_row)) for share in STATUSES.values()],
                },
            )  # fmt: skip
            hours = cursor.rowcount
            for tenant in tenants:  # the days come from the hours as they do where a tenant changes its zone
                ReportingZone.objects.create(tenant_id=tenant.pk, time_zone="UTC")
                rollups.recut_sums(str(tenant.pk), ["hour"])
            rollups.realign()
            cursor.execute("VACUUM ANALYZE")
            cursor.execute("SELECT count(*), sum(requests) FROM usage_dayrollup WHERE tenant_id = %s", [acme.pk])
            days, calls = cursor.fetchone() or (0, 0)
        sys.stdout.write(f"{hours:,} hours of all; of the tenant {days:,} days, {calls:,} calls\n")
        month = {"start": start, "end": NOW}
        measure("30 days by day", partial(usage_report, acme, **month, bucket="day"))
        measure("30 days by day and alias", partial(usage_report, acme, **month, bucket="day", group_by=["alias"]))
        measure("30 days by day, key and alias", partial(usage_report, acme, **month, bucket="day", group_by=["key", "alias"]))
        measure("30 days by day, one key", partial(usage_report, acme, **month, bucket="day", key_id=f"{KEY}{1:012}"))
        measure("30 days by day, percentiles", partial(latency_report, acme, **month, bucket="day"))
        measure("24 hours by hour", partial(usage_report, acme, now=NOW))
        measure("24 hours by hour, alias and status", partial(usage_report, acme, now=NOW, group_by=["alias", "status"]))
        connection.close()


KEY = "0198c0de-0000-7000-8000-"

if __name__ == "__main__":
    main()
