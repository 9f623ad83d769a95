"""The overshoot proof: 4 x 64 clients race at limits through 4 gateway workers, and nothing ever gets beyond them.

A watcher looks into Redis all the while, the ledger is asked afterwards. What the race leaves is then used up with ever
smaller calls: a limit that kept everybody out would never be overrun either.
"""

import asyncio
import concurrent.futures
import itertools
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.models import Limit
from tests.e2e.conftest import CHAT, Stand, await_configuration, publish
from tests.processes import Gateway
from tests.proofs import full
from tests.usage.test_quota_race import WATCH
from usage.limits import BoundLimit
from usage.limits import Limit as Bound
from usage.models import UsageRecord
from usage.partitions import base, partition, subject_key
from usage.posting import drain_journal
from usage.quota import Quota
from usage.reservation import LimitState

WORKERS, CLIENTS = 4, 4 * 64
RACE_S = 20.0 if full() else 6.0
MAX_TOKENS = 240_000 if full() else 60_000
SLOTS = 24
PATIENCE_S = 120.0  # of one call
FILLERS = 16
LARGEST_TOKENS = 1000
WORDS = ("gate", "permit", "traveller", "mountain", "関所", "街道", "手形", "barrier", "evening", "river")
USAGE = re.compile(r"Current usage: (?P<used>\d+), Limit: (?P<limit>\d+)")


