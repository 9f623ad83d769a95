"""Ten minutes of 200 streams while everything fails in turn: .venv/bin/python -m tests.bench.soak [MINUTES]

One gateway worker on its own PostgreSQL and Valkey, before three simulated vLLMs. Backends are killed, hang and shut down;
answers are cut, reset and stall; clients leave; Valkey is killed and frozen. Every ten seconds: what the worker holds. At the
end the ledger must have each call that a client made, once. Exits with 1 where it has not, or where something grew.
"""

import asyncio
import json
import os
import random
import re
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import redis

from tests import processes
from tests.bench.database import database

STREAMS: Final = 200
PACE: Final = "tokens_per_s=10"
SAMPLE_S, FAULT_EVERY_S, FAULT_S = 10.0, 20.0, 6.0
PATIENCE_S = 90.0
LEAVE: Final = 0.15  # of the calls, at some point of their answers
BAD: Final = ("cut_after=20", "reset_after=20", "hang_after=10", "error_event_after=9", "half_event_after=7", "abort_after=8")
BROKEN: Final = 0.05  # of the calls
WARM_S: Final = 60.0  # until then buffers, pools and caches grow to their sizes
GROWTH_MAX: Final = {"rss_mb": 1.15, "fds": 1.15, "greenlets": 1.15}  # the last third of the samples against the first one


@dataclass
class Tally:
    """ids: of all calls that were sent whole, by their clients' own names. seen: how they ended, as clients saw it."""

    ids: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    running: int = 0


class Stand:
    def __init__(self, stack: ExitStack) -> None:
        from accounts import issuing
        from accounts.models import Tenant
        from gateway.models import Backend, Deployment, Limit, ModelAlias, PoolMember
        from tests.e2e.conftest import BY, publish
        from tests.e2e.test_redis_out import Server
        from tests.faults.field import Machine

        home = Path(os.environ["SEKISHO_HOME"])
        self.server = Server(home)
        stack.callback(self.server.stop)
        self.machines = [Machine() for _ in range(3)]
        for number, machine in enumerate(self.machines):
            stack.callback(machine.end)
            Backend.objects.create(name=f"gpu-{number}", url=machine.sim.url)
        tenant = Tenant.objects.create(slug="acme", name="Acme", store_out="degraded")
        deployment = Deployment.objects.create(name="tiny", served_model="tiny", first_token_max_s=2.0, stall_max_s=4.0)
        for backend in Backend.objects.all():
            PoolMember.objects.create(deployment=deployment, backend=backend)
        ModelAlias.objects.create(tenant=tenant, name="general", deployment=deployment, price_prompt=1, price_completion=2)
        for name in ("tokens_per_day", "concurrent_requests", "requests_per_minute"):
            Limit.objects.create(tenant=tenant, name=name, max=10**12)
        _, self.secret = issuing.issue(tenant, issuing.Terms(name="ci"), **BY)
        publish()
        told = home / "greenlets"
        self.greenlets_file = told
        config = Path(__file__).with_name("watched_gateway.py")
        options = {"redis_url": self.server.url, "config": config, "SEKISHO_BENCH_GREENLETS": str(told)}
        self.gateway = stack.enter_context(processes.gateway(home / "gateway", **options))

    @contextmanager
    def posting(self) -> Iterator[None]:
        """What the worker's beat does, every second."""
        ends = threading.Event()
        thread = threading.Thread(target=beat, args=(ends,))
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join()

    def sample(self) -> dict[str, float]:
        [worker] = self.gateway.workers()
        text = Path(f"/proc/{worker}/smaps_rollup").read_text()
        memory = {name: int(re.search(rf"{name}:\s+(\d+)", text)[1]) * 1024 / 1e6 for name in ("Rss", "Pss")}  # type: ignore[index]
        return {
            "rss_mb": memory["Rss"],
            "pss_mb": memory["Pss"],
            "fds": len(os.listdir(f"/proc/{worker}/fd")),  # noqa: PTH208 - a count, and no paths
            "greenlets": int(self.greenlets_file.read_text() or 0) if self.greenlets_file.exists() else 0,
            "leases": self.leases(),
        }

    def leases(self) -> int:
        """-1: Redis is out."""
        from usage.partitions import PARTITIONS, leases_key
        from usage.store import connect

        try:
            with connect(self.server.url) as client:
                return sum(int(client.zcard(leases_key(number))) for number in range(PARTITIONS))
        except (redis.RedisError, OSError):
            return -1


