"""How soon first tokens come, and how well conversations stay together: .venv/bin/python -m tests.bench.backends

Three simulated vLLMs behind the real gateway (two workers, Valkey, PostgreSQL), and 100 clients that stream, pause and call
again. Then the same calls, with the same work at the same times, are replayed event by event under other choices: what the
gateway's choice is worth is a ratio within one run. A replay's calls do not wait for its answers, as real clients do: queues
of a poor choice grow until the end. CPU times are there to tell whether the machine was the bottleneck.
"""

import asyncio
import itertools
import json
import os
import random
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
TOKENS = 8  # of every answer: what differs is their pace, so that long answers cost the machine no more than short ones
WARM_UP_S = 10.0


@dataclass(frozen=True, slots=True)
class Scene:
    """speeds: of the backends. pause_s: between two calls of a client, on average. beginnings: that conversations have.

    name: of its alias and deployment. lasts_s: after the warm-up.
    """

    name: str
    title: str
    speeds: tuple[float, ...]
    pause_s: float
    beginnings: int
    lasts_s: float


BUSY = Scene("busy", "queues on unequal backends", (1, 2, 4), pause_s=1.0, beginnings=CLIENTS, lasts_s=40.0)
UNEQUAL = Scene("unequal", "moderate load, unequal backends", (1, 2, 4), pause_s=4.5, beginnings=30, lasts_s=20.0)
EQUAL = Scene("equal", "moderate load, equal backends", (2, 2, 2), pause_s=4.5, beginnings=30, lasts_s=20.0)


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


def round_robin() -> Chooser:
    turns = itertools.count()
    return lambda run, _: next(turns) % len(run.engines)


@dataclass(frozen=True, slots=True)
class Door:
    """The running gateway, a key for it, and the backends."""

    gateway: processes.Gateway
    secret: str
    sims: Sequence[Simulator]

    def run(self, scene: Scene) -> tuple[list[Call], str]:
        """All calls of a scene, with their backends; and what share of a core everybody's processes took meanwhile."""
        pids = {"client": [os.getpid()], "gateway": self.gateway.workers(), "backends": [sim.process.pid for sim in self.sims]}
        begin_s, before = time.monotonic(), {pid: cpu_s(pid) for of in pids.values() for pid in of}
        calls = asyncio.run(self._clients(scene))
        wall_s = time.monotonic() - begin_s
        shares = {name: [(cpu_s(pid) - before[pid]) / wall_s for pid in of] for name, of in pids.items()}
        for at, sim in enumerate(self.sims):
            for request in sim.requests():
                calls[request["headers"]["x-request-id"].rpartition("-")[0]].backend = at  # what follows is the try's number
        return list(calls.values()), ", ".join(
            f"{name} {' '.join(f'{share:.0%}' for share in of)}" for name, of in shares.items()
        )

    async def _clients(self, scene: Scene) -> dict[str, Call]:
        calls: dict[str, Call] = {}
        begin_s = time.monotonic()

        async def client(number: int) -> None:
            dice = random.Random(number)
            await asyncio.sleep(dice.uniform(0, scene.pause_s))
            while (now_s := time.monotonic() - begin_s) < WARM_UP_S + scene.lasts_s:
                prompt_s, answer_s = PROMPT_S * dice.lognormvariate(-0.18, 0.6), ANSWER_S * dice.lognormvariate(-0.32, 0.8)
                call = Call(number, -1, now_s, prompt_s, answer_s)
                calls[await self._stream(scene, call, begin_s)] = call
                await asyncio.sleep(dice.expovariate(1 / scene.pause_s))

        await asyncio.gather(*(client(number) for number in range(CLIENTS)))
        return calls

    async def _stream(self, scene: Scene, call: Call, begin_s: float) -> str:
        """Read the whole answer, on a connection of its own, so that both workers get calls of all clients; its id."""
        pace = f"first_token_ms={call.prompt_s * 1000:.1f} tokens={TOKENS} tokens_per_s={(TOKENS - 1) / call.answer_s:.4f}"
        system = f"Department {call.client % scene.beginnings}. " * BEGINNING_MAX_CHARS
        messages = [
            {"role": "system", "content": system[:BEGINNING_MAX_CHARS]},
            {"role": "user", "content": f"Hello [[sim {pace}]]"},
        ]
        body = json.dumps({"model": scene.name, "stream": True, "messages": messages}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.port)
        writer.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {self.secret}\r\n"
            "Connection: close\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
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
    healthy = [f'sekisho_backend_state{{backend="{scene.name}-{at}"}} 3.0' for at in range(len(here.sims))]

    def are_well() -> bool:
        page = requests.get(f"{here.gateway.url}/metrics", timeout=20).text
        return all(sample in page for sample in healthy)

    processes.wait_until(are_well, "the backends were not found well")


def show(scene: Scene, calls: Sequence[Call], cpu: str, choosers: dict[str, Chooser]) -> None:
    """choosers: for the replays. What all others are compared with is `soonest`."""
    runs: dict[str, Run] = {"the gateway": Measured(scene, calls)}
    runs |= {name: Replay(scene, calls, choose) for name, choose in choosers.items()}
    least_s = Replay(scene, calls, soonest).first_token_s(0.95)
    count = sum(call.arrived_s >= WARM_UP_S for call in calls)
    print(f"{scene.title}: speeds {scene.speeds}, {SEATS} seats each; {count} calls in {scene.lasts_s:.0f} s. CPU: {cpu}")
    print(f"  {'first token, ms':34}{'p50':>7}{'p95':>7}{'p99':>7}  {'p95 to the soonest':>18}   calls of each backend")
    for name, run in runs.items():
        times = "".join(f"{run.first_token_s(part) * 1000:7.0f}" for part in (0.5, 0.95, 0.99))
        shares = " ".join(f"{share:4.0%}" for share in run.shares())
        print(f"  {name:34}{times}  {run.first_token_s(0.95) / least_s:18.2f}   {shares}")
    together = runs["the gateway"].same_backend()
    print(
        f"  {together:.1%} of the calls came to the backend that most of their beginning came to ({scene.beginnings} of them)\n"
    )


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started ends
    choosers = {"its choices, replayed": as_it_was, "omniscient: soonest": soonest, "omniscient: least loaded": least_loaded}
    simple = {"fewest calls of the same worker": least_own, "round robin": round_robin()}
    with door() as here:
        for scene in (BUSY, UNEQUAL, EQUAL):
            prepare(here, scene)
            show(scene, *here.run(scene), choosers | (simple if scene is BUSY else {}))


if __name__ == "__main__":
    main()
