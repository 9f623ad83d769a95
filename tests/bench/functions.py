"""How many functions a plain call and an event of a stream go through, and how many objects they leave to the collector of
garbage: python -m tests.bench.functions [--most N]

Unlike a time, a count is the same on every machine, and however busy it is. One worker, everything on (`stand.py`), a simulated
vLLM; eight callers at once. What runs beside calls (probes, leases, the watch) is in it, shared out over many calls.
"""

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.bench.callers import call_on, chat
from tests.bench.stand import KEY, standing
from tests.processes import Gateway, wait_until
from tests.simulator import simulator

CALLERS, CALLS, STREAMS, EVENTS = 8, 400, 16, 400
TOKENS_PER_S = 200  # slow enough that each event is a read of its own, as in real decoding
HELLO: Final[dict[str, Any]] = {"model": "mock", "messages": [{"role": "user", "content": "Hello, how are you today?"}]}
Counts = dict[str, dict[str, int]]


def counted(gateway: Gateway, told: Path, request: bytes, calls: int, *, callers: int = CALLERS, status: int = 200) -> Counts:
    """Calls of Python's functions and of C's, each by its place; and garbage, by its type. status: of each answer."""
    [worker] = gateway.workers()
    told.unlink(missing_ok=True)
    os.kill(worker, signal.SIGUSR2)
    answered = call_on(gateway.port, request, connections=callers, seconds=120, calls=calls)
    if set(answered.statuses) != {status}:
        raise RuntimeError(f"answered {answered.statuses}")
    os.kill(worker, signal.SIGUSR2)
    wait_until(told.exists, "the worker told nothing")
    counts: Counts = json.loads(told.read_text())
    return counts


def show(what: str, counts: Counts, per: float, most: int) -> None:
    totals = {kind: sum(places.values()) / per for kind, places in counts.items()}
    sys.stdout.write(
        f"\n{what}: {totals['python']:.1f} of Python, {totals['c']:.1f} of C, {totals['garbage']:.1f} left as garbage\n"
    )
    every = [(n / per, kind, name) for kind, functions in counts.items() for name, n in functions.items()]
    for n, kind, name in sorted(every, reverse=True)[:most]:
        sys.stdout.write(f"{n:9.2f}  {kind:6}  {name}\n")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.functions")
    parser.add_argument("--most", type=int, default=40, metavar="N", help="show the N functions that are called most")
    most: int = parser.parse_args(arguments).most
    with TemporaryDirectory() as name, simulator("--model", "mock", tokens=EVENTS, tokens_per_s=TOKENS_PER_S) as sim:
        told = Path(name) / "functions.json"
        config = Path(__file__).with_name("counting_gateway.py")
        with standing(sim.address[1], config=config, SEKISHO_BENCH_FUNCTIONS=str(told)) as gateway:
            plain, stream = chat(KEY, HELLO | {"max_tokens": 1}), chat(KEY, HELLO | {"stream": True, "max_tokens": EVENTS})
            for request in (plain, stream):
                call_on(gateway.port, request, connections=CALLERS, seconds=120, calls=40)
            show("a plain call", counted(gateway, told, plain, CALLS), CALLS, most)
            show("an event of a stream, its call included", counted(gateway, told, stream, STREAMS), STREAMS * EVENTS, most)


if __name__ == "__main__":
    main(sys.argv[1:])
