"""Closed loops of callers over kept-alive connections, and what they send: what the benches of a whole gateway share."""

import json
import os
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.processes import Gateway

READ_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Calls:
    """What callers saw. seconds: of each call, in no order; statuses: which ones came, with how many of each."""

    seconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    answered_bytes: int = 0

    def percentile_ms(self, part: float) -> float:
        ordered = sorted(self.seconds)
        return ordered[int(part * (len(ordered) - 1))] * 1000


@dataclass(slots=True)
class _Caller:
    inbox: bytearray = field(default_factory=bytearray)
    asked_s: float = 0.0
    size: int = 0  # of the answer that is coming, once its head is there; 0: not yet; -1: it ends with its last chunk


def chat(secret: str, body: dict[str, Any]) -> bytes:
    """A whole request as SDKs send it."""
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {secret}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


def call_on(port: int, request: bytes, *, connections: int, seconds: float, calls: int = 0) -> Calls:
    """Each connection asks again as soon as it is answered, for so long or, where `calls` is given, until so many came back."""
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(sock, selectors.EVENT_READ, _Caller())
        _ask(sock, selector.get_key(sock).data, request)
    times: list[float] = []
    statuses: dict[int, int] = {}
    received = 0
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s and (not calls or len(times) < calls):
        for key, _ in selector.select(0.2):
            sock, caller = key.fileobj, key.data
            assert isinstance(sock, socket.socket)
            data = sock.recv(READ_BYTES)
            if not data:
                raise ConnectionError(f"cut after {bytes(caller.inbox[-300:])!r}")
            caller.inbox += data
            if _is_whole(caller):
                status = int(caller.inbox[9:12])
                statuses[status] = statuses.get(status, 0) + 1
                times.append(time.monotonic() - caller.asked_s)
                received += len(caller.inbox)
                _ask(sock, caller, request)
    for key in list(selector.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]
    return Calls(times, statuses, received)


def _ask(sock: socket.socket, caller: _Caller, request: bytes) -> None:
    caller.inbox.clear()
    caller.size = 0
    caller.asked_s = time.monotonic()
    sock.sendall(request)


def _is_whole(caller: _Caller) -> bool:
    inbox = caller.inbox
    if not caller.size:
        head, blank, _ = bytes(inbox[:4096]).lower().partition(b"\r\n\r\n")
        if not blank:
            return False
        _, is_sized, length = head.partition(b"content-length: ")
        caller.size = len(head) + 4 + int(length.partition(b"\r\n")[0]) if is_sized else -1
    return inbox.endswith(b"\r\n0\r\n\r\n") if caller.size < 0 else len(inbox) >= caller.size


def cpu_of(gateway: Gateway) -> float:
    """Seconds of CPU that master and workers have used, in all their threads; the kernel's ticks of 10 ms are too coarse."""
    threads = (Path(f"/proc/{pid}/task").glob("*/schedstat") for pid in (gateway.process.pid, *gateway.workers()))
    return sum(int(path.read_text().split()[0]) for paths in threads for path in paths) / 1e9


def pinned(pids: Sequence[int], cpu: int) -> None:
    """Keep processes, with all their threads, on one core; where there is only one, nothing changes."""
    cores = sorted(os.sched_getaffinity(0))
    for pid in pids:
        os.sched_setaffinity(pid, {cores[cpu % len(cores)]})
