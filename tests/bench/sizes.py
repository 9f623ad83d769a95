"""What a byte costs on its way through: .venv/bin/python -m tests.bench.sizes

Requests, plain answers and single events of growing size, before a simulated vLLM; CPU time of the gateway's processes by call,
less that of a call with the smallest one, by kilobyte: a figure that grows with the size is a cliff.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from tests.bench.callers import call_on, chat, cpu_of, pinned
from tests.bench.stand import KEY, standing
from tests.processes import Gateway
from tests.simulator import simulator

SIZES_KB: Final = (1, 4, 11, 64, 256, 1024)
CONNECTIONS, ROUNDS, CALLS, LARGE_CALLS = 4, 3, 60, 12
LINE: Final = "All who pass the barrier show their permit, and who has none goes back. "


def body(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "mock", "messages": [{"role": "user", "content": text}], **more}


def text_of(kilobytes: int) -> str:
    return (LINE * (kilobytes * 1024 // len(LINE) + 1))[: kilobytes * 1024]


KINDS: Final[dict[str, Callable[[int], dict[str, Any]]]] = {
    "request": lambda kb: body(text_of(kb)),
    "request of many parts": lambda kb: {
        "model": "mock",
        "messages": [{"role": ("user", "assistant")[n % 2], "content": LINE * 7} for n in range(kb * 2)],
    },
    "plain answer": lambda kb: body(f"[[sim big_event_bytes={kb * 1024} tokens=2]]"),
    "event": lambda kb: body(f"[[sim big_event_bytes={kb * 1024} tokens=2]]", stream=True),
}


def call_us(gateway: Gateway, request: bytes, kilobytes: int) -> float:
    count = CALLS if kilobytes < 256 else LARGE_CALLS  # the stand-in is slow to count the tokens of the large ones
    begin_s = cpu_of(gateway)
    calls = call_on(gateway.port, request, connections=CONNECTIONS, seconds=120, calls=count)
    if set(calls.statuses) != {200}:
        raise RuntimeError(f"calls failed: {calls.statuses}")
    return (cpu_of(gateway) - begin_s) / len(calls.seconds) * 1e6


@contextmanager
def running() -> Iterator[Gateway]:
    with simulator("--model", "mock", "--max-model-len", "8000000", tokens=2) as sim, standing(sim.address[1]) as gateway:
        pinned([os.getpid(), sim.process.pid], 0)
        pinned([gateway.process.pid, *gateway.workers()], 1)
        yield gateway


def main() -> None:
    with running() as gateway:
        costs: dict[tuple[str, int], list[float]] = {}
        for turn in range(ROUNDS + 1):
            for name, made in KINDS.items():
                for size in SIZES_KB:
                    cost = call_us(gateway, chat(KEY, made(size)), size)
                    if turn:  # the first is for warming up
                        costs.setdefault((name, size), []).append(cost)
        sys.stdout.write(
            f"{'us of CPU a call':24}{''.join(f'{size:>7} kB' for size in SIZES_KB)}   a kB more, from 64, 256, 1024 kB\n"
        )
        for name in KINDS:
            each = {size: min(costs[name, size]) for size in SIZES_KB}
            more = [(each[size] - each[1]) / (size - 1) for size in SIZES_KB if size >= 64]
            cells = "".join(f"{us:10.0f}" for us in each.values())
            sys.stdout.write(f"{name:24}{cells}   {', '.join(f'{us:.1f}' for us in more)} us\n")


if __name__ == "__main__":
    main()
