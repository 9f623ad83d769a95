"""Passage: the usual events of a stream go on to its client where they are read, in the loop; nobody is woken for them.

To wake the greenlet that serves a stream, and to go up and down through all that it came by, costs more than what is done to an
event there: without a switch, 6 functions of Python's an event instead of 9 took a tenth off what one costs (2026-11).
"""

from collections.abc import Callable
from time import monotonic
from typing import Final

from gateway.upstream.framing import CHUNK, CHUNK_LINE_USUAL_BYTES, chunk_bytes, content_bytes
from gateway.upstream.metering import Meter
from gateway.upstream.sse import BLANK_LINE, USUAL_END, EventRewriter

_END: Final = BLANK_LINE + b"\r\n"  # of an event, and of the chunk
_END_BYTES: Final = len(_END)
_BLANK_BYTES: Final = len(BLANK_LINE)
_USUAL_START: Final = len(b"100\r\n")  # as of all chunks of 256 to 4,095 bytes: most need not be searched
_USUAL_CHUNK: Final = CHUNK.replace(b"%b", b"%b%b" + USUAL_END)  # the content: head, rest
_MORE_BYTES: Final = len(USUAL_END)


class Passage:
    """From a backend's chunks into a client's answer, read by read. It never waits, and takes nothing by halves.

    send: a chunk to the client, at once; False: it has not gone. quiet_max_s: how long the next event is awaited, at most until
    `ends`, monotonic seconds. last_at_s: when an event last went through.
    """

    __slots__ = ("_ends", "_meter", "_quiet_max_s", "_rewriter", "_send", "last_at_s")

    def __init__(
        self, rewriter: EventRewriter, meter: Meter, send: Callable[[bytes], bool], *, quiet_max_s: float, ends: float
    ) -> None:
        self._rewriter = rewriter
        self._meter = meter
        self._send = send
        self._quiet_max_s = quiet_max_s
        self._ends = ends
        self.last_at_s = 0.0

    def take(self, read: bytes) -> float:
        """Send on a read that is whole chunks, mostly one, with one usual event each. Returns until when the next one is
        awaited; 0.0: not taken.

        Each function less, each copy less is told here by what an event costs: what it touches is cold (gateway/README.md).
        """
        start = _USUAL_START
        size = chunk_bytes(read[:start])
        if size != len(read):
            start = read.find(b"\n", 0, CHUNK_LINE_USUAL_BYTES) + 1
            size = chunk_bytes(read[:start])
        if size == len(read):
            if not read.endswith(_END):
                return 0.0
            rewriter, end = self._rewriter, len(read) - _END_BYTES
            rest = rewriter.usual_rest(read, start, end)
            if rest is None:
                return 0.0
            head, send = rewriter.shown_head, self._send
            if not send(_USUAL_CHUNK % (len(head) + len(rest) + _MORE_BYTES, head, rest)):
                return 0.0
            self._meter.note_content(read[start:end])
        elif not 0 < size < len(read) or not self._take_several(read):
            return 0.0
        self.last_at_s = now = monotonic()
        until = now + self._quiet_max_s
        return until if until < self._ends else self._ends  # noqa: FURB136 - min() is a function more

    def _take_several(self, read: bytes) -> bool:
        """All or none. Where events come faster than they are taken, most reads are such: 500 streams that want more of a core
        than it has were served within 1.09 s for 1.14, at the 99th percentile (2026-11)."""
        chunks = read.split(_END)
        if chunks.pop():
            return False
        events = []
        for chunk in chunks:
            size, _, event = chunk.partition(b"\r\n")
            if content_bytes(size) != len(event) + _BLANK_BYTES:
                return False
            events.append(event)
        shown = self._rewriter.usual(events)
        if not shown or not self._send(CHUNK % (len(shown), shown)):
            return False
        self._meter.note_contents(events)
        return True
