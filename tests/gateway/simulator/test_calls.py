"""What a call generates, what it counts, and how it ends when the client goes."""

import json
import threading
from typing import Any

import pytest

from tests.gateway.simulator.wire import Client, chat, exchange, post
from tests.simulator import Simulator, simulator, wait_until

USAGE = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1}},
            "required": ["city", "days"],
        },
    },
}


def hanging(after_events: int, **body: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"[[sim hang_after={after_events}]]"}], "stream": True, **body}


def is_idle(sim: Simulator) -> bool:
    metrics = sim.metrics()
    return metrics["num_requests_running"] == metrics["num_requests_waiting"] == 0


@pytest.mark.parametrize("n", [1, 3])
def test_usage_adds_up(sim: Simulator, n: int) -> None:
    before = sim.metrics()
    answer = chat(sim.address, stream=True, n=n, **USAGE)
    *events, last, done = answer.events
    usage = last["usage"]
    by_choice: dict[int, int] = {}
    for event in events:
        by_choice[event["choices"][0]["index"]] = event["usage"]["completion_tokens"]
    assert done == "[DONE]"
    assert sum(by_choice.values()) == usage["completion_tokens"] == len(events) - n
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    (record,) = sim.requests()
    after = sim.metrics()
    assert (record["prompt_tokens"], record["completion_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert after["generation_tokens_total"] - before["generation_tokens_total"] == usage["completion_tokens"]
    assert after["prompt_tokens_total"] - before["prompt_tokens_total"] == usage["prompt_tokens"]
    assert after["request_success_total"] - before["request_success_total"] == n


def test_choices_interleave_and_differ(sim: Simulator) -> None:
    events = chat(sim.address, stream=True, n=3, seed=5).events[3:-1]
    order = [event["choices"][0]["index"] for event in events]
    assert order != sorted(order)
    assert len({c["message"]["content"] for c in chat(sim.address, n=3, seed=5).json["choices"]}) > 1


def test_a_stream_and_a_plain_answer_say_the_same(sim: Simulator) -> None:
    plain = chat(sim.address, "Tell me more", seed=3)
    assert chat(sim.address, "Tell me more", seed=3, stream=True).text == plain.json["choices"][0]["message"]["content"]


def test_the_answer_is_in_the_language_of_the_question(sim: Simulator) -> None:
    english = chat(sim.address, "How are you?").json["choices"][0]["message"]["content"]
    japanese = chat(sim.address, "お元気ですか").json["choices"][0]["message"]["content"]
    assert english.isascii()
    assert japanese.startswith("お問い合わせありがとうございます。")
    assert japanese.endswith("。")


@pytest.mark.parametrize("prompt", ["How are you?", "お元気ですか"])
def test_a_natural_answer_stops_by_itself(sim: Simulator, prompt: str) -> None:
    for seed in range(10):
        answer = chat(sim.address, prompt, seed=seed).json
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert 40 <= answer["usage"]["completion_tokens"] <= 140


@pytest.mark.parametrize(("body", "tokens"), [({"max_tokens": 7}, 7), ({"max_completion_tokens": 9, "max_tokens": 3}, 9)])
def test_a_limit_ends_the_answer(sim: Simulator, body: dict[str, Any], tokens: int) -> None:
    answer = chat(sim.address, **body).json
    assert (answer["choices"][0]["finish_reason"], answer["usage"]["completion_tokens"]) == ("length", tokens)


def test_without_an_end_token_the_context_is_filled(sim: Simulator) -> None:
    answer = chat(sim.address, ignore_eos=True).json
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == 8192


def test_a_stop_string_is_never_sent(sim: Simulator) -> None:
    whole = chat(sim.address, "Go on").json["choices"][0]["message"]["content"]
    stop = whole[30:42]
    answer = chat(sim.address, "Go on", stop=["never there", stop], stream=True)
    last = answer.events[-2]["choices"][0]
    assert answer.text == whole[: whole.index(stop)]
    assert (last["finish_reason"], last["stop_reason"]) == ("stop", stop)
    kept = chat(sim.address, "Go on", stop=stop, include_stop_str_in_output=True).json["choices"][0]
    assert kept["message"]["content"] == whole[: whole.index(stop) + len(stop)]


def test_prompt_tokens_are_those_of_tokenize(sim: Simulator) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "こんにちは, world 🌍"}]
    counted = exchange(sim.address, post("/tokenize", {"model": "tiny", "messages": messages})).json
    answer = exchange(sim.address, post("/v1/chat/completions", {"messages": messages, "return_token_ids": True})).json
    assert answer["usage"]["prompt_tokens"] == counted["count"] == len(counted["tokens"])
    assert answer["prompt_token_ids"] == counted["tokens"]


