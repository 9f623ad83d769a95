"""Each knob does what it says, seen from a raw socket."""

import gzip
import json
import zlib
from typing import Any

import pytest

from tests.gateway.simulator.wire import Client, chat, exchange, post
from tests.simulator import Simulator, simulator, wait_until

USAGE = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
MARK = "canary-7f3a"


def one(sim: Simulator) -> dict[str, Any]:
    """The only request so far, once it has ended."""
    wait_until(lambda: [r["finished"] for r in sim.requests()] not in ([], [None]))
    (record,) = sim.requests()
    return record


def test_the_head_of_a_stream_comes_before_the_first_token(sim: Simulator) -> None:
    with Client(sim.address) as client:
        client.chat(messages=[{"role": "user", "content": "[[sim first_token_ms=600000]]"}], stream=True)
        status, _ = client.read_head()
        client.sock.settimeout(0.3)
        assert (status, client.read_chunk()) == (200, None)


def test_tokens_come_at_their_pace(sim: Simulator) -> None:
    with Client(sim.address) as client:
        client.chat(messages=[{"role": "user", "content": "[[sim tokens_per_s=0.001]]"}], stream=True)
        client.read_head()
        assert b'"role"' in (client.read_chunk() or b"")
        assert b'"content"' in (client.read_chunk() or b"")
        client.sock.settimeout(0.3)
        assert client.read_chunk() is None, "the second token is due in a quarter of an hour"


@pytest.mark.parametrize("stream", [False, True])
def test_the_number_of_tokens_is_exact(sim: Simulator, *, stream: bool) -> None:
    answer = chat(sim.address, "[[sim tokens=37]]", stream=stream, **(USAGE if stream else {}))
    usage = answer.events[-2]["usage"] if stream else answer.json["usage"]
    assert usage["completion_tokens"] == 37
    assert one(sim)["finished"] == "stop"


def test_knobs_turn_by_header_by_message_and_for_all(sim: Simulator) -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    header = exchange(sim.address, post("/v1/chat/completions", body, "x-sim-knobs: status=404"))
    message = chat(sim.address, "Hello [[sim status=503 retry_after_s=2]]")
    sim.knobs(status=429, retry_after_s=7)
    everyone = chat(sim.address)
    assert [header.status, message.status, everyone.status] == [404, 503, 429]
    assert everyone.header("retry-after") == "7"


@pytest.mark.parametrize("words", ["no_such_knob=1", "tokens=many", "max_num_seqs=1"])
def test_an_impossible_knob_is_told(sim: Simulator, words: str) -> None:
    answer = chat(sim.address, f"[[sim {words}]]")
    assert answer.status == 400
    assert words.partition("=")[0] in answer.json["error"]["message"]


@pytest.mark.parametrize("status", [404, 429, 500, 502, 503])
@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_has_its_status_before_any_stream(sim: Simulator, status: int, *, stream: bool) -> None:
    answer = chat(sim.address, f"[[sim status={status}]]", stream=stream)
    assert answer.status == status
    assert list(answer.json["error"]) == ["message", "type", "param", "code"]
    assert answer.json["error"]["code"] == status
    assert (answer.header("retry-after") is not None) == (status == 429)
    assert one(sim)["status"] == status


def test_a_share_of_requests_fails(sim: Simulator) -> None:
    sim.knobs(fail_rate=0.5)
    failed = sum(chat(sim.address, max_tokens=1).status == 500 for _ in range(60))
    assert 10 < failed < 50


def test_a_failure_may_be_a_page(sim: Simulator) -> None:
    answer = chat(sim.address, "[[sim status=502 html]]")
    assert (answer.status, answer.header("content-type")) == (502, "text/html")
    assert answer.body.startswith(b"<html>")


def test_an_error_may_come_under_status_200(sim: Simulator) -> None:
    answer = chat(sim.address, "[[sim error_body_200]]")
    assert answer.status == 200
    assert answer.json["error"]["type"] == "InternalServerError"


def test_a_redirect_names_its_target(sim: Simulator) -> None:
    answer = chat(sim.address, "[[sim redirect=http://elsewhere.example/v1]]")
    assert (answer.status, answer.header("location")) == (307, "http://elsewhere.example/v1")


