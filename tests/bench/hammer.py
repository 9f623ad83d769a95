"""What others feel of a client that asks nothing but refusals, on 64 kept-alive connections: python -m tests.bench.hammer

One gateway worker on a core of its own before a simulated vLLM; on the other core the stand-in, four callers of plain calls,
and, in a process of its own, who hammers. Latency of the plain calls alone, then under each kind of refusal, in turn.
"""

import multiprocessing
import os
import statistics
import sys
import time
from typing import Any, Final

from tests.bench.callers import Calls, call_on, chat, pinned
from tests.bench.stand import KEY, SPENT_KEY, standing
from tests.simulator import simulator

HAMMERS, CALLERS, SECONDS, ROUNDS = 64, 4, 4.0, 3
HELLO: Final[dict[str, Any]] = {"model": "mock", "messages": [{"role": "user", "content": "Hello, how are you today?"}]}
PLAIN: Final = chat(KEY, HELLO)
REFUSED: Final = {
    401: chat("bench-key-that-nobody-has-0123456789", HELLO),
    429: chat(SPENT_KEY, HELLO),
    400: chat(KEY, HELLO | {"n": 0}),
    404: chat(KEY, HELLO | {"model": "no-such-model"}),
}


def hammer(port: int, status: int, results: "multiprocessing.Queue[float]") -> None:
    """Refusals a second. It gives way to those who measure."""
    os.nice(10)
    calls = call_on(port, REFUSED[status], connections=HAMMERS, seconds=SECONDS + 1)
    if set(calls.statuses) != {status}:
        raise RuntimeError(f"answered {calls.statuses}, not {status}")
    results.put(len(calls.seconds) / (SECONDS + 1))


def measured(port: int, status: int | None) -> tuple[Calls, float]:
    """What plain callers saw, and how many refusals a second went out meanwhile."""
    if status is None:
        return call_on(port, PLAIN, connections=CALLERS, seconds=SECONDS), 0.0
    results: multiprocessing.Queue[float] = multiprocessing.Queue()
    process = multiprocessing.Process(target=hammer, args=(port, status, results))
    process.start()
    time.sleep(0.5)
    calls = call_on(port, PLAIN, connections=CALLERS, seconds=SECONDS)
    rate = results.get(timeout=30)
    process.join()
    return calls, rate


def main() -> None:
    with simulator("--model", "mock", tokens=20) as sim, standing(sim.address[1]) as gateway:
        pinned([os.getpid(), sim.process.pid], 0)
        pinned([gateway.process.pid, *gateway.workers()], 1)
        seen: dict[int | None, list[tuple[Calls, float]]] = {None: [], **{status: [] for status in REFUSED}}
        call_on(gateway.port, PLAIN, connections=CALLERS, seconds=2)
        for _ in range(ROUNDS):
            for status, rounds in seen.items():
                rounds.append(measured(gateway.port, status))
        sys.stdout.write(f"{'':24}{'p50':>9}{'p99':>9}{'most':>9} ms   plain calls/s   refusals/s\n")
        for status, rounds in seen.items():
            if any(set(calls.statuses) != {200} for calls, _ in rounds):
                raise RuntimeError(f"plain calls failed: {[calls.statuses for calls, _ in rounds]}")
            parts = [statistics.median(calls.percentile_ms(part) for calls, _ in rounds) for part in (0.5, 0.99, 1)]
            rates = (
                statistics.median(len(calls.seconds) / SECONDS for calls, _ in rounds),
                statistics.median(r for _, r in rounds),
            )
            name = "nobody hammers" if status is None else f"64 hammer for {status}s"
            figures = "".join(f"{part:9.2f}" for part in parts)
            sys.stdout.write(f"{name:24}{figures}{rates[0]:19,.0f}{rates[1]:13,.0f}\n")


if __name__ == "__main__":
    main()
