"""Usual events go by in the loop, all others come to who waits: the client sees the same, in the same order, either way."""

import fcntl
import itertools
import random
import struct
import termios
import time
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any

import gevent
import gevent.socket
import pytest

from gateway.upstream.connection import Connection
from gateway.upstream.metering import Meter, Usage
from gateway.upstream.passage import Passage
from gateway.upstream.relay import KEEP_ALIVE, Relay
from gateway.upstream.sse import EventRewriter
from tests.gateway.upstream.recordings import ALIAS, COMPLETION_ID, content_event, every_stream, usage
from tests.gateway.upstream.scripted import LAST_CHUNK, STREAM_HEAD, chunk, content_of

DONE = b"data: [DONE]\n\n"
EVENTS = [content_event(f"word {tokens}", usage=usage(24, tokens)) for tokens in range(6)]
LAST = content_event("").replace(b'"finish_reason":null', b'"finish_reason":"stop","stop_reason":null')
LONG_S = 60.0


def new_rewriter() -> EventRewriter:
    return EventRewriter(completion_id=COMPLETION_ID, alias=ALIAS, created_s=None, shows_usage=False, shows_running_usage=False)


def shown(*events: bytes) -> bytes:
    rewriter = new_rewriter()
    return b"".join(rewriter.rewrite(event.removesuffix(b"\n\n"))[1] for event in events)


def until_read(sock: Any) -> None:
    """Until the other end has read all that was sent."""
    with gevent.Timeout(LONG_S):
        while struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]:
            gevent.sleep(0.001)


class Answer:
    """What a relay needs of an UpstreamResponse, on one connection."""

    def __init__(self, sock: Any) -> None:
        self.connection = Connection(sock)
        self.read_some = self.connection.read_some
        self.abort = self.connection.abort
        self.rest = self.connection.rest

    def close(self, *, reuse: bool) -> None:
        self.connection.close()


class Serving:
    """A relay between two of gevent's sockets. passed: what went by; sent: all, in its order."""

    def __init__(self, *, passes: bool = True, stall_max_s: float = LONG_S, keep_alive_s: float = LONG_S) -> None:
        ours, self.backend = gevent.socket.socketpair()
        self.answer = Answer(ours)
        self.backend.sendall(STREAM_HEAD)
        self.answer.connection.read_head(time.monotonic() + LONG_S)
        self.meter = Meter()
        self.ends: list[tuple[str, str | None]] = []
        self.sent: list[bytes] = []
        self.passed: list[bytes] = []
        self.takes = True
        self.is_broken = False
        self.relay = Relay(
            self.answer,  # type: ignore[arg-type]  # as much of a response as is asked for
            new_rewriter(),
            self.meter,
            error_event=lambda code: b"error: " + code.encode(),
            on_end=lambda outcome, code: self.ends.append((outcome, code)),
            deadline=time.monotonic() + LONG_S,
            stall_max_s=stall_max_s,
            keep_alive_s=keep_alive_s,
        )
        if passes:
            self.relay.passes_to(self.send)
        self.greenlet = gevent.spawn(self.serve)

    def send(self, chunk: bytes) -> bool:
        if self.is_broken:
            raise LookupError("a fault of our own")
        if self.takes:
            item = content_of(chunk)
            self.passed.append(item)
            self.sent.append(item)
        return self.takes

    def serve(self) -> bytes:
        try:
            for item in self.relay:
                self.sent.append(item)
        finally:
            self.relay.close()
        return b"".join(self.sent)

    def write(self, *parts: bytes) -> None:
        """Each as a read of its own. A relay that is at its end waits for none that follows."""
        for part in parts:
            with suppress(BrokenPipeError):
                self.backend.sendall(part)
                until_read(self.backend)

    def finish(self) -> bytes:
        out: bytes = self.greenlet.get(timeout=LONG_S)
        self.backend.close()
        return out


@pytest.fixture
def passage() -> tuple[Passage, list[bytes]]:
    sent: list[bytes] = []
    rewriter = new_rewriter()
    rewriter.rewrite(EVENTS[0].removesuffix(b"\n\n"))
    return Passage(rewriter, Meter(), lambda chunk: sent.append(content_of(chunk)) is None, quiet_max_s=5.0, ends=inf), sent