def beat(ends: threading.Event) -> None:
    from django.db import connection

    from gateway.tasks import publish_configuration, restore_counters
    from usage.tasks import post_journal, reap

    while not ends.wait(1.0):
        for task in (publish_configuration, restore_counters, post_journal, reap):
            with suppress(redis.RedisError, OSError):
                task()
    connection.close()


# ---- Who calls


async def keep_calling(stand: Stand, tally: Tally, number: int, ends_s: float) -> None:
    dice, count = random.Random(number), 0
    await asyncio.sleep(dice.uniform(0, 10))
    while time.monotonic() < ends_s:
        count += 1
        tally.running += 1
        ended = await call(stand, tally, dice, f"{number}-{count}")
        tally.running -= 1
        tally.seen[ended] += 1
        if not ended.startswith(("whole", "left")):
            await asyncio.sleep(dice.uniform(0.2, 1.0))


async def call(stand: Stand, tally: Tally, dice: random.Random, own_id: str) -> str:
    """In a word how it ended."""
    sim = f"{PACE} {dice.choice(BAD)}" if dice.random() < BROKEN else PACE
    leaves_after = dice.randint(0, 60) if dice.random() < LEAVE else None
    asked = {
        "model": "general", "stream": True, "max_tokens": dice.randint(40, 250), "ignore_eos": True,
        "messages": [{"role": "user", "content": f"[[sim {sim}]] Hello"}],
    }  # fmt: skip
    body = json.dumps(asked).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {stand.secret}\r\n"
        f"Connection: close\r\nX-Client-Request-Id: {own_id}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", stand.gateway.port)
    try:
        writer.write(head.encode() + body)
        await writer.drain()
        tally.ids.append(own_id)
        async with asyncio.timeout(PATIENCE_S):
            return await answer(reader, leaves_after)
    except TimeoutError:
        return "no end in time"
    except (OSError, asyncio.IncompleteReadError):
        return "cut"
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader, leaves_after: int | None) -> str:
    head = await reader.readuntil(b"\r\n\r\n")
    if (status := int(head[9:12])) != 200:
        return f"status {status}"
    events, last = 0, b""
    async for line in reader:
        if not line.startswith(b"data: "):
            continue
        events, last = events + 1, line
        if leaves_after is not None and events > leaves_after:
            return "left"
    if last.startswith(b"data: [DONE]"):
        return "whole"
    return f"error event {json.loads(last[6:])['error']['code']}" if b'"error"' in last else "mute"


# ---- What fails


def faults(stand: Stand) -> Iterator[tuple[str, Callable[[], object], Callable[[], object]]]:
    first, second, third = stand.machines
    yield "a backend is killed", first.sim.kill, first.revive
    yield "an engine hangs", lambda: second.sim.knobs(engine_hung=True), second.sim.reset
    yield "Redis is killed", stand.server.kill, stand.server.start
    yield "a backend refuses connections", third.sim.refuse, third.sim.accept
    yield "two backends are killed", lambda: (first.sim.kill(), second.sim.kill()), lambda: (first.revive(), second.revive())
    yield "Redis is frozen", stand.server.freeze, stand.server.thaw
    yield "a storm of 503", lambda: third.sim.knobs(status=503), third.sim.reset
    yield "an engine dies", lambda: third.sim.knobs(engine_dead=True), third.sim.reset


async def keep_failing(stand: Stand, ends_s: float) -> None:
    """In a thread each, but one after the other: clients go on."""
    for at in cycle(range(8)):
        await asyncio.sleep(FAULT_EVERY_S - FAULT_S)
        if time.monotonic() > ends_s - FAULT_S - 5:
            return
        name, befalls, is_mended = list(faults(stand))[at]
        sys.stdout.write(f"{'':8}{name}\n")
        await asyncio.to_thread(befalls)
        await asyncio.sleep(FAULT_S)
        if is_mended == stand.server.start:
            is_mended()  # it dies with the thread that started it
        else:
            await asyncio.to_thread(is_mended)


