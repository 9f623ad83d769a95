"""Five hundred streams at once through one worker: none lost, none reordered, none that costs much memory."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.e2e.conftest import CHAT, Stand

STREAMS = 500
TOKENS = 99  # with the first event, which carries the role: 100
WORKER_MAX_BYTES = 300 * 1024 * 1024


async def read_stream(stand: Stand, body: bytes) -> list[int]:
    """The running count of tokens that each event bears, in the order of arrival; ends with -1 for [DONE]."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stand.gateway.port)
    writer.write(
        f"POST {CHAT} HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {stand.secret}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    counts = []
    assert b" 200 " in await reader.readline()
    async for line in reader:
        if line.startswith(b"data: {"):
            counts.append(json.loads(line[6:])["usage"]["completion_tokens"])
        elif line.startswith(b"data: [DONE]"):
            counts.append(-1)
    writer.close()
    return counts


async def read_all(stand: Stand, body: bytes) -> list[list[int]]:
    return await asyncio.gather(*(read_stream(stand, body) for _ in range(STREAMS)))


def resident_bytes(pid: int) -> int:
    """Resident memory of the largest child of a gunicorn master."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    statuses = (Path(f"/proc/{child}/status").read_text() for child in children)
    return max(int(line.split()[1]) * 1024 for status in statuses for line in status.splitlines() if line.startswith("VmHWM"))


@pytest.mark.xdist_group("heavy")
def test_500_concurrent_streams_arrive_whole_and_in_order(stand: Stand) -> None:
    stand.vllm.knobs(tokens_per_s=40)  # each stream lasts about 2.5 s: all of them overlap
    request = {
        "model": "general", "stream": True, "max_tokens": TOKENS, "ignore_eos": True,
        "messages": [{"role": "user", "content": "Hello"}],
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }  # fmt: skip
    streams = asyncio.run(read_all(stand, json.dumps(request).encode()))
    assert len(streams) == STREAMS
    for counts in streams:
        *running, final, done = counts
        assert (final, done) == (TOKENS, -1)
        assert running[0] == 0
        assert running == sorted(running)
        assert running[-1] == TOKENS
        assert len(running) == TOKENS + 1
    print(f"largest worker: {resident_bytes(stand.gateway.process.pid) / 2**20:.0f} MB resident at most")
    assert resident_bytes(stand.gateway.process.pid) < WORKER_MAX_BYTES
    stand.until(lambda: len(stand.events_of_acme()) >= STREAMS, "usage events are missing")
    events = [event for event in stand.events_of_acme() if event.stream]
    assert len({event.request_id for event in events}) == STREAMS
    assert {(event.outcome, event.completion_tokens) for event in events} == {("completed", TOKENS)}
