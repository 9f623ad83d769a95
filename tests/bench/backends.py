"""How soon first tokens come, and how well conversations stay together: .venv/bin/python -m tests.bench.backends

Three simulated vLLMs behind the real gateway (two workers, Valkey, PostgreSQL), and 100 clients that stream, pause and call
again. Then the same calls, with the same work at the same times, are replayed event by event under other choices: what the
gateway's choice is worth is a ratio within one run. Clients wait for their answers, a replay's calls come regardless: where a
choice is poor, its queues grow until the end. The CPU times tell whether the machine was the bottleneck. 2.3 minutes.
"""

import asyncio
import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from heapq import heappop
from pathlib import Path
from typing import Any

import requests

from gateway.routing.affinity import BEGINNING_MAX_CHARS
from tests import processes
from tests.bench.database import database
from tests.bench.simulator import cpu_s
from tests.gateway.routing.simulation import ANSWER_S, PROMPT_S, Call, Chooser, Run, least_loaded, soonest
from tests.simulator import Simulator, simulator

CLIENTS, SEATS, WORKERS = 100, 16, 2
CHAT = "/v1/chat/completions"
TOKENS = 8  # of every answer: what differs is their pace, so that long answers cost the machine no more than short ones
WARM_UP_S = 10.0


@dataclass(frozen=True, slots=True)
class Scene:
    """name: of its alias. speeds: of the backends. pause_s: between a client's calls, on average. lasts_s: after the warm-up.

    beginnings: how many the clients' conversations have.
    """

    name: str
    speeds: tuple[float, ...]
    pause_s: float
    beginnings: int
    lasts_s: float


SCENES = (
    Scene("busy", (1, 2, 4), pause_s=1.0, beginnings=CLIENTS, lasts_s=40.0),
    Scene("moderate-unequal", (1, 2, 4), pause_s=4.5, beginnings=30, lasts_s=20.0),
    Scene("moderate-equal", (2, 2, 2), pause_s=4.5, beginnings=30, lasts_s=20.0),
)


class Measured(Run):
    """The calls of a scene as they were, to be asked what a simulated run is asked; those of the warm-up do not count."""

    def __init__(self, scene: Scene, calls: Sequence[Call], choose: Chooser = least_loaded) -> None:
        self.calls = calls
        options: dict[str, Any] = {"clients": CLIENTS, "beginnings": scene.beginnings, "workers": WORKERS}
        super().__init__(choose, speeds=scene.speeds, seats=SEATS, rate=1.0, calls=len(calls), **options)

    def _counted(self) -> list[Call]:
        return [call for call in self.ended if call.arrived_s >= WARM_UP_S]

    def _play(self) -> None:
        self.ended = list(self.calls)


class Replay(Measured):
    """The same calls, each at its time and with its work, where `choose` sends them."""

    def _play(self) -> None:
        for call in self.calls:
            self._at(call.arrived_s, partial(self._come, call))
        while self._events:
            self.now_s, _, event = heappop(self._events)
            event()

    def _come(self, measured: Call) -> None:
        call = replace(measured, worker=self.dice.randrange(WORKERS))
        call.backend = self.choose(self, call)
        self.own[call.worker][call.backend] += 1
        self.engines[call.backend].queue.append(call)
        self._run_next(self.engines[call.backend])


def as_it_was(_: Run, call: Call) -> int:
    """Where the gateway sent it: the difference to what was measured is what sockets and processes cost."""
    return call.backend


def least_own(run: Run, call: Call) -> int:
    """Where the fewest calls of the same worker are: no speeds, no other worker."""
    return min(range(len(run.engines)), key=lambda at: (run.own[call.worker][at], run.dice.random()))


@dataclass(frozen=True, slots=True)
class Door:
    """The running gateway, a key for it, and the backends."""

    gateway: processes.Gateway
    secret: str
    sims: Sequence[Simulator]

    def run(self, scene: Scene) -> tuple[list[Call], str]:
        """All calls of a scene, with their backends; and, in words, what share of a core each process took."""
        names = ["client", *["gateway"] * WORKERS, *["backend"] * len(self.sims)]
        pids = [os.getpid(), *self.gateway.workers(), *(sim.process.pid for sim in self.sims)]
        begin_s, before = time.monotonic(), [cpu_s(pid) for pid in pids]
        calls = asyncio.run(self._clients(scene))
        wall_s, after = time.monotonic() - begin_s, [cpu_s(pid) for pid in pids]
        for at, sim in enumerate(self.sims):
            for request in sim.requests():
                calls[request["headers"]["x-request-id"].rpartition("-")[0]].backend = at  # what follows is the try's number
        shares = [f"{name} {(b - a) / wall_s:.0%}" for name, a, b in zip(names, before, after, strict=True)]
        return list(calls.values()), ", ".join(shares)

    async def _clients(self, scene: Scene) -> dict[str, Call]:
        calls: dict[str, Call] = {}
        begin_s = time.monotonic()

        async def client(number: int) -> None:
            dice, end_s = random.Random(number), WARM_UP_S + scene.lasts_s
            await asyncio.sleep(dice.uniform(0, scene.pause_s + 1))  # a call takes a second or so: no rush at first
            while (now_s := time.monotonic() - begin_s) < end_s:
                prompt_s, answer_s = PROMPT_S * dice.lognormvariate(-0.18, 0.6), ANSWER_S * dice.lognormvariate(-0.32, 0.8)
                call = Call(number, -1, now_s, prompt_s, answer_s)
                calls[await self._stream(scene, call, begin_s)] = call
                left_s = max(0.0, begin_s + end_s - time.monotonic())
                await asyncio.sleep(min(left_s, dice.expovariate(1 / scene.pause_s)))

        await asyncio.gather(*(client(number) for number in range(CLIENTS)))
        return calls

    async def _stream(self, scene: Scene, call: Call, begin_s: float) -> str:
        """Read the whole answer, on a connection of its own, so that both workers get calls of all clients; its id."""
        pace = f"first_token_ms={call.prompt_s * 1000:.1f} tokens={TOKENS} tokens_per_s={(TOKENS - 1) / call.answer_s:.4f}"
        system = (f"Department {call.client % scene.beginnings}. " * BEGINNING_MAX_CHARS)[:BEGINNING_MAX_CHARS]
        texts = {"system": system, "user": f"Hello [[sim {pace}]]"}
        messages = [{"role": role, "content": text} for role, text in texts.items()]
        body = json.dumps({"model": scene.name, "stream": True, "messages": messages})
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.port)
        head = f"POST {CHAT} HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {self.secret}\r\nConnection: close\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        request_id, is_whole = "", False
        async for line in reader:
            if line.startswith(b"data: ") and not call.first_token_s:
                call.first_token_s = time.monotonic() - begin_s - call.arrived_s
            elif line.lower().startswith(b"x-request-id:"):
                request_id = line.partition(b":")[2].strip().decode()
            is_whole = is_whole or line.startswith(b"data: [DONE]")
        writer.close()
        assert is_whole, f"call {request_id} failed"
        return request_id


