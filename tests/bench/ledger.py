"""How many events a second reach the ledger and its rollups: .venv/bin/python -m tests.bench.ledger

Batches of 5,000 as the worker posts them, on one connection: 20 tenants, 100 keys, 3 aliases, events with the limits and
the price they saw. The machine's other work shows in wall-clock time; the CPU time of both sides hardly changes with it.
"""

import os
import random
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from uuid_utils.compat import uuid7

from tests.bench.database import database
from usage.events import UsageEvent

BATCH, BATCHES, WARM_UP = 5000, 20, 2
START_S = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
ALIASES = ("general", "code", "fast")
EVENTS_A_S = 1000  # of their own time: how far the calls lie apart


def batch(number: int, dice: random.Random, tenants: list[tuple[str, list[str]]]) -> list[UsageEvent]:
    events = []
    for index in range(BATCH):
        tenant_id, keys = dice.choice(tenants)
        key_id = dice.choice(keys)
        is_refused = dice.random() < 0.05
        seen = {"subject": "key", "name": key_id, "limit": "tokens_per_hour", "used": 100, "reserved": 900, "max": 50_000}
        events.append(
            UsageEvent(
                request_id=str(uuid7()), created_s=round(START_S + (number * BATCH + index) / EVENTS_A_S, 3),
                tenant="acme", tenant_id=tenant_id, key_id=key_id, key_name="ci",
                alias=dice.choice(ALIASES),
                deployment="small", backend=dice.choice(("gpu-1", "gpu-2")), status=429 if is_refused else 200,
                outcome="refused" if is_refused else "completed", error_code="token_quota_exceeded" if is_refused else None,
                stream=True, prompt_tokens=dice.randrange(4000), cached_tokens=0, completion_tokens=dice.randrange(900),
                usage_source="backend", first_token_ms=dice.randrange(20, 3000), duration_ms=dice.randrange(100, 60_000),
                attempts=1, end_user="3f2a9c0d5e", cost_nano=dice.randrange(10**8), reserved_tokens=5000, limits=[seen],
                price={"prompt": 150_000, "cached": 75_000, "completion": 600_000},
            )
        )  # fmt: skip
    return events


def server_cpu_s(pid: int) -> float:
    """User and system time of a PostgreSQL backend: fields 14 and 15 of proc(5) stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    with database():
        from django.db import connection

        from usage import ledger

        dice = random.Random(1)
        tenants = [(str(uuid4()), [str(uuid4()) for _ in range(5)]) for _ in range(20)]
        batches = [batch(number, dice, tenants) for number in range(BATCHES)]
        for events in batches[:WARM_UP]:
            ledger.post(events)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            pid = (cursor.fetchone() or (0,))[0]
        cpu_s, server_s, times_s = time.process_time(), server_cpu_s(pid), []
        for events in batches[WARM_UP:]:
            started = time.perf_counter()
            ledger.post(events)
            times_s.append(time.perf_counter() - started)
        count = BATCH * len(times_s)
        cpu_us, server_us = (time.process_time() - cpu_s) / count * 1e6, (server_cpu_s(pid) - server_s) / count * 1e6
        again = time.perf_counter()
        ledger.post(batches[-1])
        again_s = time.perf_counter() - again
        connection.close()
    sys.stdout.write(
        f"{count} events: {count / sum(times_s):,.0f} a second, {BATCH / min(times_s):,.0f} in the best batch; "
        f"CPU us an event: worker {cpu_us:.1f}, PostgreSQL {server_us:.1f}\n"
        f"a batch delivered again: {BATCH / again_s:,.0f} a second\n"
    )


if __name__ == "__main__":
    main()