def test_usual_events_go_by_and_all_others_are_served_in_their_order() -> None:
    serving = Serving()
    serving.write(*map(chunk, EVENTS), chunk(EVENTS[4] + EVENTS[5]), chunk(EVENTS[5]), chunk(DONE), LAST_CHUNK)
    assert serving.finish() == shown(*EVENTS, EVENTS[4], EVENTS[5], EVENTS[5]) + DONE
    assert serving.passed == [shown(EVENTS[0], event)[len(shown(EVENTS[0])) :] for event in (*EVENTS[1:], EVENTS[5])]
    assert serving.ends == [("completed", None)]
    assert serving.meter.usage() == Usage(24, 0, 5, "backend")


@every_stream
def test_in_whatever_reads_a_recording_comes_its_client_sees_the_same(path: Path) -> None:
    events = [event + b"\n\n" for event in path.read_bytes().split(b"\n\n")[:-1]]
    wire = b"".join(map(chunk, events)) + LAST_CHUNK
    by_chance = random.Random(path.stem)
    seen = []
    for passes, mean_bytes in itertools.product((False, True), (40, 400)):
        serving = Serving(passes=passes)
        at = 0
        while at < len(wire) and not serving.greenlet.ready():
            size = by_chance.randint(1, 2 * mean_bytes) if by_chance.random() < 0.5 else wire.find(b"\n\n\r\n", at) + 4 - at
            serving.backend.sendall(wire[at : at + max(1, size)])
            at += max(1, size)
            gevent.sleep(0)
            gevent.idle()
        seen.append((serving.finish(), serving.ends, serving.meter.usage()))
    assert seen[1:] == seen[:-1]


def test_what_the_client_does_not_take_at_once_is_left_to_who_can_wait() -> None:
    serving = Serving()
    serving.write(*map(chunk, EVENTS[:3]))
    serving.takes = False
    serving.write(*map(chunk, EVENTS[3:5]))
    serving.takes = True
    serving.write(chunk(EVENTS[5]), chunk(DONE), LAST_CHUNK)
    assert serving.finish() == shown(*EVENTS) + DONE
    assert len(serving.passed) == 3
    assert serving.meter.usage() == Usage(24, 0, 5, "backend")


def test_a_silence_is_counted_from_the_last_event_that_went_by() -> None:
    serving = Serving(stall_max_s=1.5)
    for event in EVENTS[:4]:
        serving.write(chunk(event))
        gevent.sleep(0.6)
    assert serving.finish() == shown(*EVENTS[:4]) + b"error: stalled"
    assert serving.ends == [("timeout", "stalled")]


def test_a_comment_goes_out_in_a_silence_after_events_that_went_by_and_they_go_by_again() -> None:
    serving = Serving(keep_alive_s=1.0)
    serving.write(*map(chunk, EVENTS[:3]))
    with gevent.Timeout(LONG_S):
        while KEEP_ALIVE not in serving.sent:
            gevent.sleep(0.01)
    serving.write(*map(chunk, EVENTS[3:]), chunk(DONE), LAST_CHUNK)
    out = serving.finish()
    assert KEEP_ALIVE in out
    assert out.replace(KEEP_ALIVE, b"") == shown(*EVENTS) + DONE
    assert out.find(b"word 2") < out.find(KEEP_ALIVE) < out.find(b"word 3")
    assert len(serving.passed) == 5


def test_nothing_goes_by_once_the_call_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.upstream.connection.socket.socket", gevent.socket.socket)  # as in a worker, which is patched
    serving = Serving()
    serving.write(*map(chunk, EVENTS[:3]))
    serving.relay.cancel()
    serving.write(*map(chunk, EVENTS[3:]), chunk(DONE), LAST_CHUNK)
    assert serving.finish() == shown(*EVENTS[:3])
    assert serving.ends == [("client_left", None)]
    assert serving.meter.usage() == Usage(24, 0, 5, "backend"), "what was generated is metered"


def test_a_fault_in_passing_ends_the_stream_and_not_the_loop() -> None:
    serving = Serving()
    serving.write(*map(chunk, EVENTS[:2]))
    serving.is_broken = True
    serving.write(chunk(EVENTS[2]))
    with pytest.raises(LookupError):
        serving.finish()
    assert serving.ends == [("failed", "internal_error")]
    assert serving.sent == [shown(event) for event in EVENTS[:2]]


