"""The relay says exactly once how a stream ended, whatever happens; what came before a fault still reaches the client."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.upstream.client import Cancellation, UpstreamClient, UpstreamResponse
from gateway.upstream.errors import (
    GenerationAborted,
    MalformedStream,
    NobodyLeft,
    UpstreamAborted,
    UpstreamCut,
    UpstreamError,
    UpstreamReported,
    UpstreamSilence,
)
from gateway.upstream.metering import Meter, Usage
from gateway.upstream.relay import KEEP_ALIVE, Relay
from gateway.upstream.sse import EventRewriter
from tests.gateway.upstream.recordings import (
    ALIAS,
    COMPLETION_ID,
    STREAMS,
    content_event,
    every_stream,
    parsed,
    seen_by_client,
    usage,
)
from tests.gateway.upstream.scripted import (
    LAST_CHUNK,
    PATIENCE_S,
    STREAM_HEAD,
    Exchange,
    Script,
    ScriptedBackend,
    at_the_same_time,
    chunk,
    content_of,
    until,
)

DONE = b"data: [DONE]\n\n"
EVENTS = [content_event(f"word {tokens}", usage=usage(24, tokens)) for tokens in range(6)]
ERROR = b'data: {"error": {"message": "EngineCore encountered an issue", "code": 500}}\n\n'
ABORT = content_event("cut", usage=usage(24, 6), finish_reason="abort")


def shown(*events: bytes) -> bytes:
    rewriter = EventRewriter(
        completion_id=COMPLETION_ID, alias=ALIAS, created_s=None, shows_usage=False, shows_running_usage=False
    )
    return b"".join(rewriter.rewrite(event.strip())[1] for event in events)


def error_event(code: str) -> bytes:
    return b'data: {"error": {"code": "%b"}}\n\n' % code.encode()


TIMEOUT = error_event("timeout")
STALLED = error_event("stalled")


def stream(*parts: bytes, ends: bool = True) -> Script:
    """Sends each part as a chunk; ends with the last chunk, or waits for the client to close."""

    def script(exchange: Exchange) -> None:
        exchange.request()
        exchange.send(STREAM_HEAD + b"".join(chunk(part) for part in parts))
        if ends:
            exchange.send(LAST_CHUNK)
        exchange.wait_for_close()

    return script


class Run:
    """A relay on a scripted backend, and what was said of its end."""

    def __init__(
        self,
        backend: ScriptedBackend,
        *,
        successor: ScriptedBackend | None = None,
        keep_alive_s: float,
        within_s: float,
        first_within_s: float,
        stall_max_s: float,
    ) -> None:
        self.backend = backend
        self.ends: list[tuple[str, str | None]] = []
        self.firsts: list[float | None] = []
        self.successor = successor
        self.failures: list[str] = []
        self.is_broken_off = False
        self.client = UpstreamClient()
        self.cancellation = Cancellation()
        self.meter = Meter(prompt_estimate_tokens=7)
        deadline = time.monotonic() + within_s
        self.relay = Relay(
            self._open(backend),
            EventRewriter(
                completion_id=COMPLETION_ID, alias=ALIAS, created_s=None, shows_usage=False, shows_running_usage=False
            ),
            self.meter,
            error_event=error_event,
            on_end=lambda outcome, code: self.ends.append((outcome, code)),
            deadline=deadline,
            first_event_deadline=time.monotonic() + first_within_s,
            stall_max_s=stall_max_s,
            on_first_event=lambda: self.firsts.append(self.relay.first_event_at_s),
            is_broken_off=lambda: self.is_broken_off,
            take_over=self.take_over if successor else None,
            keep_alive_s=keep_alive_s,
        )

    def take_over(self, error: UpstreamError) -> tuple[UpstreamResponse, float]:
        self.failures.append(error.ending)
        if self.successor is None or len(self.failures) > 1:
            raise NobodyLeft
        return self._open(self.successor), time.monotonic() + PATIENCE_S

    def finish(self) -> bytes:
        """Serve the relay as a WSGI server does, to its end. On gevent's sockets events may pass by, two of three do."""
        sent: list[bytes] = []
        asked = itertools.count(1)

        def send(chunk: bytes) -> bool:
            if next(asked) % 3 == 0:
                return False
            sent.append(content_of(chunk))
            return True

        self.relay.passes_to(send)
        try:
            sent.extend(self.relay)
            return b"".join(sent)
        finally:
            self.relay.close()

    def _open(self, backend: ScriptedBackend) -> UpstreamResponse:
        return self.client.open_call(
            backend.config,
            "/v1/chat/completions",
            b"{}",
            headers={},
            connect_s=PATIENCE_S,
            first_byte_deadline=time.monotonic() + PATIENCE_S,
            cancellation=self.cancellation,
        )

    def is_over(self) -> None:
        """The backend's connection is closed, and nothing is left to be closed."""
        self.backend.wait_for_end()
        assert self.client.in_flight(self.backend.config) == 0


