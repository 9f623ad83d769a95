"""What relaying costs a streamed event, in CPU: .venv/bin/python -m tests.bench.relay

A stream of 100 events as vLLM sends it, one HTTP chunk an event, in reads of 1, 10 and 100 events; and chunks as they pass from
one socket to the other, without the sockets. The yardstick (a search for 20 bytes in one event) tells machines apart.
"""

import sys
import timeit
from collections.abc import Callable
from functools import partial
from math import inf
from pathlib import Path
from time import process_time

from gateway.upstream.framing import ChunkedBody
from gateway.upstream.metering import Meter
from gateway.upstream.passage import Passage
from gateway.upstream.sse import BLANK_LINE, EventKind, EventRewriter, EventSplitter

RECORDED = Path(__file__).parents[1] / "recorded" / "chat-stream-usage-continuous.body"
EVENTS = 100


def stream() -> list[bytes]:
    """The recording, with its content events repeated to EVENTS in all."""
    first, *content, last, usage, done, _ = RECORDED.read_bytes().split(BLANK_LINE)
    middle = (content * EVENTS)[: EVENTS - 4]
    return [event + BLANK_LINE for event in (first, *middle, last, usage, done)]


def new_rewriter(*, shows_running_usage: bool = False) -> EventRewriter:
    return EventRewriter(
        completion_id="chatcmpl-0198c0de-0000-7000-8000-000000000000",
        alias="general",
        created_s=None,
        shows_usage=True,
        shows_running_usage=shows_running_usage,
    )


def rewrite(reads: list[bytes], *, shows_running_usage: bool = False, metered: bool = False) -> None:
    splitter, rewriter = EventSplitter(), new_rewriter(shows_running_usage=shows_running_usage)
    meter = Meter()
    for read in reads:
        ready = []
        for event in splitter.feed(read):
            kind, shown = rewriter.rewrite(event)
            if metered and kind is EventKind.CONTENT:
                meter.note_content(event)
            if shown:
                ready.append(shown)
        b"".join(ready)


def dechunk(reads: list[bytes]) -> None:
    body = ChunkedBody()
    for read in reads:
        body.feed(read)


def pass_by(reads: list[bytes]) -> None:
    rewriter, splitter = new_rewriter(), EventSplitter()
    passage = Passage(rewriter, Meter(), bool, quiet_max_s=15.0, ends=inf)
    for read in reads:
        if not passage.take(read):
            for event in splitter.feed(read[read.find(b"\n") + 1 : -2]):
                rewriter.rewrite(event)


def us_per_event(run: Callable[[], None]) -> float:
    best_s: float = min(timeit.repeat(run, number=50, repeat=15, timer=process_time))
    return best_s / 50 / EVENTS * 1e6


def main() -> None:
    events = stream()
    needle_s = min(timeit.repeat(lambda: b'"system_fingerprint":' in events[50], number=20_000, repeat=9, timer=process_time))
    sys.stdout.write(f"yardstick {needle_s / 20_000 * 1e6:.2f} us; CPU us an event, by events a read:\n")
    for size in (1, 10, 100):
        batches = [events[at : at + size] for at in range(0, EVENTS, size)]
        reads = [b"".join(batch) for batch in batches]
        chunks = [b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in batch) for batch in batches]
        measures = {
            "split and rewrite": partial(rewrite, reads),
            "with running usage": partial(rewrite, reads, shows_running_usage=True),
            "metered": partial(rewrite, reads, metered=True),
            "chunked framing": partial(dechunk, chunks),
        }
        figures = ", ".join(f"{name} {us_per_event(run):.2f}" for name, run in measures.items())
        sys.stdout.write(f"  {size:3}: {figures}\n")
    chunks = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    sys.stdout.write(f"passed by, one chunk a read: {us_per_event(partial(pass_by, chunks)):.2f}\n")


if __name__ == "__main__":
    main()