def test_a_hanging_request_is_never_answered(sim: Simulator) -> None:
    with Client(sim.address) as client:
        client.chat(messages=[{"role": "user", "content": "[[sim hang]]"}])
        client.sock.settimeout(0.3)
        with pytest.raises(AssertionError, match="no head: open after b''"):
            client.read_head()
    assert one(sim)["finished"] == "disconnect"


@pytest.mark.parametrize(
    ("knob", "end", "finished"),
    [("cut_after", "fin", "cut"), ("reset_after", "reset", "cut")],
)
@pytest.mark.parametrize("events", [0, 1, 5])
def test_a_stream_breaks_off_after_so_many_events(sim: Simulator, knob: str, end: str, finished: str, events: int) -> None:
    answer = chat(sim.address, f"[[sim {knob}={events} tokens=20]]", stream=True)
    assert answer.status == 200
    assert (len(answer.events), answer.end) == (events, end)
    record = one(sim)
    assert (record["completion_tokens"], record["finished"]) == (max(0, events - 1), finished)


@pytest.mark.parametrize(("knob", "end"), [("cut_after", "fin"), ("reset_after", "reset")])
def test_a_plain_answer_breaks_off_after_so_many_bytes(sim: Simulator, knob: str, end: str) -> None:
    answer = chat(sim.address, f"[[sim {knob}=25]]")
    assert int(answer.header("content-length") or 0) > 25
    assert (len(answer.body), answer.end) == (25, end)


def test_a_stream_stands_still_and_holds_its_seat(sim: Simulator) -> None:
    with Client(sim.address) as client:
        client.chat(messages=[{"role": "user", "content": "[[sim hang_after=4]]"}], stream=True)
        client.read_head()
        chunks = [client.read_chunk() for _ in range(4)]
        client.sock.settimeout(0.3)
        assert all(chunks)
        assert client.read_chunk() is None
        assert sim.metrics()["num_requests_running"] == 1
        assert sim.metrics()["generation_tokens_total"] >= 3
    record = one(sim)
    assert (record["completion_tokens"], record["finished"]) == (3, "disconnect")


def test_half_an_event_is_no_event(sim: Simulator) -> None:
    answer = chat(sim.address, "[[sim half_event_after=2]]", stream=True)
    assert answer.end == "fin"
    assert len(answer.chunks) == 3
    assert not answer.chunks[2].endswith(b"\n\n")


def test_a_reset_may_come_in_the_middle_of_a_chunk(sim: Simulator) -> None:
    answer = chat(sim.address, "[[sim half_event_after=2 half_event_end=reset]]", stream=True)
    assert (answer.end, len(answer.chunks)) == ("reset", 2)
    assert answer.body.rpartition(b"\r\n")[2].startswith(b"data: {"), "the third chunk has begun"


def test_silence_may_follow_half_an_event(sim: Simulator) -> None:
    with Client(sim.address) as client:
        content = "[[sim half_event_after=2 half_event_end=silence]]"
        client.chat(messages=[{"role": "user", "content": content}], stream=True)
        client.read_head()
        chunks = [client.read_chunk() for _ in range(3)]
        assert chunks[2] is not None
        assert not chunks[2].endswith(b"\n\n")
        client.sock.settimeout(0.3)
        assert client.read_chunk() is None


def test_an_error_event_ends_a_stream_as_recorded(sim: Simulator) -> None:
    answer = chat(sim.address, "[[sim error_event_after=3]]", stream=True)
    assert answer.end == "done"
    assert answer.chunks[3].startswith(b'data: {"error": {"message": "EngineCore encountered an issue.')
    assert answer.events[3]["error"]["code"] == 500
    assert answer.events[4] == "[DONE]"
    assert one(sim)["finished"] == "error"


def test_an_aborted_stream_says_so_and_reports_what_it_made(sim: Simulator) -> None:
    answer = chat(sim.address, "[[sim abort_after=3]]", stream=True, **USAGE)
    assert answer.events[3]["choices"][0]["finish_reason"] == "abort"
    assert answer.events[4]["usage"]["completion_tokens"] == 2
    assert answer.events[5] == "[DONE]"
    assert (one(sim)["finished"], one(sim)["completion_tokens"]) == ("abort", 2)


def test_done_may_be_missing(sim: Simulator) -> None:
    answer = chat(sim.address, "[[sim no_done]]", stream=True)
    assert answer.end == "done"
    assert answer.events[-1]["choices"][0]["finish_reason"] == "stop"