Serve = Callable[..., Run]


@pytest.fixture
def serve() -> Iterator[Serve]:
    runs: list[Run] = []

    def start(script: Script, successor: ScriptedBackend | None = None, **limits_s: float) -> Run:
        backend = ScriptedBackend(script).__enter__()
        usual_s = dict.fromkeys(("keep_alive_s", "within_s", "first_within_s", "stall_max_s"), PATIENCE_S)
        runs.append(Run(backend, successor=successor, **(usual_s | limits_s)))
        return runs[-1]

    yield start
    for run in runs:
        run.relay.close()
        run.relay.close()
        assert len(run.ends) <= 1
        run.client.drop_idle(older_than_s=0)
        run.backend.__exit__()


@every_stream
def test_a_recorded_stream_reaches_the_client_whole(serve: Serve, path: Path) -> None:
    recorded = path.read_bytes()
    run = serve(stream(*[event + b"\n\n" for event in recorded.split(b"\n\n")[:-1]]))
    out = run.finish()
    expected = seen_by_client(recorded, shows_usage=False, shows_running_usage=False)
    if b'data: {"error"' in recorded:
        assert out.endswith(error_event("error_event"))
        assert run.ends == [("failed", "error_event")]
    else:
        assert run.ends == [("completed", None)]
    assert parsed(out) == expected
    assert run.client.in_flight(run.backend.config) == 0


def test_there_are_streams_that_fail_and_streams_that_do_not() -> None:
    failing = [path for path in STREAMS if b'data: {"error"' in path.read_bytes()]
    assert 0 < len(failing) < len(STREAMS)


def test_what_one_read_brought_is_one_item(serve: Serve) -> None:
    run = serve(stream(b"".join([*EVENTS, DONE])))
    assert list(run.relay) == [shown(*EVENTS) + DONE]


def test_events_are_passed_on_as_they_arrive(serve: Serve) -> None:
    seen = threading.Semaphore(0)

    def script(exchange: Exchange) -> None:
        exchange.request()
        exchange.send(STREAM_HEAD)
        for event in [*EVENTS, DONE]:
            exchange.send(chunk(event))
            assert seen.acquire(timeout=PATIENCE_S)
        exchange.send(LAST_CHUNK)
        exchange.wait_for_close()

    run = serve(script)
    items = []
    for item in run.relay:
        items.append(item)
        seen.release()
    assert items == [*map(shown, EVENTS), DONE]
    assert run.meter.usage() == Usage(24, 0, 5, "backend")
    assert run.relay.first_event_at_s is not None


def test_a_complete_stream_gives_its_connection_back(serve: Serve) -> None:
    run = serve(stream(*EVENTS, DONE))
    run.finish()
    assert run.ends == [("completed", None)]
    assert run.client.in_flight(run.backend.config) == 0
    assert len(run.client._pools[run.backend.config.url]._idle) == 1


def test_the_end_is_told_before_the_last_item_goes_out(serve: Serve) -> None:
    run = serve(stream(b"".join([*EVENTS, DONE])))
    assert next(run.relay).endswith(DONE)
    assert run.ends == [("completed", None)]
    run.relay.close()
    assert run.ends == [("completed", None)]


