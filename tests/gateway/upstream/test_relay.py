"""The relay says exactly once how a stream ended, whatever happens; what came before a fault still reaches the client."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.upstream.client import Cancellation, UpstreamClient
from gateway.upstream.errors import (
    GenerationAborted,
    MalformedStream,
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


UNAVAILABLE = error_event("upstream_unavailable")
TIMEOUT = error_event("upstream_timeout")


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

    def __init__(self, backend: ScriptedBackend, *, keep_alive_s: float, within_s: float, first_within_s: float) -> None:
        self.backend = backend
        self.ends: list[tuple[str, str | None]] = []
        self.client = UpstreamClient()
        self.cancellation = Cancellation()
        self.meter = Meter(prompt_estimate_tokens=7)
        deadline = time.monotonic() + within_s
        response = self.client.open_call(
            backend.config,
            "/v1/chat/completions",
            b"{}",
            headers={},
            connect_s=PATIENCE_S,
            first_byte_deadline=time.monotonic() + PATIENCE_S,
            cancellation=self.cancellation,
        )
        self.relay = Relay(
            response,
            EventRewriter(
                completion_id=COMPLETION_ID, alias=ALIAS, created_s=None, shows_usage=False, shows_running_usage=False
            ),
            self.meter,
            error_event=error_event,
            on_end=lambda outcome, code: self.ends.append((outcome, code)),
            deadline=deadline,
            first_event_deadline=time.monotonic() + first_within_s,
            keep_alive_s=keep_alive_s,
        )

    def finish(self) -> bytes:
        """Serve the relay as a WSGI server does, to its end."""
        try:
            return b"".join(self.relay)
        finally:
            self.relay.close()

    def is_over(self) -> None:
        """The backend's connection is closed, and nothing is left to be closed."""
        self.backend.wait_for_end()
        assert self.client.in_flight(self.backend.config) == 0


Serve = Callable[..., Run]


@pytest.fixture
def serve() -> Iterator[Serve]:
    runs: list[Run] = []

    def start(
        script: Script, *, keep_alive_s: float = PATIENCE_S, within_s: float = PATIENCE_S, first_within_s: float = PATIENCE_S
    ) -> Run:
        backend = ScriptedBackend(script).__enter__()
        runs.append(Run(backend, keep_alive_s=keep_alive_s, within_s=within_s, first_within_s=first_within_s))
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
        assert out.endswith(UNAVAILABLE)
        assert run.ends == [("failed", "upstream_unavailable")]
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
    assert len(run.client._pool(run.backend.config.url)._idle) == 1


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
    "fault",
    [
        stream(*EVENTS),
        stream(*EVENTS, ERROR, DONE),
        stream(*EVENTS, b"event: error\ndata: x\n\n", DONE),
        stream(*EVENTS, ABORT, DONE),
        stream(*EVENTS, b"data: <html>\n\n", DONE),
        stream(*EVENTS, b"data: {}\n\n", DONE),
        stream(*EVENTS, b"data: [DONE]\n"),
        lambda exchange: (exchange.request(), exchange.send(STREAM_HEAD + b"".join(map(chunk, EVENTS)))),
        lambda exchange: (exchange.request(), exchange.send(b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(EVENTS))),
    ],
    ids=["no DONE", "error", "named error", "abort", "no JSON", "no choices", "half an end", "cut", "closed"],
)
def test_a_fault_is_one_error_event_and_the_end(serve: Serve, fault: Script) -> None:
    run = serve(fault)
    assert run.finish() == shown(*EVENTS) + UNAVAILABLE
    assert run.ends == [("failed", "upstream_unavailable")]
    assert run.meter.usage().prompt_tokens == 24
    assert run.meter.usage().completion_tokens >= 5
    run.is_over()


def test_framing_that_is_none_is_an_error_event_too(serve: Serve) -> None:
    run = serve(lambda exchange: (exchange.request(), exchange.send(STREAM_HEAD + b"zz\r\n")))
    assert run.finish() == UNAVAILABLE
    assert run.ends == [("failed", "upstream_unavailable")]


def test_an_aborted_generation_is_metered_to_its_last_token(serve: Serve) -> None:
    run = serve(stream(*EVENTS, ABORT, DONE))
    run.finish()
    assert run.meter.usage() == Usage(24, 0, 6, "backend")


def test_a_fault_closes_the_backend_before_the_client_has_read_of_it(serve: Serve) -> None:
    run = serve(stream(EVENTS[0] + ERROR, ends=False))
    assert next(run.relay) == shown(EVENTS[0]) + UNAVAILABLE
    run.is_over()
    assert list(run.relay) == []
    assert run.ends == [("failed", "upstream_unavailable")]


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
    assert run.ends == [("timeout", "upstream_timeout")]
    run.is_over()


def test_the_first_event_has_a_deadline_of_its_own(serve: Serve) -> None:
    run = serve(stream(ends=False), keep_alive_s=0.05, first_within_s=0.2)
    assert not run.relay.wait_for_first_event(0.05)
    assert run.finish().endswith(KEEP_ALIVE + TIMEOUT)
    assert run.ends == [("timeout", "upstream_timeout")]
    run.is_over()


def test_the_deadline_of_the_first_event_is_over_once_it_is_there(serve: Serve) -> None:
    run = serve(stream(EVENTS[0], ends=False), within_s=0.4, first_within_s=0.1)
    started = time.monotonic()
    assert run.finish() == shown(EVENTS[0]) + TIMEOUT
    assert time.monotonic() - started >= 0.3


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
    assert run.ends == [("timeout", "upstream_timeout")]
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


def test_a_stream_of_nothing_but_its_end_is_complete(serve: Serve) -> None:
    run = serve(stream(DONE))
    assert run.relay.wait_for_first_event(PATIENCE_S) is True
    assert run.finish() == DONE
    until(lambda: run.ends == [("completed", None)])