def test_bytes_may_drip(sim: Simulator) -> None:
    answer = chat(sim.address, "[[sim drip_bytes_per_s=5000 tokens=2]]", stream=True)
    assert answer.end == "done"
    with Client(sim.address) as client:
        client.chat(messages=[{"role": "user", "content": "[[sim drip_bytes_per_s=1]]"}])
        assert client.sock.recv(100) == b"H"


@pytest.mark.parametrize("stream", [False, True])
def test_garbage_comes_under_the_usual_head(sim: Simulator, *, stream: bool) -> None:
    answer = chat(sim.address, "[[sim garbage]]", stream=stream)
    assert answer.status == 200
    assert not answer.body.startswith((b"data", b"{"))
    with pytest.raises(ValueError, match=r"decode|Expecting value"):
        json.loads(answer.body)


@pytest.mark.parametrize("stream", [False, True])
def test_the_content_type_may_be_wrong(sim: Simulator, *, stream: bool) -> None:
    answer = chat(sim.address, "[[sim content_type=text/html]]", stream=stream)
    assert (answer.status, answer.header("content-type")) == (200, "text/html")


def test_answers_may_be_compressed(sim: Simulator) -> None:
    plain = chat(sim.address, "[[sim gzip]]")
    stream = chat(sim.address, "[[sim gzip]]", stream=True)
    assert plain.header("content-encoding") == stream.header("content-encoding") == "gzip"
    assert json.loads(gzip.decompress(plain.body))["object"] == "chat.completion"
    first = zlib.decompressobj(wbits=31).decompress(stream.chunks[0])
    assert first.startswith(b"data: {")
    assert first.endswith(b"}\n\n"), "each event can be read when it comes"
    assert gzip.decompress(stream.body).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True])
def test_the_end_of_the_connection_may_end_the_body(sim: Simulator, *, stream: bool) -> None:
    answer = chat(sim.address, "[[sim framing=close]]", stream=stream)
    assert not {"content-length", "transfer-encoding"} & set(answer.names)
    assert answer.end == "fin"
    assert answer.events[-1] == "[DONE]" if stream else answer.json["usage"]


def test_plain_answers_may_come_in_chunks(sim: Simulator) -> None:
    answer = chat(sim.address, "[[sim framing=chunked]]")
    assert (answer.header("transfer-encoding"), answer.header("content-length")) == ("chunked", None)
    assert answer.json["object"] == "chat.completion"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("lie", ["null", "negative", "missing"])
def test_usage_may_lie(sim: Simulator, lie: str, *, stream: bool) -> None:
    answer = chat(sim.address, f"[[sim usage_lies={lie}]]", stream=stream, **(USAGE if stream else {}))
    objects = [e for e in answer.events if e != "[DONE]"] if stream else [answer.json]
    if lie == "missing":
        assert not any("usage" in o for o in objects)
    elif lie == "null":
        assert all(o["usage"] is None for o in objects)
    else:
        assert objects[-1]["usage"]["completion_tokens"] < 0
    assert one(sim)["completion_tokens"] > 0


def test_one_event_may_be_big(sim: Simulator) -> None:
    answer = chat(sim.address, "[[sim big_event_bytes=3000000 tokens=3]]", stream=True)
    assert len(answer.chunks[1]) > 3_000_000
    assert answer.events[-1] == "[DONE]"
    assert one(sim)["completion_tokens"] == 3