def test_what_follows_done_is_ignored(serve: Serve) -> None:
    run = serve(stream(EVENTS[0] + DONE + EVENTS[1] + DONE + b"garbage"))
    assert run.finish() == shown(EVENTS[0]) + DONE
    assert run.ends == [("completed", None)]


@pytest.mark.parametrize(
    ("fault", "ending"),
    [
        (stream(*EVENTS), "cut"),
        (stream(*EVENTS, ERROR, DONE), "error_event"),
        (stream(*EVENTS, b"event: error\ndata: x\n\n", DONE), "error_event"),
        (stream(*EVENTS, ABORT, DONE), "aborted"),
        (stream(*EVENTS, b"data: <html>\n\n", DONE), "garbage"),
        (stream(*EVENTS, b"data: {}\n\n", DONE), "garbage"),
        (stream(*EVENTS, b"data: [DONE]\n"), "cut"),
        (lambda exchange: (exchange.request(), exchange.send(STREAM_HEAD + b"".join(map(chunk, EVENTS)))), "cut"),
        (lambda exchange: (exchange.request(), exchange.send(b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(EVENTS))), "cut"),
    ],
    ids=["no DONE", "error", "named error", "abort", "no JSON", "no choices", "half an end", "cut", "closed"],
)
def test_a_fault_is_one_error_event_that_tells_which_and_the_end(serve: Serve, fault: Script, ending: str) -> None:
    run = serve(fault)
    assert run.finish() == shown(*EVENTS) + error_event(ending)
    assert run.ends == [("failed", ending)]
    assert run.meter.usage().prompt_tokens == 24
    assert run.meter.usage().completion_tokens >= 5
    run.is_over()


def test_framing_that_is_none_is_an_error_event_too(serve: Serve) -> None:
    run = serve(lambda exchange: (exchange.request(), exchange.send(STREAM_HEAD + b"zz\r\n")))
    assert run.finish() == error_event("garbage")
    assert run.ends == [("failed", "garbage")]


def test_an_aborted_generation_is_metered_to_its_last_token(serve: Serve) -> None:
    run = serve(stream(*EVENTS, ABORT, DONE))
    run.finish()
    assert run.meter.usage() == Usage(24, 0, 6, "backend")


def test_a_fault_closes_the_backend_before_the_client_has_read_of_it(serve: Serve) -> None:
    run = serve(stream(EVENTS[0] + ERROR, ends=False))
    assert next(run.relay) == shown(EVENTS[0]) + error_event("error_event")
    run.is_over()
    assert list(run.relay) == []
    assert run.ends == [("failed", "error_event")]


def test_a_client_that_left_before_the_first_item_is_told(serve: Serve) -> None:
    run = serve(stream(*EVENTS, ends=False))
    run.relay.close()
    assert run.ends == [("client_left", None)]
    run.is_over()


@pytest.mark.parametrize("events", [1, 5])
def test_a_client_that_leaves_after_some_events_ends_the_backends_stream(serve: Serve, events: int) -> None:
    run = serve(stream(b"".join(EVENTS[:events]), ends=False))
    assert next(run.relay) == shown(*EVENTS[:events])
    run.relay.close()
    assert run.ends == [("client_left", None)]
    assert run.meter.usage() == Usage(24, 0, events - 1, "backend")
    run.is_over()


@pytest.mark.parametrize("is_seen_by", ["the watcher", "the server"])
def test_what_was_on_its_way_when_the_client_left_is_metered(serve: Serve, is_seen_by: str) -> None:
    def script(exchange: Exchange) -> None:
        exchange.request()
        exchange.send(STREAM_HEAD + chunk(EVENTS[0]))
        exchange.wait_for_close()
        exchange.send(b"".join(map(chunk, EVENTS[1:])))

    run = serve(script)
    assert next(run.relay) == shown(EVENTS[0])
    if is_seen_by == "the watcher":
        run.relay.cancel()
        assert run.finish() == b""
    run.relay.close()
    assert run.ends == [("client_left", None)]
    assert run.meter.usage() == Usage(24, 0, len(EVENTS) - 1, "backend")
    run.is_over()


