"""How fast the stand-in is, as the other end of a load test: .venv/bin/python -m tests.bench.simulator

Closed loop over keep-alive connections; the client only looks for the end of each answer. Rates are by the wall clock, client
and stand-in on cores of their own where there are two; then what one core of the stand-in could do, by the CPU time it used.
"""

import os
import selectors
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.gateway.simulator.wire import post
from tests.simulator import Simulator, simulator

SECONDS = 4.0
MESSAGES = [{"role": "user", "content": "Hello, how are you today?"}]
USAGE = {"include_usage": True, "continuous_usage_stats": True}
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def run(sim: Simulator, name: str, unit: str, connections: int, worth: int, **body: Any) -> None:
    """Call for SECONDS; worth: units an answer has. Answers under way at the end count in part."""
    request = post("/v1/chat/completions", {"model": "tiny", "messages": MESSAGES, **body})
    is_whole = ended_stream if body.get("stream") else ended_body
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        sock = socket.create_connection(sim.address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(sock, selectors.EVENT_READ, bytearray())
        sock.sendall(request)
    begin_s, cpu_begin_s, sizes = time.monotonic(), cpu_s(sim.process.pid), [0]
    while time.monotonic() - begin_s < SECONDS:
        for key, _ in selector.select(0.5):
            take(key, is_whole, request, sizes)
    wall_s, used_s = time.monotonic() - begin_s, cpu_s(sim.process.pid) - cpu_begin_s
    rest = list(selector.get_map().values())
    answers = len(sizes) - 1 + sum(len(key.data) for key in rest) / max(sizes)
    for key in rest:
        key.fileobj.close()  # type: ignore[union-attr]
    rates = f"{answers * worth / wall_s:>10,.0f} {unit}/s {answers * worth / max(used_s, 0.01):>12,.0f} a core"
    sys.stdout.write(f"{name:<46}{rates}   ({used_s / wall_s:4.0%} of a core)\n")


def take(key: selectors.SelectorKey, is_whole: Callable[[bytearray], bool], request: bytes, sizes: list[int]) -> None:
    """Read; when the answer is whole, note its size and ask again."""
    sock, inbox = key.fileobj, key.data
    assert isinstance(sock, socket.socket)
    inbox += sock.recv(262144)
    if is_whole(inbox):
        sizes.append(len(inbox))
        inbox.clear()
        sock.sendall(request)


def ended_stream(inbox: bytearray) -> bool:
    return inbox.endswith(b"\r\n0\r\n\r\n")


def ended_body(inbox: bytearray) -> bool:
    return inbox.endswith(b'"metrics":null}')


def main() -> None:
    os.sched_setaffinity(0, {0})
    with simulator(tokens=100) as sim:
        cores = os.cpu_count() or 1
        os.sched_setaffinity(sim.process.pid, {cores - 1})
        stream: dict[str, Any] = {"stream": True}
        run(sim, "plain calls, 100 tokens", "calls", 32, 1)
        run(sim, "plain calls, 1 token", "calls", 32, 1, max_tokens=1)
        run(sim, "streams of 103 events, full speed", "events", 32, 103, **stream, stream_options={"include_usage": True})
        run(sim, "the same with running usage", "events", 32, 103, **stream, stream_options=USAGE)
        for tokens_per_s, connections in ((50, 200), (50, 500), (100, 500)):
            sim.knobs(tokens_per_s=tokens_per_s, first_token_ms=20)
            name = f"{connections} streams at {tokens_per_s} tokens/s, running usage"
            run(sim, name, "events", connections, 103, **stream, stream_options=USAGE)


if __name__ == "__main__":
    main()