@pytest.mark.parametrize("words", ["", " status=500", " status=503", " error_event_after=2", " error_body_200"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_canary_sits_in_all_that_must_not_pass(sim: Simulator, words: str, *, stream: bool) -> None:
    answer = chat(sim.address, f"[[sim canary={MARK}{words}]]", stream=stream, **(USAGE if stream else {}))
    assert sum(MARK in value for _, value in answer.headers) >= 4
    if stream and not words:
        assert all(MARK in e["id"] and MARK in e["model"] for e in answer.events[:-1])
    if not stream and words in {"", " error_event_after=2"}:
        fields = ("id", "model", "system_fingerprint", "kv_transfer_params", "ec_transfer_params")
        assert all(MARK in json.dumps(answer.json[name]) for name in fields)
    if "status" in words or "200" in words:
        assert MARK in answer.json["error"]["message"]
    if stream and "event" in words:
        assert MARK in answer.events[2]["error"]["message"]


def test_health_may_fail(sim: Simulator) -> None:
    sim.knobs(health_status=503)
    answer = exchange(sim.address, b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
    assert (answer.status, answer.body) == (503, b"")


def test_health_may_be_slow(sim: Simulator) -> None:
    sim.knobs(health_delay_ms=600_000)
    with Client(sim.address) as client:
        client.send(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
        client.sock.settimeout(0.3)
        with pytest.raises(AssertionError, match="no head: open"):
            client.read_head()


def test_a_dead_engine_refuses_with_500_and_is_in_good_health(sim: Simulator) -> None:
    sim.knobs(engine_dead=True)
    answer = chat(sim.address, stream=True)
    assert (answer.status, answer.json["error"]["message"]) == (500, "cannot schedule new futures after shutdown")
    assert exchange(sim.address, b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n").status == 200


def test_a_hung_engine_stands_still_and_goes_on_when_it_is_let(sim: Simulator) -> None:
    with Client(sim.address) as client:
        client.chat(messages=[{"role": "user", "content": "[[sim tokens=200 tokens_per_s=100]]"}], stream=True)
        client.read_head()
        assert client.read_chunk()
        sim.knobs(engine_hung=True)
        before = sim.metrics()
        client.sock.settimeout(0.3)
        while client.read_chunk():
            pass
        assert sim.metrics() == before, "the gauges stand still too"
        assert before["num_requests_running"] == 1
        assert exchange(sim.address, b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n").status == 200
        sim.knobs(engine_hung=False)
        client.sock.settimeout(20)
        assert client.read_chunk()


def test_gauges_may_be_frozen_while_all_goes_on(sim: Simulator) -> None:
    sim.knobs(metrics_frozen=True)
    before = sim.metrics()
    assert chat(sim.address, "[[sim tokens=20]]").status == 200
    assert sim.metrics() == before
    sim.knobs(metrics_frozen=False)
    assert sim.metrics()["generation_tokens_total"] == before["generation_tokens_total"] + 20


def test_another_model_may_be_served_all_of_a_sudden(sim: Simulator) -> None:
    sim.knobs(models_name="other", max_model_len=100)
    listed = exchange(sim.address, b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n").json["data"]
    assert [(m["id"], m["max_model_len"]) for m in listed] == [("other", 100)]
    assert chat(sim.address, model="tiny").status == 404


def test_a_fast_one_takes_a_part_of_the_time() -> None:
    with simulator(speed=1000, first_token_ms=60_000, tokens_per_s=0.1) as sim:
        assert chat(sim.address, "[[sim tokens=5]]").status == 200


def test_a_clock_may_be_ahead(sim: Simulator) -> None:
    now_s = chat(sim.address).json["created"]
    assert chat(sim.address, "[[sim clock_skew_s=86400]]").json["created"] >= now_s + 86400


def test_a_slow_start_refuses_connections_at_first() -> None:
    with simulator("--slow-start-s", "3600", waits=False) as sim:
        with pytest.raises(ConnectionRefusedError):
            Client(sim.address)
        assert sim.stop() == 0
    with simulator("--slow-start-s", "0.2") as sim:
        assert chat(sim.address).status == 200


def test_seats_are_few_and_the_queue_is_full(sim: Simulator) -> None:
    sim.knobs(max_num_seqs=1, max_queued=2)
    slow = {"messages": [{"role": "user", "content": "[[sim hang_after=1]]"}], "stream": True}
    with Client(sim.address) as first, Client(sim.address) as second:
        first.chat(**slow)
        first.read_head()
        first.read_chunk()
        second.chat(**slow)
        assert second.read_head()[0] == 200, "the head comes while the request waits"
        assert (sim.metrics()["num_requests_running"], sim.metrics()["num_requests_waiting"]) == (1, 1)
        third = chat(sim.address, stream=True)
        assert (third.status, third.json["error"]["type"]) == (503, "Service Unavailable")
        assert third.header("retry-after") is None
        assert sim.metrics()["admission_rejections_total"] >= 1
        first.sock.close()
        assert second.read_chunk(), "the seat of the one that left is the next one's"
    wait_until(lambda: sim.metrics()["num_requests_running"] == 0)