def test_cancelling_wakes_a_relay_that_waits(serve: Serve) -> None:
    run = serve(stream(EVENTS[0], ends=False))
    assert next(run.relay) == shown(EVENTS[0])
    started = time.monotonic()
    threading.Timer(0.05, run.relay.cancel).start()
    assert run.finish() == b""
    assert time.monotonic() - started < PATIENCE_S / 2
    assert run.ends == [("client_left", None)]
    run.is_over()


def test_cancelling_before_the_first_item_ends_it(serve: Serve) -> None:
    run = serve(stream(*EVENTS, DONE))
    run.cancellation.cancel()
    assert run.finish() == b""
    assert run.ends == [("client_left", None)]


def test_cancelling_after_the_end_changes_nothing(serve: Serve) -> None:
    run = serve(stream(*EVENTS, DONE))
    run.finish()
    run.relay.cancel()
    assert run.ends == [("completed", None)]


def test_a_deadline_ends_a_silent_stream(serve: Serve) -> None:
    run = serve(stream(EVENTS[0], ends=False), within_s=0.15)
    assert run.finish() == shown(EVENTS[0]) + TIMEOUT
    assert run.ends == [("timeout", "timeout")]
    run.is_over()


def test_the_first_event_has_a_deadline_of_its_own(serve: Serve) -> None:
    run = serve(stream(ends=False), keep_alive_s=0.05, first_within_s=0.2)
    assert not run.relay.wait_for_first_event(0.05)
    assert run.finish().endswith(KEEP_ALIVE + TIMEOUT)
    assert run.ends == [("timeout", "timeout")]
    run.is_over()


def test_the_deadline_of_the_first_event_is_over_once_it_is_there(serve: Serve) -> None:
    run = serve(stream(EVENTS[0], ends=False), within_s=0.4, first_within_s=0.1)
    started = time.monotonic()
    assert run.finish() == shown(EVENTS[0]) + TIMEOUT
    assert time.monotonic() - started >= 0.3


def test_a_silence_between_events_is_bounded_whatever_drips(serve: Serve) -> None:
    stop = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.request()
        exchange.send(STREAM_HEAD + chunk(EVENTS[0]))
        while not stop.wait(0.01):
            try:
                exchange.send(chunk(b"d"))
            except OSError:
                return

    run = serve(script, keep_alive_s=0.05, stall_max_s=0.2)
    assert run.relay.wait_for_first_event(PATIENCE_S)
    out = run.finish()
    assert out.startswith(shown(EVENTS[0]) + KEEP_ALIVE)
    assert out.endswith(KEEP_ALIVE + STALLED)
    assert run.ends == [("timeout", "stalled")]
    run.is_over()
    stop.set()


def test_a_large_event_on_its_way_is_no_silence(serve: Serve) -> None:
    event = content_event("x" * 400_000)

    def script(exchange: Exchange) -> None:
        exchange.request()
        exchange.send(STREAM_HEAD + chunk(EVENTS[0]))
        for start in range(0, len(event), 50_000):
            time.sleep(0.1)
            exchange.send(chunk(event[start : start + 50_000]))
        exchange.send(chunk(DONE) + LAST_CHUNK)
        exchange.wait_for_close()

    run = serve(script, stall_max_s=0.4)
    assert run.finish().replace(KEEP_ALIVE, b"") == shown(EVENTS[0], event) + DONE
    assert run.ends == [("completed", None)]


def test_events_that_come_in_time_are_no_silence_however_many(serve: Serve) -> None:
    def script(exchange: Exchange) -> None:
        exchange.request()
        exchange.send(STREAM_HEAD)
        for event in [*EVENTS, DONE]:
            exchange.send(chunk(event))
            time.sleep(0.1)
        exchange.send(LAST_CHUNK)
        exchange.wait_for_close()

    run = serve(script, keep_alive_s=0.04, stall_max_s=0.5)
    assert run.finish().replace(KEEP_ALIVE, b"") == shown(*EVENTS) + DONE
    assert run.ends == [("completed", None)]