def test_token_ids_read_back_as_text(sim: Simulator) -> None:
    choice = chat(sim.address, "日本語で", return_token_ids=True).json["choices"][0]
    text = exchange(sim.address, post("/detokenize", {"tokens": choice["token_ids"]})).json["prompt"]
    assert text == choice["message"]["content"] + "<|im_end|>"


def test_logprobs_are_there_for_every_token(sim: Simulator) -> None:
    answer = chat(sim.address, max_tokens=6, logprobs=True, top_logprobs=2).json
    content = answer["choices"][0]["logprobs"]["content"]
    assert len(content) == 6
    assert "".join(t["token"] for t in content) == answer["choices"][0]["message"]["content"]
    assert all(t["logprob"] <= 0 and len(t["top_logprobs"]) == 2 for t in content)


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_when_the_user_names_it(sim: Simulator, *, stream: bool) -> None:
    answer = chat(sim.address, "call:get_weather please", tools=[WEATHER], stream=stream)
    if stream:
        deltas = [e["choices"][0]["delta"] for e in answer.events[1:-1]]
        calls = [d["tool_calls"][0] for d in deltas if "tool_calls" in d]
        name, arguments = calls[0]["function"]["name"], "".join(c["function"]["arguments"] for c in calls[1:])
        finish = answer.events[-2]["choices"][0]["finish_reason"]
    else:
        message = answer.json["choices"][0]["message"]
        (call,) = message["tool_calls"]
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        finish = answer.json["choices"][0]["finish_reason"]
        assert message["content"] is None
    assert (name, json.loads(arguments), finish) == ("get_weather", {"city": "Paris", "days": 1}, "tool_calls")


def test_a_tool_result_is_answered_in_words(sim: Simulator) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "call:get_weather"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    answer = exchange(sim.address, post("/v1/chat/completions", {"messages": messages, "tools": [WEATHER]})).json
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize("limit", [5, 14, 25])
def test_a_tool_call_cut_by_the_limit_is_no_call(sim: Simulator, limit: int) -> None:
    body = {"tools": [WEATHER], "tool_choice": "required", "max_tokens": limit}
    plain = chat(sim.address, **body).json
    assert plain["choices"][0]["finish_reason"] == "length"
    assert "tool_calls" not in plain["choices"][0]["message"]
    last = chat(sim.address, **body, stream=True, **USAGE).events[-2]
    assert last["usage"]["completion_tokens"] == limit


def test_json_meets_its_schema(sim: Simulator) -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"$ref": "#/$defs/A"},
            "n": {"type": ["number", "null"], "minimum": 2},
            "o": {"anyOf": [{"const": 1}]},
        },
        "required": ["a", "n", "o"],
        "$defs": {"A": {"type": "array", "items": {"type": "boolean"}, "minItems": 2}},
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = chat(sim.address, response_format=wanted).json
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"a": [False, False], "n": 2, "o": 1}
    free = chat(sim.address, response_format={"type": "json_object"}).json
    assert json.loads(free["choices"][0]["message"]["content"]) == {}


def test_reasoning_is_apart_from_content(sim: Simulator) -> None:
    message = chat(sim.address, "[[sim reasoning_tokens=5 tokens=20]]").json["choices"][0]["message"]
    hidden = chat(sim.address, "[[sim reasoning_tokens=5 tokens=20]]", include_reasoning=False).json["choices"][0]["message"]
    events = chat(sim.address, "[[sim reasoning_tokens=5 tokens=20]]", stream=True).events
    assert message["reasoning"]
    assert message["content"]
    assert (hidden["reasoning"], hidden["content"]) == (None, message["content"])
    assert "".join(e["choices"][0]["delta"].get("reasoning", "") for e in events[:-1]) == message["reasoning"]


def test_the_requests_headers_and_body_can_be_looked_up(sim: Simulator) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "user": "someone"}
    answer = exchange(sim.address, post("/v1/chat/completions", body, "x-request-id: abc", "authorization: Bearer k"))
    (record,) = sim.requests()
    assert answer.json["id"] == record["id"] == "chatcmpl-abc"
    assert record["headers"]["authorization"] == "Bearer k"
    assert record["body"] == body


def test_a_refused_request_is_on_record_too(sim: Simulator) -> None:
    assert chat(sim.address, model="nosuch").status == 404
    (record,) = sim.requests()
    assert (record["status"], record["finished"], record["completion_tokens"]) == (404, "refused", 0)