def test_a_read_that_is_one_usual_chunk_is_taken(passage: tuple[Passage, list[bytes]]) -> None:
    one, sent = passage
    before = time.monotonic()
    until = one.take(chunk(EVENTS[3]))
    assert before + 5.0 <= until <= time.monotonic() + 5.0
    assert before <= one.last_at_s <= time.monotonic()
    assert sent == [shown(EVENTS[3])]


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(EVENTS[1:3], id="two"),
        pytest.param(EVENTS, id="six"),
        pytest.param([content_event("x" * n, usage=usage(24, n)) for n in (1, 0, 80, 30)], id="of several sizes"),
        pytest.param([EVENTS[1], LAST], id="and the last of the choice"),
    ],
)
def test_a_read_of_several_usual_chunks_is_taken_as_one(passage: tuple[Passage, list[bytes]], events: list[bytes]) -> None:
    one, sent = passage
    assert one.take(b"".join(map(chunk, events))) > time.monotonic()
    assert sent == [shown(EVENTS[0], *events)[len(shown(EVENTS[0])) :]]


def test_what_came_in_one_read_is_metered_as_if_each_had_come_alone() -> None:
    events = [event.removesuffix(b"\n\n") for event in EVENTS]
    for choices in (1, 2):
        meters = [Meter(choices=choices, prompt_estimate_tokens=7) for _ in range(3)]
        for event in events:
            meters[0].note_content(event)
        meters[1].note_contents(events)
        for at in range(0, len(events), 2):
            meters[2].note_contents(events[at : at + 2])
        assert meters[1].usage() == meters[2].usage() == meters[0].usage()


def test_a_count_that_falls_within_one_read_is_no_count() -> None:
    meter = Meter(prompt_estimate_tokens=7)
    meter.note_contents([content_event("a", usage=usage(24, tokens)).removesuffix(b"\n\n") for tokens in (1, 5, 3)])
    assert meter.usage() == Usage(7, 0, 2, "estimated")


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(b"", id="the end"),
        pytest.param(chunk(EVENTS[1])[:-1], id="no line end"),
        pytest.param(chunk(EVENTS[1])[:-2], id="no end"),
        pytest.param(chunk(EVENTS[1][:-2])[:-2] + b"\n\n\r\n", id="longer than its size"),
        pytest.param(chunk(EVENTS[1]) + chunk(DONE), id="two chunks, the second DONE"),
        pytest.param(chunk(EVENTS[1]) + chunk(EVENTS[2])[:-1], id="two chunks, the second without a line end"),
        pytest.param(chunk(EVENTS[1]) + chunk(EVENTS[2])[:40], id="one chunk and a part"),
        pytest.param(chunk(EVENTS[1]) + b"fff" + chunk(EVENTS[2])[2:], id="two chunks, the second shorter than its size"),
        pytest.param(chunk(EVENTS[1]) + EVENTS[2] + b"\r\n", id="one chunk, and an event that is none"),
        pytest.param(chunk(EVENTS[1]) + b"\n\n\r\n", id="one chunk, and a blank line"),
        pytest.param(chunk(EVENTS[1]) + chunk(EVENTS[2].replace(b'"tiny"', b'"other"')), id="two chunks, another head"),
        pytest.param(chunk(EVENTS[1] + EVENTS[2]), id="two events"),
        pytest.param(chunk(EVENTS[1]) + LAST_CHUNK, id="with the last one"),
        pytest.param(chunk(EVENTS[1][:-1]), id="half a blank line"),
        pytest.param(chunk(EVENTS[1][:-2]), id="no blank line"),
        pytest.param(chunk(DONE), id="DONE"),
        pytest.param(chunk(LAST.replace(b'"stop"', b'"abort"')), id="aborted in the usual form"),
        pytest.param(chunk(content_event("a", finish_reason="stop", usage=usage(24, 6))), id="ended in another form"),
        pytest.param(chunk(content_event("a", finish_reason="abort", usage=usage(24, 6))), id="aborted"),
        pytest.param(chunk(EVENTS[1].replace(b'"tiny"', b'"other"')), id="another head"),
        pytest.param(EVENTS[1], id="no chunk"),
        pytest.param(b"\r\n" + EVENTS[1], id="an empty line"),
        pytest.param(chunk(EVENTS[1]).replace(b"\r\n", b";a=b\r\n", 1), id="an extension"),
        pytest.param(b"+" + chunk(EVENTS[1]), id="a sign"),
        pytest.param(LAST_CHUNK, id="the last chunk"),
    ],
)
def test_any_other_read_is_left(passage: tuple[Passage, list[bytes]], read: bytes) -> None:
    one, sent = passage
    assert one.take(read) == 0.0
    assert sent == []
    assert one.last_at_s == 0.0
