"""Content policies on the way out, over real sockets: nothing forbidden is delivered, and the backend is stopped."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests import processes
from tests.e2e.conftest import Stand
from tests.e2e.test_policies_input import policy, said

SECRET = "ALPHA-77"
BLOCK = {"kind": "keywords", "words": [SECRET], "where": ["output"], "action": "block", "name": "code-names"}
EMAIL = {"kind": "detector", "detector": "email", "where": ["output"], "action": "redact", "name": "mail"}


@pytest.fixture(scope="module")
def gateway_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[processes.Gateway]:
    with processes.gateway(tmp_path_factory.mktemp("gateway"), workers=2) as running:
        yield running


def events_of(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def text_of(events: list[dict[str, Any]], index: int = 0) -> str:
    choices = [choice for event in events for choice in event["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def test_a_block_in_mid_stream_ends_the_answer_and_the_generation(stand: Stand) -> None:
    policy(stand, BLOCK, tenant=stand.acme)
    stand.vllm.knobs(says=f"The road is open. Its name is {SECRET} and " + "so on " * 2_000, tokens_per_s=200)
    response = stand.post(said("Go on", stream=True, max_tokens=4_000, stream_options={"include_usage": True}))
    assert response.status_code == 200
    events = events_of(response.text)
    assert text_of(events) == "The road is open. Its name is "
    assert "ALPHA" not in response.text
    [reason] = [choice["finish_reason"] for event in events for choice in event["choices"] if choice["finish_reason"]]
    assert reason == "content_filter"
    stand.until(lambda: stand.running() == 0, "the generation goes on")
    event = stand.event(response.headers["x-request-id"])
    assert (event.status, event.outcome, event.error_code) == (200, "completed", "content_blocked")
    assert event.usage_source == "backend"
    assert 0 < event.completion_tokens < 200
    assert events[-1]["usage"]["completion_tokens"] == event.completion_tokens
    assert event.policy is not None
    [told] = event.policy
    assert (told["rule"], told["action"], told["surface"], told["start"]) == ("code-names", "block", "output.content", 30)


def test_a_plain_answer_that_is_blocked_is_a_403_that_was_used(stand: Stand) -> None:
    policy(stand, BLOCK, tenant=stand.acme)
    stand.vllm.knobs(says=f"Its name is {SECRET}.")
    response = stand.post(said("Go on"))
    assert (response.status_code, response.json()["error"]["code"]) == (403, "content_blocked")
    assert response.headers["x-should-retry"] == "false"
    assert SECRET not in response.text
    event = stand.event(response.headers["x-request-id"])
    assert (event.status, event.error_code, event.usage_source) == (403, "content_blocked", "backend")
    assert event.completion_tokens > 0
    assert SECRET not in "\n".join(stand.gateway.lines())


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
def test_masks_stand_in_the_answer_and_usage_stays_the_backends(stand: Stand, stream: bool) -> None:
    policy(stand, EMAIL, tenant=stand.acme)
    stand.vllm.knobs(says="Write to taro@example.com, or hanako@example.jp, or taro@example.com again.")
    response = stand.post(said("Go on", stream=stream))
    text = text_of(events_of(response.text)) if stream else response.json()["choices"][0]["message"]["content"]
    assert text == "Write to [EMAIL_1], or [EMAIL_2], or [EMAIL_1] again."
    event = stand.event(response.headers["x-request-id"])
    assert (event.outcome, event.error_code, event.usage_source) == ("completed", None, "backend")
    assert [one["action"] for one in event.policy or ()] == ["redact"] * 3


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
def test_what_was_masked_on_the_way_in_is_restored_on_the_way_out(stand: Stand, stream: bool) -> None:
    policy(stand, {**EMAIL, "where": ["input"], "restore": True}, tenant=stand.acme)
    stand.vllm.knobs(says="I have written to [EMAIL_1] and to [EMAIL_2].")
    response = stand.post(said("Write to taro@example.com", stream=stream))
    text = text_of(events_of(response.text)) if stream else response.json()["choices"][0]["message"]["content"]
    assert text == "I have written to taro@example.com and to [EMAIL_2]."
    assert "[EMAIL_1]" in json.dumps(stand.vllm.requests()[-1]["body"])


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
def test_a_flag_changes_nothing_but_the_record(stand: Stand, stream: bool) -> None:
    policy(stand, {**BLOCK, "action": "flag"}, tenant=stand.acme)
    says = f"Its name is {SECRET}."
    stand.vllm.knobs(says=says)
    response = stand.post(said("Go on", stream=stream))
    text = text_of(events_of(response.text)) if stream else response.json()["choices"][0]["message"]["content"]
    assert text == says
    event = stand.event(response.headers["x-request-id"])
    assert event.error_code is None
    assert [one["action"] for one in event.policy or ()] == ["flag"]


def test_reasoning_and_tool_arguments_are_guarded_too(stand: Stand) -> None:
    policy(stand, BLOCK, tenant=stand.acme)
    stand.vllm.knobs(says=f"Let me think of {SECRET} for a while, and then say nothing.", reasoning_tokens=100)
    response = stand.post(said("Go on", stream=True))
    events = events_of(response.text)
    assert "ALPHA" not in response.text
    assert events[-1]["choices"][0]["finish_reason"] == "content_filter"
    stand.vllm.reset()
    tool = {"type": "function", "function": {"name": "look", "parameters": {
        "type": "object", "properties": {"name": {"type": "string", "enum": [SECRET]}}, "required": ["name"]}}}  # fmt: skip
    choice = {"type": "function", "function": {"name": "look"}}
    for stream in (True, False):
        response = stand.post(said("Go on", stream=stream, tools=[tool], tool_choice=choice))
        assert "ALPHA" not in response.text
        assert stand.event(response.headers["x-request-id"]).error_code == "content_blocked"


def test_a_policy_that_changes_in_mid_stream_is_the_old_one_for_that_call(stand: Stand) -> None:
    policy(stand, EMAIL, tenant=stand.acme)
    stand.vllm.knobs(says="word " * 60 + SECRET, tokens_per_s=40)
    response = stand.post(said("Go on", stream=True), stream=True)
    policy(stand, BLOCK, tenant=stand.acme, name="later")
    assert SECRET in response.text
    assert stand.event(response.headers["x-request-id"]).error_code is None


def test_official_client_sees_a_filtered_answer(stand: Stand) -> None:
    policy(stand, BLOCK, tenant=stand.acme)
    stand.vllm.knobs(says=f"Its name is {SECRET}, and more.")
    client = openai.OpenAI(api_key=stand.secret, base_url=stand.gateway.url + "/v1", max_retries=0)
    stream = client.chat.completions.create(
        model="general", messages=[{"role": "user", "content": "Go on"}], stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Its name is "
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "content_filter"
    assert chunks[-1].usage is not None
    with pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(model="general", messages=[{"role": "user", "content": "Go on"}])