def test_the_first_event_is_told_when_it_is_there(serve: Serve) -> None:
    run = serve(stream(EVENTS[0], EVENTS[1], DONE))
    assert run.firsts == []
    run.finish()
    assert run.firsts == [run.relay.first_event_at_s]


def test_a_call_that_we_break_off_is_told_so(serve: Serve) -> None:
    run = serve(stream(EVENTS[0], ends=False))
    assert next(run.relay) == shown(EVENTS[0])
    run.is_broken_off = True
    threading.Timer(0.05, run.relay.cancel).start()
    assert run.finish() == error_event("gateway_stopped")
    assert run.ends == [("failed", "gateway_stopped")]
    run.is_over()


def test_a_deadline_ends_a_stream_that_never_pauses(serve: Serve) -> None:
    stop = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.request()
        exchange.send(STREAM_HEAD)
        while not stop.is_set():
            try:
                exchange.send(chunk(EVENTS[0]))
            except OSError:
                return
        raise AssertionError("the relay did not close")

    run = serve(script, within_s=0.2)
    assert run.finish().endswith(TIMEOUT)
    assert run.ends == [("timeout", "timeout")]
    run.is_over()
    stop.set()


def test_silence_is_filled_with_comments(serve: Serve) -> None:
    more = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.request()
        exchange.send(STREAM_HEAD + chunk(EVENTS[0]))
        more.wait(PATIENCE_S)
        exchange.send(chunk(EVENTS[1] + DONE) + LAST_CHUNK)
        exchange.wait_for_close()

    run = serve(script, keep_alive_s=0.02)
    assert next(run.relay) == shown(EVENTS[0])
    assert [next(run.relay) for _ in range(3)] == [KEEP_ALIVE] * 3
    more.set()
    rest = [item for item in run.relay if item != KEEP_ALIVE]
    assert b"".join(rest) == shown(EVENTS[1]) + DONE
    assert run.ends == [("completed", None)]


def test_a_backends_own_comments_do_not_keep_ours_away(serve: Serve) -> None:
    stop = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.request()
        exchange.send(STREAM_HEAD)
        while not stop.wait(0.005):
            exchange.send(chunk(b": ping\n\n"))
        exchange.send(chunk(EVENTS[0] + DONE) + LAST_CHUNK)
        exchange.wait_for_close()

    run = serve(script, keep_alive_s=0.05)
    assert next(run.relay) == KEEP_ALIVE
    stop.set()
    assert run.finish().removeprefix(KEEP_ALIVE) == shown(EVENTS[0]) + DONE


def test_a_fault_of_ours_is_told_as_ours(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    run = serve(stream(*EVENTS, DONE))
    monkeypatch.setattr(Meter, "note_content", None)
    with pytest.raises(TypeError):
        run.finish()
    assert run.ends == [("failed", "internal_error")]
    assert run.client.in_flight(run.backend.config) == 0


def test_the_first_event_is_waited_for_and_sent_once(serve: Serve) -> None:
    run = serve(stream(*EVENTS, DONE))
    assert run.relay.wait_for_first_event(PATIENCE_S) is True
    assert run.ends == []
    assert run.finish() == shown(*EVENTS) + DONE
    assert run.ends == [("completed", None)]


def test_a_stream_that_is_silent_so_far_goes_on_later(serve: Serve) -> None:
    more = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.request()
        exchange.send(STREAM_HEAD)
        more.wait(PATIENCE_S)
        exchange.send(chunk(EVENTS[0] + DONE) + LAST_CHUNK)
        exchange.wait_for_close()

    run = serve(script)
    assert run.relay.wait_for_first_event(0.02) is False
    assert run.relay.first_event_at_s is None
    more.set()
    assert run.finish() == shown(EVENTS[0]) + DONE
    assert run.ends == [("completed", None)]


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ([ERROR, DONE], UpstreamReported),
        ([EVENTS[0] + ERROR, DONE], UpstreamReported),
        ([ABORT], GenerationAborted),
        ([b"data: 5\n\n"], MalformedStream),
        ([b": ping\n\n"], UpstreamCut),
        ([], UpstreamCut),
    ],
)
def test_a_failure_before_anything_was_sent_is_the_callers(
    serve: Serve, parts: list[bytes], error: type[UpstreamError]
) -> None:
    run = serve(stream(*parts))
    with pytest.raises(error):
        run.relay.wait_for_first_event(PATIENCE_S)
    run.is_over()
    run.relay.close()
    assert run.ends == []


