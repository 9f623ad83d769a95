"""What a call costs where many are configured: .venv/bin/python -m tests.bench.tenants [TENANTS]

Two stands side by side, one with a single tenant and key, one with 1,000 tenants of 100 keys each beside them; the same plain
calls through both in turn, CPU time of the gateway's processes by call, and its memory.
"""

import os
import re
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.bench.callers import call_on, chat, cpu_of, pinned
from tests.bench.stand import KEY, standing
from tests.processes import Gateway
from tests.simulator import simulator

CONNECTIONS, CALLS, ROUNDS = 16, 1000, 7
PLAIN: Final = chat(KEY, {"model": "mock", "messages": [{"role": "user", "content": "Hello, how are you today?"}]})


def call_us(gateway: Gateway) -> float:
    begin_s = cpu_of(gateway)
    calls = call_on(gateway.port, PLAIN, connections=CONNECTIONS, seconds=120, calls=CALLS)
    if set(calls.statuses) != {200}:
        raise RuntimeError(f"calls failed: {calls.statuses}")
    return (cpu_of(gateway) - begin_s) / len(calls.seconds) * 1e6


def pss_mb(gateway: Gateway) -> float:
    """Of master and worker; what they share is counted once."""
    texts = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in (gateway.process.pid, *gateway.workers()))
    return sum(int(found[1]) for text in texts if (found := re.search(r"Pss:\s+(\d+)", text))) * 1024 / 1e6


def main() -> None:
    tenants = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with ExitStack() as stack:
        sim = stack.enter_context(simulator("--model", "mock", tokens=20))
        stands = {f"{count + 1:,} tenants": ("--tenants", str(count)) for count in (0, tenants)}
        running = {name: stack.enter_context(standing(sim.address[1], *extra)) for name, extra in stands.items()}
        pinned([os.getpid(), sim.process.pid], 0)
        for gateway in running.values():
            pinned([gateway.process.pid, *gateway.workers()], 1)
            call_us(gateway)
        costs: dict[str, list[float]] = {name: [] for name in running}
        for turn in range(ROUNDS):
            for name in (list(running), list(running)[::-1])[turn % 2]:
                costs[name].append(call_us(running[name]))
        one = next(iter(costs.values()))
        for name, each in costs.items():
            ratio = statistics.median(many / few for many, few in zip(each, one, strict=True))
            us = f"{statistics.median(each):8.0f} us of CPU a call ({min(each):.0f}-{max(each):.0f})"
            sys.stdout.write(f"{name:16}{us}{ratio:7.2f} times{pss_mb(running[name]):9.1f} MB\n")


if __name__ == "__main__":
    main()