async def keep_sampling(stand: Stand, tally: Tally, samples: list[dict[str, float]], ends_s: float) -> None:
    began_s = time.monotonic()
    while time.monotonic() < ends_s:
        await asyncio.sleep(SAMPLE_S)
        sample = await asyncio.to_thread(stand.sample)
        sample |= {"at_s": time.monotonic() - began_s, "streams": tally.running, "calls": len(tally.ids)}
        samples.append(sample)
        show(sample)


COLUMNS: Final = ("at_s", "streams", "calls", "rss_mb", "pss_mb", "fds", "greenlets", "leases")


def show(sample: dict[str, float]) -> None:
    sys.stdout.write("".join(f"{sample[name]:10,.0f}" for name in COLUMNS) + "\n")
    sys.stdout.flush()


async def soak(stand: Stand, tally: Tally, samples: list[dict[str, float]], seconds: float) -> None:
    ends_s = time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        for number in range(STREAMS):
            group.create_task(keep_calling(stand, tally, number, ends_s))
        group.create_task(keep_failing(stand, ends_s))
        group.create_task(keep_sampling(stand, tally, samples, ends_s))


# ---- What came of it


def counted(tally: Tally) -> list[str]:
    """What is wrong with the ledger, in words; waits until all that was spooled has come."""
    from usage.models import UsageRecord
    from usage.tasks import post_journal

    made = Counter(tally.ids)
    rows: Counter[str] = Counter()
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        post_journal()
        rows = Counter(UsageRecord.objects.filter(part=0).values_list("client_request_id", flat=True))
        if sum(rows.values()) >= len(made):
            break
        time.sleep(1)
    missing, twice = set(made) - set(rows), [name for name, count in rows.items() if count > 1]
    sys.stdout.write(f"{len(made):,} calls were made, the ledger has {sum(rows.values()):,}\n")
    problems = [f"{len(missing)} are missing: {sorted(missing)[:10]}"] if missing else []
    return problems + ([f"{len(twice)} stand there more than once: {twice[:10]}"] if twice else [])


def grown(samples: list[dict[str, float]]) -> list[str]:
    """Which figures are higher towards the end than at the beginning, by more than noise."""
    steady = [sample for sample in samples if sample["at_s"] > WARM_S]
    third = len(steady) // 3
    if not third:
        return []
    problems = []
    for name, most in GROWTH_MAX.items():
        first, last = (statistics.median(sample[name] for sample in part) for part in (steady[:third], steady[-third:]))
        sys.stdout.write(f"{name}: {first:.0f} in the first third, {last:.0f} in the last\n")
        if last > first * most:
            problems.append(f"{name} grew from {first:.0f} to {last:.0f}")
    return problems


def left_over(stand: Stand, idle: dict[str, Any]) -> list[str]:
    """What calls have left behind that have all ended."""
    from usage.store import connect

    time.sleep(35)  # a lease that nobody renews ends by then
    after = stand.sample()
    sys.stdout.write(f"at rest before and after: {idle} {after}\n")
    problems = [f"{after['leases']:.0f} leases are left"] if after["leases"] else []
    with connect(stand.server.url) as client:
        kept = len(client.client_list())  # the pool keeps what a burst has opened
    more = {"fds": after["fds"] - idle["fds"] - kept, "greenlets": after["greenlets"] - idle["greenlets"]}
    return problems + [f"{count:.0f} {name} are left" for name, count in more.items() if count > 20]


def main() -> int:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    tally, samples = Tally(), list[dict[str, float]]()
    with database(), ExitStack() as stack:
        from django.db import connection

        stack.callback(connection.close)
        stand = Stand(stack)
        with stand.posting():
            time.sleep(5)
            idle = stand.sample()
            sys.stdout.write("".join(f"{name:>10}" for name in COLUMNS) + "\n")
            asyncio.run(soak(stand, tally, samples, minutes * 60))
            problems = left_over(stand, idle)
        problems += counted(tally) + grown(samples)
    sys.stdout.write(f"how calls ended for their clients: {dict(tally.seen.most_common())}\n")
    sys.stdout.write("\n".join(problems or ["steady"]) + "\n")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