@pytest.mark.parametrize("n", [1, 4])
def test_a_client_that_goes_ends_the_generation(sim: Simulator, n: int) -> None:
    before = sim.metrics()["generation_tokens_total"]
    with Client(sim.address) as client:
        client.chat(**hanging(n + 6, n=n))
        client.read_head()
        for _ in range(n + 6):
            assert client.read_chunk()
        assert sim.metrics()["num_requests_running"] == n
    wait_until(lambda: is_idle(sim))
    (record,) = sim.requests()
    assert (record["finished"], record["completion_tokens"]) == ("disconnect", 6)
    assert sim.metrics()["generation_tokens_total"] - before == 6


def test_a_half_close_is_a_disconnect(sim: Simulator) -> None:
    with Client(sim.address) as client:
        client.chat(**hanging(3))
        client.read_head()
        client.read_chunk()
        client.sock.shutdown(1)
        wait_until(lambda: is_idle(sim))
        assert sim.requests()[0]["finished"] == "disconnect"


def test_a_second_request_hides_the_disconnect(sim: Simulator) -> None:
    with Client(sim.address) as client:
        client.chat(messages=[{"role": "user", "content": "[[sim tokens=10 tokens_per_s=20]]"}], stream=True)
        client.read_head()
        client.read_chunk()
        client.chat()
    wait_until(lambda: sim.requests()[0]["finished"] is not None)
    assert (sim.requests()[0]["finished"], sim.requests()[0]["completion_tokens"]) == ("stop", 10)


def test_a_plain_answer_nobody_waits_for_is_not_generated_on(sim: Simulator) -> None:
    with Client(sim.address) as client:
        client.chat(messages=[{"role": "user", "content": "[[sim tokens=1000 tokens_per_s=100]]"}])
        wait_until(lambda: sim.metrics()["num_requests_running"] == 1)
    wait_until(lambda: is_idle(sim))
    (record,) = sim.requests()
    assert record["finished"] == "disconnect"
    assert 1 <= record["completion_tokens"] < 1000


def test_a_waiting_client_that_goes_leaves_the_queue(sim: Simulator) -> None:
    sim.knobs(max_num_seqs=1)
    with Client(sim.address) as first:
        first.chat(**hanging(1))
        first.read_head()
        with Client(sim.address) as second:
            second.chat()
            wait_until(lambda: sim.metrics()["num_requests_waiting"] == 1)
        wait_until(lambda: sim.metrics()["num_requests_waiting"] == 0)
        assert sim.metrics()["num_requests_running"] == 1
    wait_until(lambda: is_idle(sim))


def test_the_lower_priority_number_goes_first(sim: Simulator) -> None:
    sim.knobs(max_num_seqs=1)
    with Client(sim.address) as first, Client(sim.address) as late, Client(sim.address) as soon:
        first.chat(**hanging(1))
        first.read_head()
        late.chat(**hanging(1, priority=10))
        wait_until(lambda: sim.metrics()["num_requests_waiting"] == 1)
        soon.chat(**hanging(1, priority=-1))
        wait_until(lambda: sim.metrics()["num_requests_waiting"] == 2)
        first.sock.close()
        soon.read_head()
        assert soon.read_chunk()
        assert sim.metrics()["num_requests_waiting"] == 1


@pytest.mark.parametrize("text", ["unsafe", "案件ABC-12 の件です。 It is done.", "\n\nsafe\n"])
def test_it_says_what_it_is_told_to(sim: Simulator, text: str) -> None:
    sim.knobs(says=text)
    assert chat(sim.address).json["choices"][0]["message"]["content"] == text
    deltas = [event["choices"][0]["delta"].get("content") for event in chat(sim.address, stream=True).events[:-1]]
    assert "".join(filter(None, deltas)) == text


def test_a_prefix_is_cached_for_its_own_salt_only() -> None:
    prompt = "the same beginning " * 60
    with simulator("--enable-prompt-tokens-details") as sim:
        cached = [
            chat(sim.address, prompt, cache_salt=salt).json["usage"]["prompt_tokens_details"]["cached_tokens"]
            for salt in ("a", "a", "b", "b")
        ]
    assert cached[0] == cached[2] == 0
    assert cached[1] == cached[3] > 128


def test_totals_are_the_sum_of_all_calls(sim: Simulator) -> None:
    """Streams that end, break off and are left, all at once: no token is counted twice or lost."""
    before = sim.metrics()["generation_tokens_total"]
    words = [
        "tokens=30",
        "cut_after=7",
        "reset_after=4",
        "abort_after=9",
        "error_event_after=5",
        "status=500",
        "half_event_after=2",
    ]
    threads = [
        threading.Thread(target=chat, args=(sim.address, f"[[sim {word} tokens_per_s=300]]"), kwargs={"stream": is_stream})
        for word in words
        for is_stream in (True, False, True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: is_idle(sim))
    made = sum(record["completion_tokens"] for record in sim.requests())
    assert len(sim.requests()) == len(threads)
    assert sim.metrics()["generation_tokens_total"] - before == made > 0