@dataclass
class Clients:
    """Everybody who calls: each on a connection of its own. outcomes: how many calls ended with which status and code."""

    gateway: Gateway
    secret: str
    outcomes: Counter[tuple[int, str]] = field(default_factory=Counter)

    async def call(self, *, leaves_after_s: float = PATIENCE_S, **body: Any) -> dict[str, Any] | None:
        """The error of a chat completion, {} when it was answered; None for a client that left before its end."""
        payload = json.dumps({"model": "general", **body}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.port)
        try:
            writer.write(
                f"POST {CHAT} HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {self.secret}\r\nConnection: close\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n".encode()
                + payload
            )
            async with asyncio.timeout(leaves_after_s):
                head = await reader.readuntil(b"\r\n\r\n")
                answer = await reader.read(-1)
        except TimeoutError:
            assert leaves_after_s < PATIENCE_S, "a call hangs"
            self.outcomes[0, "left"] += 1
            return None
        finally:
            writer.close()
        status = int(head[9:12])
        error = {} if status == 200 else json.loads(answer)["error"]
        self.outcomes[status, error.get("code", "")] += 1
        return error

    async def race(self, number: int, until: float) -> None:
        """Any kind of call, one after the other. Three in ten lose patience, at any point of the answer or before it."""
        dice = random.Random(number)
        while time.monotonic() < until:
            refusal = await self.call(
                leaves_after_s=dice.uniform(0, 0.5) if dice.random() < 0.3 else PATIENCE_S,
                messages=[{"role": "user", "content": question(dice)}],
                stream=dice.random() < 0.5,
                max_tokens=dice.randint(1, MAX_TOKENS // 30),
                n=dice.choice((1, 1, 1, 2)),
            )
            if refusal:
                await asyncio.sleep(dice.uniform(0, 0.2))

    async def use_up(self) -> None:
        """Calls that use all they may, each as long as still fits, until not one token does."""
        size = LARGEST_TOKENS
        while size:
            refusal = await self.call(max_tokens=size, ignore_eos=True, messages=[{"role": "user", "content": "Go on"}])
            if refusal:
                told = USAGE.search(refusal["message"])
                assert told, refusal
                size = max(0, min(size // 2, int(told["limit"]) - int(told["used"])))


def question(dice: random.Random) -> str:
    return " ".join(dice.choices(WORDS, k=dice.randint(1, 60)))


async def everybody(clients: Clients) -> None:
    until = time.monotonic() + RACE_S
    await asyncio.gather(*(clients.race(number, until) for number in range(CLIENTS)))


async def use_up(clients: Clients) -> None:
    """Many at once, then one alone, whom no reservation of another keeps from the last tokens."""
    await asyncio.gather(*(clients.use_up() for _ in range(FILLERS)))
    await clients.use_up()


@contextmanager
def watched(stand: Stand, *limits: BoundLimit) -> Iterator[list[list[tuple[int, int, int, int]]]]:
    """Look at each token counter in turn, as often as Redis lets us: (used, reserved, held by live calls, live calls)."""
    looks: list[list[tuple[int, int, int, int]]] = [[] for _ in limits]
    tenant_id, stop = str(stand.acme.id), threading.Event()
    keys = [subject_key(tenant_id, bound.subject, bound.subject_id) for bound in limits]

    def watch() -> None:
        for seen, key in itertools.cycle(zip(looks, keys, strict=True)):
            if stop.is_set():
                return
            seen.append(tuple(stand.store.eval(WATCH, 2, key + "counters", key + "live", base(partition(tenant_id)))))

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield looks
        finally:
            stop.set()
        watching.result()


def states(stand: Stand, *limits: BoundLimit) -> list[LimitState]:
    return Quota(stand.store).state(str(stand.acme.id), limits, time_zone=stand.acme.time_zone, now_s=time.time())


@pytest.mark.xdist_group("heavy")
def test_nothing_gets_through_limits_that_256_clients_race_at(stand: Stand, fresh_gateway: Callable[..., Gateway]) -> None:
    hour = BoundLimit("tenant", str(stand.acme.id), Bound("tokens_per_hour", MAX_TOKENS))
    slots = BoundLimit("tenant", str(stand.acme.id), Bound("concurrent_requests", SLOTS))
    shadow = BoundLimit("key", str(stand.key.id), Bound("tokens_per_hour", MAX_TOKENS // 2, "shadow"))
    for bound in (hour, slots, shadow):
        subject = {"tenant": stand.acme} if bound.subject == "tenant" else {"key": stand.key}
        Limit.objects.create(**subject, name=bound.limit.name, max=bound.limit.max, mode=bound.limit.mode)
    publish()
    stand.gateway = fresh_gateway(workers=WORKERS)  # which has known the limits from its first call on
    await_configuration(stand)
    clients = Clients(stand.gateway, stand.secret)

    with watched(stand, hour, shadow) as (looks, shadow_looks):
        stand.vllm.knobs(first_token_ms=50, tokens_per_s=400)
        asyncio.run(everybody(clients))
        used_in_race, *_ = looks[-1]
        stand.vllm.reset()
        stand.until(lambda: states(stand, hour)[0].reserved == 0, "a call that ended holds something")
        asyncio.run(use_up(clients))
        stand.until(lambda: states(stand, slots)[0].reserved == 0, "a slot stays taken")

    print(f"{dict(clients.outcomes)}; {used_in_race} tokens used in the race; {len(looks)} looks")
    assert len(looks) > 100
    assert max(used + reserved for used, reserved, _, _ in looks) <= MAX_TOKENS
    assert max(live for *_, live in looks) <= SLOTS
    assert all(reserved == held for _, reserved, held, _ in (*looks, *shadow_looks))
    refusals = {code for status, code in clients.outcomes if status == 429}
    assert refusals == {"token_quota_exceeded", "concurrency_limit_exceeded"}
    assert {status for status, _ in clients.outcomes} == {0, 200, 429}

    of_hour, of_shadow = states(stand, hour, shadow)
    assert 0.95 * MAX_TOKENS <= of_hour.used <= MAX_TOKENS
    assert (of_shadow.used, of_shadow.reserved) == (of_hour.used, of_hour.reserved) == (of_hour.used, 0)
    drain_journal()
    rows = UsageRecord.objects.filter(tenant_id=stand.acme.id).values_list("prompt_tokens", "completion_tokens")
    assert sum(map(sum, rows)) == of_hour.used  # the test is shorter than an hour: it is one window
