"""Relay: the WSGI iterable that passes a backend's stream on to the client, and says exactly once how it ended."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Final

from gateway.upstream.client import UpstreamResponse
from gateway.upstream.errors import GenerationAborted, UpstreamAborted, UpstreamCut, UpstreamError, UpstreamSilence
from gateway.upstream.metering import Meter
from gateway.upstream.sse import EventKind, EventRewriter, EventSplitter
from usage.events import Outcome

KEEP_ALIVE: Final = b": keep-alive\n\n"

_CONTENT, _USAGE, _DONE, _ABORTED = EventKind.CONTENT, EventKind.USAGE, EventKind.DONE, EventKind.ABORTED


class Relay:
    """One streamed answer. An object, no generator: one that was never started has no finally.

    A stream is complete with `data: [DONE]` and nothing else; any other end is one error event, without [DONE], and closes the
    backend's connection at once. All that one read brought goes out as one item.

    error_event: error code -> the whole event to send for it. on_end: called exactly once, with the outcome and the error
    code, when the answer is over: complete, broken, out of time, or left by the client, even before the first item. It is
    called before the last item goes out, so that whoever has read [DONE] and calls again finds this call ended.
    deadline, first_event_deadline: monotonic seconds, for the whole answer and for its first event. keep_alive_s: silence
    after which the client gets a comment.
    """

    __slots__ = (
        "_deadline", "_error_code", "_error_event", "_has_ended", "_keep_alive_s", "_meter", "_on_end", "_outcome", "_ready",
        "_response", "_rewriter", "_splitter", "_whole_deadline", "first_event_at_s",
    )  # fmt: skip

    def __init__(
        self,
        response: UpstreamResponse,
        rewriter: EventRewriter,
        meter: Meter,
        *,
        error_event: Callable[[str], bytes],
        on_end: Callable[[Outcome, str | None], None],
        deadline: float,
        first_event_deadline: float = inf,
        keep_alive_s: float = 15.0,
    ) -> None:
        self._response = response
        self._splitter = EventSplitter()
        self._rewriter = rewriter
        self._meter = meter
        self._error_event = error_event
        self._on_end = on_end
        self._deadline = min(deadline, first_event_deadline)
        self._whole_deadline = deadline
        self._keep_alive_s = keep_alive_s
        self._ready: list[bytes] = []  # events to send
        self._outcome: Outcome | None = None
        self._error_code: str | None = None
        self._has_ended = False
        self.first_event_at_s: float | None = None  # monotonic; vLLM's head comes before the first token, its event does not

    def wait_for_first_event(self, patience_s: float) -> bool:
        """Hold the answer back until its first event is there (True), at most patience_s (False: it is silent so far).

        Raises the UpstreamError when the backend fails before anything was sent, so that the client can still get a status.
        The relay is over then and its connection closed; on_end is not called, the call is the caller's again. So it is when
        the deadline passes (UpstreamSilence) or the client leaves (UpstreamAborted).
        """
        until = min(monotonic() + patience_s, self._deadline)
        try:
            while not self._ready:
                self._read(until - monotonic())
        except UpstreamSilence:
            if until < self._deadline:
                return False
            self._abandon()
            raise
        except BaseException:
            self._abandon()
            raise
        return True

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        item = b""
        if self._outcome is None:
            try:
                item = self._next_item()
            except BaseException:
                self._fail("internal_error")
                raise
        elif self._ready:  # decided while the first event was waited for
            item = self._take_ready()
        if self._outcome is not None:
            self.close()
        if item:
            return item
        raise StopIteration

    def close(self) -> None:
        """The server calls this whatever happened. Before the end it means that the client has left."""
        if self._has_ended:
            return
        self._has_ended = True
        outcome = self._outcome or "client_left"
        if outcome == "client_left":
            self._meter_rest()
        self._response.close(reuse=outcome == "completed")
        self._on_end(outcome, self._error_code)

    def cancel(self) -> None:
        """The client is gone: wakes a blocked __next__, which then ends. Safe from any greenlet or thread, at any time."""
        self._response.abort()

    def _next_item(self) -> bytes:
        """What to send next; b"" when there is nothing more."""
        try:
            wait_s = self._keep_alive_s
            until = monotonic() + wait_s
            if until > self._deadline:
                until = self._deadline
                wait_s = until - monotonic()
            while not self._ready and self._outcome is None:
                self._read(wait_s)
                wait_s = until - monotonic()
        except UpstreamSilence:
            if monotonic() < self._deadline:
                return KEEP_ALIVE
            self._fail("upstream_timeout", "timeout")
        except UpstreamAborted:
            self._outcome = "client_left"
            self._ready.clear()
        except UpstreamError:
            self._fail("upstream_unavailable")
        return self._take_ready()

    def _read(self, timeout_s: float) -> None:
        """Read once and make ready what came. Raises UpstreamError; what came before the fault stays ready."""
        data = self._response.read_some(timeout_s)
        if not data:
            raise UpstreamCut("the stream ended without [DONE]")
        self._take(data)
        if self._ready and self.first_event_at_s is None:
            self.first_event_at_s = monotonic()
            self._deadline = self._whole_deadline

    def _take(self, data: bytes) -> None:
        """Meter and make ready the events in `data`. Raises UpstreamError."""
        for event in self._splitter.feed(data):
            kind, shown = self._rewriter.rewrite(event)
            if kind is _CONTENT:
                self._meter.note_content(event)
            elif kind is _USAGE:
                self._meter.note_final(event)
            elif kind is _ABORTED:
                self._meter.note_content(event)
                raise GenerationAborted
            if shown:
                self._ready.append(shown)
            if kind is _DONE:
                self._outcome = "completed"
                break

    def _meter_rest(self) -> None:
        """Nobody reads on, but the backend has generated all that it sent until it knew."""
        with suppress(UpstreamError):
            for data in self._response.rest():
                self._take(data)
        self._ready.clear()

    def _fail(self, code: str, outcome: Outcome = "failed") -> None:
        self._outcome = outcome
        self._error_code = code
        self._response.close(reuse=False)

    def _abandon(self) -> None:
        self._has_ended = True
        self._ready.clear()
        self._response.close(reuse=False)

    def _take_ready(self) -> bytes:
        item = b"".join(self._ready)
        self._ready.clear()
        if self._error_code is not None:
            item += self._error_event(self._error_code)
        return item