def test_a_deadline_while_waiting_for_the_first_event_is_the_callers(serve: Serve) -> None:
    run = serve(stream(ends=False), within_s=0.05)
    with pytest.raises(UpstreamSilence):
        run.relay.wait_for_first_event(PATIENCE_S)
    run.is_over()
    assert run.ends == []


def test_a_client_that_leaves_while_the_first_event_is_waited_for_is_the_callers(serve: Serve) -> None:
    run = serve(stream(ends=False))
    with at_the_same_time(run.cancellation.cancel), pytest.raises(UpstreamAborted):
        run.relay.wait_for_first_event(PATIENCE_S)
    run.is_over()
    assert run.ends == []


def late(part: bytes) -> Script:
    """Sends `part` once a comment was due."""

    def script(exchange: Exchange) -> None:
        exchange.request()
        exchange.send(STREAM_HEAD)
        time.sleep(0.15)
        exchange.send(chunk(part))
        exchange.wait_for_close()

    return script


SILENT_AT_FIRST = {"keep_alive_s": 0.05, "first_within_s": 0.2}


@pytest.mark.parametrize(
    ("script", "ending"),
    [
        (stream(ends=False), "timeout"),
        (stream(b": ping\n\n"), "cut"),
        (stream(b"data: <html>"), "cut"),
        (stream(ERROR), "error_event"),
        (stream(b"data: {half"), "cut"),
    ],
    ids=["silence", "cut", "half an event", "error", "half"],
)
def test_until_the_first_event_another_backend_may_take_over(serve: Serve, script: Script, ending: str) -> None:
    with ScriptedBackend(stream(*EVENTS, DONE)) as successor:
        run = serve(script, successor, **SILENT_AT_FIRST)
        out = run.finish()
        assert out.replace(KEEP_ALIVE, b"") == shown(*EVENTS) + DONE
        assert out.startswith(KEEP_ALIVE)
        assert run.ends == [("completed", None)]
        assert run.failures == [ending]
        assert len(run.firsts) == 1
        run.client.drop_idle(older_than_s=0)  # else the successor waits for the next call


def test_what_a_backend_that_failed_had_said_is_nobodys(serve: Serve) -> None:
    """An event and the fault come in one read: nothing has gone out when the successor takes over."""
    with ScriptedBackend(stream(*EVENTS, DONE)) as successor:
        run = serve(late(EVENTS[0] + ERROR), successor, keep_alive_s=0.05)
        assert run.finish().replace(KEEP_ALIVE, b"") == shown(*EVENTS) + DONE
        assert run.ends == [("completed", None)]
        assert run.failures == ["error_event"]
        run.client.drop_idle(older_than_s=0)


def test_after_the_first_event_nobody_takes_over(serve: Serve) -> None:
    with ScriptedBackend(stream(*EVENTS, DONE)) as successor:
        run = serve(stream(EVENTS[0]), successor)
        assert run.finish() == shown(EVENTS[0]) + error_event("cut")
        assert run.ends == [("failed", "cut")]
        assert run.failures == []


def test_where_nobody_takes_over_it_ends(serve: Serve) -> None:
    with ScriptedBackend(stream()) as successor:
        run = serve(stream(ends=False), successor, **SILENT_AT_FIRST)
        assert run.finish().replace(KEEP_ALIVE, b"") == error_event("nobody_left")
        assert run.ends == [("failed", "nobody_left")]
        assert run.failures == ["timeout", "cut"]


def test_a_stream_of_nothing_but_its_end_is_complete(serve: Serve) -> None:
    run = serve(stream(DONE))
    assert run.relay.wait_for_first_event(PATIENCE_S) is True
    assert run.finish() == DONE
    until(lambda: run.ends == [("completed", None)])
