"""Relay: the WSGI iterable that passes a backend's stream on to the client, and says exactly once how it ended."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Final

from gateway.policy.stream_guard import StreamGuard
from gateway.upstream.client import UpstreamResponse
from gateway.upstream.errors import GenerationAborted, UpstreamAborted, UpstreamCut, UpstreamError, UpstreamSilence
from gateway.upstream.metering import Meter
from gateway.upstream.passage import Passage
from gateway.upstream.sse import DONE, EventKind, EventRewriter, EventSplitter, event_data
from usage.events import Outcome

KEEP_ALIVE: Final = b": keep-alive\n\n"
# A read that brings as much is progress even inside of an event, of which some are megabytes; a drip never is.
BULK_BYTES: Final = 4096

_CONTENT, _USAGE, _DONE, _ABORTED = EventKind.CONTENT, EventKind.USAGE, EventKind.DONE, EventKind.ABORTED


class Relay:
    """One streamed answer. An object, no generator: one that was never started has no finally.

    A stream is complete with `data: [DONE]` and nothing else; any other end is one error event, without [DONE], and closes the
    backend's connection at once. All that one read brought goes out as one item. Until the first event has gone out another
    backend may still take over, however many comments have.

    error_event: how it failed (an `ending` of errors.py, internal_error, gateway_stopped) -> the whole event to send for it.
    on_end: called exactly once, with the outcome and how it failed, when the answer is over: complete, broken, out of time,
    or left by the client, even before the first item. It is called before the last item goes out, so that whoever has read
    [DONE] and calls again finds this call ended. on_first_event: called when that is there, perhaps after comments.
    take_over: told how the answer failed before its first event, another backend's answer in its place, and the deadline of
    its first event; raises NobodyLeft.
    is_broken_off: where the call was cancelled, did this gateway do it, and not the client?
    deadline, first_event_deadline: monotonic seconds, for the whole answer and for its first event. stall_max_s: the longest
    silence between two events; a few bytes of one do not break it. keep_alive_s: silence after which the client
    gets a comment. guard: lets the events pass, or what of them may; where it ends the answer the backend is stopped.
    """

    __slots__ = (
        "_deadline", "_error_event", "_failure", "_guard", "_has_ended", "_is_broken_off", "_is_quiet", "_is_stopped",
        "_keep_alive_s", "_meter", "_on_end", "_on_first_event", "_outcome", "_passage", "_ready", "_response", "_rewriter",
        "_splitter", "_stall_max_s", "_take_over", "_whole_deadline", "first_event_at_s",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - what one answer is, each by its name
        self,
        response: UpstreamResponse,
        rewriter: EventRewriter,
        meter: Meter,
        *,
        error_event: Callable[[str], bytes],
        on_end: Callable[[Outcome, str | None], None],
        on_first_event: Callable[[], None] = lambda: None,
        take_over: Callable[[UpstreamError], tuple[UpstreamResponse, float]] | None = None,
        is_broken_off: Callable[[], bool] = lambda: False,
        deadline: float,
        first_event_deadline: float = inf,
        stall_max_s: float = inf,
        keep_alive_s: float = 15.0,
        guard: StreamGuard | None = None,
    ) -> None:
        self._response = response
        self._splitter = EventSplitter()
        self._rewriter = rewriter
        self._meter = meter
        self._error_event = error_event
        self._on_end = on_end
        self._on_first_event = on_first_event
        self._take_over = take_over
        self._is_broken_off = is_broken_off
        self._deadline = min(deadline, first_event_deadline)  # for the next event
        self._whole_deadline = deadline
        self._stall_max_s = stall_max_s
        self._keep_alive_s = keep_alive_s
        self._guard = guard
        self._passage: Passage | None = None
        self._is_stopped = False  # by the guard, before its backend was done
        self._ready: list[bytes] = []  # events to send
        self._outcome: Outcome | None = None
        self._failure: str | None = None
        self._is_quiet = False  # the last item was a comment
        self._has_ended = False
        self.first_event_at_s: float | None = None  # monotonic; vLLM's head comes before the first token, its event does not

    def passes_to(self, send: Callable[[bytes], bool]) -> None:
        """Usual events may go out by `send`, see Passage, between two items that are asked for."""
        quiet_max_s = min(self._stall_max_s, self._keep_alive_s)
        self._passage = Passage(self._rewriter, self._meter, send, quiet_max_s=quiet_max_s, ends=self._whole_deadline)

    def wait_for_first_event(self, patience_s: float) -> bool:
        """Hold the answer back until its first event is there (True), at most patience_s (False: it is silent so far).

        Raises the UpstreamError when the backend fails before anything was sent, so that the client can still get a status.
        The relay is over then and its connection closed; on_end is not called, the call is the caller's again. So it is when
        the deadline passes (UpstreamSilence) or the client leaves (UpstreamAborted).
        """
        until = min(monotonic() + patience_s, self._deadline)
        try:
            while not self._ready:
                self._take(self._response.read_some(until))
            self._note_first_event()
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
        if self._outcome is None or self._ready:  # it may be decided while the first event was waited for
            try:
                item = self._next_item()
            except BaseException:
                self._fail("internal_error")
                raise
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
        self._response.close(reuse=outcome == "completed" and not self._is_stopped)
        self._on_end(outcome, self._failure)

    def cancel(self) -> None:
        """The client is gone: wakes a blocked __next__, which then ends. Safe from any greenlet or thread, at any time."""
        self._response.abort()

    def _next_item(self) -> bytes:
        """What to send next; b"" when there is nothing more."""
        now, has_begun = monotonic(), self.first_event_at_s is not None
        if has_begun and not self._is_quiet:
            self._deadline = min(self._whole_deadline, now + self._stall_max_s)
        until = min(self._deadline, now + self._keep_alive_s)
        passage = self._passage if has_begun and self._guard is None else None
        try:
            while not self._ready and self._outcome is None:
                takes = None if passage is None or self._splitter.held_bytes else passage.take
                data = self._response.read_some(until, takes)
                self._take(data)
                if has_begun and not self._ready and len(data) >= BULK_BYTES:
                    self._deadline = min(self._whole_deadline, monotonic() + self._stall_max_s)
            if not has_begun:
                self._note_first_event()
        except UpstreamError as error:
            is_silence = isinstance(error, UpstreamSilence)
            if passage is not None and passage.last_at_s > now:
                self._deadline = min(self._whole_deadline, passage.last_at_s + self._stall_max_s)
            if (is_silence and monotonic() < self._deadline) or self._goes_on_after(error):
                self._is_quiet = True
                return KEEP_ALIVE
        ready, self._ready = self._ready, []
        self._is_quiet = False
        if self._failure is not None:
            ready.append(self._error_event(self._failure))
        return b"".join(ready)

    def _goes_on_after(self, error: UpstreamError) -> bool:
        """Has another backend taken over? Else the answer ends."""
        has_begun, is_over = self.first_event_at_s is not None, monotonic() >= self._whole_deadline
        if self._take_over is not None and not has_begun and not is_over:
            self._response.close(reuse=False)
            try:
                self._response, deadline = self._take_over(error)
            except UpstreamError as last:
                error = last
            else:
                self._splitter = EventSplitter()
                self._ready.clear()
                if self._guard is not None:
                    self._guard.restart()
                self._deadline = min(self._whole_deadline, deadline)
                return True
        if isinstance(error, UpstreamSilence):
            self._fail("stalled" if has_begun and not is_over else "timeout", "timeout")
        elif not isinstance(error, UpstreamAborted):
            self._fail(error.ending)
        elif self._is_broken_off():
            self._fail("gateway_stopped")
        else:
            self._outcome = "client_left"
            self._ready.clear()
        return False

    def _note_first_event(self) -> None:
        if self._ready:
            self.first_event_at_s = monotonic()
            self._on_first_event()

    def _take(self, data: bytes) -> None:
        """Meter and make ready the events in what was read. Raises UpstreamError; what came before the fault stays ready.

        An end without [DONE] is a cut, unless what came last was never an event.
        """
        if not data:
            event_data(self._splitter.rest)
            raise UpstreamCut("the stream ended without [DONE]")
        for event in self._splitter.feed(data):
            kind, shown = self._rewriter.rewrite(event)
            if kind is _CONTENT:
                self._meter.note_content(event)
                if self._guard is not None:
                    shown = self._guard.take(shown)
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
            if self._guard is not None and self._guard.is_over:
                self._stop()
                break

    def _stop(self) -> None:
        """The guard lets nothing more pass: end as a whole answer does, with what was used so far."""
        self._ready += [self._rewriter.usage_event(self._meter.usage()), DONE]
        self._outcome = "completed"
        self._is_stopped = True

    def _meter_rest(self) -> None:
        """Nobody reads on, but the backend has generated all that it sent until it knew."""
        with suppress(UpstreamError):
            for data in self._response.rest():
                self._take(data)
        self._ready.clear()

    def _fail(self, failure: str, outcome: Outcome = "failed") -> None:
        self._outcome = outcome
        self._failure = failure
        self._response.close(reuse=False)

    def _abandon(self) -> None:
        self._has_ended = True
        self._ready.clear()
        self._response.close(reuse=False)
