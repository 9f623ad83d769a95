"""How long the portal's longest lists take, how many queries and bytes: .venv/bin/python -m tests.bench.portal_pages

1,000 tenants with three limits each, half of them on a plan, and one of them with 2,000 keys of two limits each. Times are
of the whole request, middleware, templates and Redis included, in this one process. Bytes are those of a first view: the page,
its styles and its scripts, as they are and as they are sent. Where the machine has other work, CPU tells more than time: a
page's steps follow each other, so that both sides' together are about what it takes when there is no other work.
"""

import gzip
import os
import re
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.bench.database import database
from tests.bench.ledger import server_cpu_s

TENANTS, KEYS, ROUNDS = 1000, 2000, 15
STATIC: dict[str, tuple[int, int]] = {}  # what styles and scripts weigh: weighed once
PAGES = (
    "/admin/tenants/",
    "/admin/tenants/?sort=-used",
    "/admin/tenants/?q=tenant-09&state=active",
    "/admin/tenants/tenant-0000/",
    "/admin/plans/",
    "/t/tenant-0000/",
    "/t/tenant-0000/keys/",
    "/t/tenant-0000/keys/?sort=used",
    '/t/tenant-0000/keys/?after=["9999-01-01 00:00:00%2B00:00","key-1000","01990000-0000-7000-8000-000000000000"]',
    "/t/tenant-0000/limits/",
    '/t/tenant-0000/limits/?after=[2,"key-1000","01990000-0000-7000-8000-000000000000",0]',
    "/t/tenant-0000/limits/part/",
    "/t/tenant-0000/members/",
    "/t/tenant-0000/audit/",
    "/admin/audit/",
    "/admin/usage/",
)


@contextmanager
def stores() -> Iterator[None]:
    with database():
        from portal import embedded

        valkey = embedded.start_valkey(Path(os.environ["SEKISHO_HOME"]), durable=False)
        try:
            yield
        finally:
            valkey.stop()


def fill() -> Any:
    from django.utils import timezone

    from accounts.models import ApiKey, Tenant, User
    from gateway.models import Limit, PlannedTenant, QuotaPlan

    tenants = Tenant.objects.bulk_create(Tenant(slug=f"tenant-{n:04}", name=f"Tenant {n:04}") for n in range(TENANTS))
    plan = QuotaPlan.objects.create(name="standard")
    PlannedTenant.objects.bulk_create(PlannedTenant(tenant=tenant, plan=plan) for tenant in tenants[::2])
    names = ("requests_per_minute", "tokens_per_hour", "tokens_per_month")
    Limit.objects.bulk_create(Limit(tenant=tenant, name=name, max=100_000) for tenant in tenants for name in names)
    now = timezone.now()
    keys = ApiKey.objects.bulk_create(
        ApiKey(
            tenant=tenants[0] if n < KEYS else tenants[n - KEYS],
            name=f"key-{n:04}",
            lookup_id=f"lookup{n:06}",
            hint=f"sk-…{n:04}",
            pepper_id="t1",
            digest="0" * 64,
            scopes=["chat"],
            last_used_at=now - timedelta(minutes=n),
        )
        for n in range(KEYS + TENANTS)
    )
    Limit.objects.bulk_create(Limit(key=key, name=name, max=1000) for key in keys[:KEYS] for name in names[:2])
    return User.objects.create_user("operator@sekisho.example", is_operator=True)


def _weight(client: Any, address: str) -> tuple[int, int]:
    sent = client.get(address, headers={"accept-encoding": "gzip"}).content
    return len(gzip.decompress(sent)) if sent[:2] == b"\x1f\x8b" else len(sent), len(sent)


def weight(client: Any, page: str) -> tuple[int, int]:
    """Bytes of a first view of the page, as it is and as it is sent."""
    text = client.get(page).content.decode()
    linked = re.findall(r'<(?:link[^>]*(?:stylesheet|icon)[^>]*href|script[^>]*src)="([^"]*)"', text)
    for address in linked:
        if address not in STATIC:
            STATIC[address] = _weight(client, address)
    weights = [_weight(client, page), *(STATIC[address] for address in linked)]
    plain, sent = (sum(side) for side in zip(*weights, strict=True))
    return plain, sent


def measure(client: Any, page: str) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    times_ms = []
    with CaptureQueriesContext(connection) as queries:
        answer = client.get(page)
    asked = len(queries)
    assert answer.status_code == 200, (page, answer.status_code)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid = (cursor.fetchone() or (0,))[0]
    cpu_s, server_s = time.process_time(), server_cpu_s(pid)
    for _ in range(ROUNDS):
        started = time.perf_counter()
        client.get(page)
        times_ms.append((time.perf_counter() - started) * 1000)
    cpu_ms, server_ms = (time.process_time() - cpu_s) / ROUNDS * 1000, (server_cpu_s(pid) - server_s) / ROUNDS * 1000
    figures = f"best {min(times_ms):6.1f} ms, median {statistics.median(times_ms):6.1f} ms"
    sys.stdout.write(f"{page:<44} {figures}, CPU: own {cpu_ms:5.1f} ms, PostgreSQL {server_ms:5.1f} ms, {asked:2} queries")
    plain, sent = weight(client, page)
    sys.stdout.write(f", {len(answer.content) // 1024:3} kB, first view {plain // 1024} kB, sent {sent // 1024} kB\n")


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
        client = Client()
        client.force_login(fill())
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
        for page in PAGES:
            measure(client, page)
        connection.close()


if __name__ == "__main__":
    main()