@contextmanager
def door() -> Iterator[Door]:
    """Stores, backends and gateway; all of them end with the block."""
    with database(), ExitStack() as stack:
        from django.db import connection

        from accounts import issuing
        from accounts.models import Tenant
        from portal import embedded
        from tests.e2e.conftest import BY

        home = Path(os.environ["SEKISHO_HOME"])
        stack.callback(connection.close)
        stack.callback(embedded.start_valkey(home, durable=False).stop)
        _, secret = issuing.issue(Tenant.objects.create(slug="acme", name="Acme"), issuing.Terms(name="ci"), **BY)
        sims = [stack.enter_context(simulator(max_num_seqs=SEATS)) for _ in range(3)]
        yield Door(stack.enter_context(processes.gateway(home / "gateway", workers=WORKERS)), secret, sims)


def prepare(here: Door, scene: Scene) -> None:
    """An alias of its own, over backends whose names the gateway has not learned anything about."""
    from accounts.models import Tenant
    from gateway.models import Backend, Deployment, ModelAlias, PoolMember
    from tests.e2e.conftest import publish

    deployment = Deployment.objects.create(name=scene.name, served_model="tiny")
    for at, (sim, speed) in enumerate(zip(here.sims, scene.speeds, strict=True)):
        sim.reset()
        sim.knobs(speed=speed)
        PoolMember.objects.create(deployment=deployment, backend=Backend.objects.create(name=f"{scene.name}-{at}", url=sim.url))
    ModelAlias.objects.create(tenant=Tenant.objects.get(slug="acme"), name=scene.name, deployment=deployment)
    publish()
    healthy = re.compile(rf'sekisho_backend_state{{backend="{scene.name}-\d"}} 3')
    page = f"{here.gateway.url}/metrics"
    processes.wait_until(
        lambda: len(healthy.findall(requests.get(page, timeout=20).text)) == len(here.sims), "the backends were not found well"
    )


def show(scene: Scene, calls: Sequence[Call], cpu: str) -> None:
    """Print first-token times, ms, how often those of the omniscient they are, and which share of calls each backend had."""
    soonest_run, least_run = Replay(scene, calls, soonest), Replay(scene, calls, least_loaded)
    runs: dict[str, Run] = {
        "the gateway, measured": Measured(scene, calls),
        "its choices, replayed": Replay(scene, calls, as_it_was),
        "omniscient: the soonest": soonest_run,
        "omniscient: the least loaded": least_run,
        "fewest calls of the same worker": Replay(scene, calls, least_own),
    }
    count = sum(call.arrived_s >= WARM_UP_S for call in calls)
    print(f"{scene.name}: speeds {scene.speeds}, {SEATS} seats each; {count} calls in {scene.lasts_s:.0f} s. CPU: {cpu}")
    print(f"  {'':32}{'p50':>7}{'p95':>7}{'p99':>7} ms; p95 is x soonest, x least loaded; calls by backend")
    for name, run in runs.items():
        times = "".join(f"{run.first_token_s(part) * 1000:7.0f}" for part in (0.5, 0.95, 0.99))
        ratios = "".join(f"{run.first_token_s(0.95) / best.first_token_s(0.95):8.2f}" for best in (soonest_run, least_run))
        print(f"  {name:32}{times}{ratios}   {' '.join(f'{share:4.0%}' for share in run.shares())}")
    together = runs["the gateway, measured"].same_backend()
    print(f"  {together:.1%} of calls came where most of their beginning came ({scene.beginnings} beginnings)\n", flush=True)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started ends
    with door() as here:
        for scene in SCENES:
            prepare(here, scene)
            show(scene, *here.run(scene))


if __name__ == "__main__":
    main()
