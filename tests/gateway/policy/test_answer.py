"""Of a plain answer passes what its rules let pass; one blocked text blocks all of it."""

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest

from gateway.policy.answer import AnswerGuard
from gateway.policy.masks import Masks
from gateway.policy.scanner import SLICE_CHARACTERS
from tests.gateway.policy.test_stream_guard import CASES, KEYWORD, KINDS, TEXTS, delta_of, rule_set, text_of, tokens


def guard_of(*rules: Mapping[str, object], masks: Masks | None = None) -> AnswerGuard:
    return AnswerGuard(rule_set(*rules), masks or Masks())


def answer(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    choices = [
        {"index": index, "message": {"role": "assistant", "content": None, **message}, "logprobs": None,
         "finish_reason": "stop", "token_ids": None, **more}
        for index, message in enumerate(messages)
    ]  # fmt: skip
    return {"id": "chatcmpl-1", "object": "chat.completion", "choices": choices, "usage": {"completion_tokens": 3}}


def taken(guard: AnswerGuard, told: dict[str, Any]) -> list[dict[str, Any]]:
    guard.take(told)
    return [choice["message"] for choice in told["choices"]]


@pytest.mark.parametrize(
    "message",
    [
        {"content": "text"},
        {"content": None, "refusal": None, "tool_calls": None, "function_call": None},
        {"content": "", "tool_calls": []},
        {"reasoning": "so", "reasoning_content": "so", "refusal": "no"},
        {"tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]},
        {"tool_calls": [{"id": "a", "function": None}, None], "function_call": {"name": None, "arguments": None}},
        {"content": [{"type": "text"}], "audio": None},
    ],
    ids=["text", "nulls", "empty", "reasoning", "tool call", "odd calls", "odd content"],
)
def test_a_clean_answer_stays_as_it_is(message: dict[str, Any]) -> None:
    told = answer(message, logprobs=tokens("text"), token_ids=[1])
    before = copy.deepcopy(told)
    guard = guard_of(KEYWORD)
    guard.take(told)
    assert told == before
    assert not guard.is_blocked
    assert guard.decisions == []


def test_choices_without_a_message_are_left_alone() -> None:
    guard = guard_of(KEYWORD)
    guard.take({"choices": [{"index": 0}, {"index": 1, "message": None}]})
    guard.take({"choices": []})
    assert not guard.is_blocked


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(("kind", "action"), CASES)
def test_every_text_is_judged_and_its_action_done(kind: str, action: str, name: str) -> None:
    rule, text, _ = KINDS[kind]
    guard = guard_of({**rule, "action": action})
    (message,) = taken(guard, answer(delta_of(name, text)))
    assert guard.is_blocked == (action == "block")
    assert [(made.kind, made.action, made.surface) for made in guard.decisions] == [(kind, action, TEXTS[name])]
    if action == "redact":
        made = guard.decisions[0]
        assert made.end is not None
        mask = "[EMAIL_1]" if kind == "detector" else "[REDACTED_1]"
        assert text_of(message, name) == text[: made.start] + mask + text[made.end :]
    elif action == "flag":
        assert text_of(message, name) == text


@pytest.mark.parametrize("call", ["tool_calls", "function_call"])
@pytest.mark.parametrize(("kind", "action"), CASES)
def test_a_name_of_a_tool_cannot_be_masked_and_blocks(kind: str, action: str, call: str) -> None:
    rule, _, name = KINDS[kind]
    guard = guard_of({**rule, "action": action})
    function = {"name": name, "arguments": "{}"}
    taken(guard, answer({call: [{"id": "a", "function": function}] if call == "tool_calls" else function}))
    assert guard.is_blocked == (action != "flag")
    assert [made.action for made in guard.decisions] == [action]


def test_surfaces_without_rules_are_left_alone() -> None:
    guard = guard_of({**KEYWORD, "where": ["output.reasoning"]})
    assert taken(guard, answer({"content": "ALPHA-77"}))[0]["content"] == "ALPHA-77"
    assert not guard.is_blocked


def test_one_blocked_choice_blocks_the_answer() -> None:
    guard = guard_of(KEYWORD)
    guard.take(answer({"content": "fine"}, {"content": "ALPHA-77"}, {"content": "fine"}))
    assert guard.is_blocked


def test_choices_share_their_masks() -> None:
    guard = guard_of({"kind": "detector", "detector": "email", "action": "redact"})
    messages = taken(
        guard, answer({"content": "a@x.example b@x.example"}, {"content": "b@x.example", "reasoning": "A@x.example"})
    )
    assert [message["content"] for message in messages] == ["[EMAIL_1] [EMAIL_2]", "[EMAIL_2]"]
    assert messages[1]["reasoning"] == "[EMAIL_1]"


@pytest.mark.parametrize("name", TEXTS)
def test_no_tokens_are_told_of_a_choice_with_masked_text(name: str) -> None:
    told = answer(delta_of(name, "an ALPHA-77"), {"content": "fine"}, logprobs=tokens("ALPHA", "-77"), token_ids=[7, 8])
    guard_of({**KEYWORD, "action": "redact"}).take(told)
    masked, clean = told["choices"]
    assert (masked["logprobs"], masked["token_ids"]) == (None, None)
    assert (clean["logprobs"], clean["token_ids"]) == (tokens("ALPHA", "-77"), [7, 8])


def test_no_tokens_are_told_where_there_were_none() -> None:
    told = {"choices": [{"index": 0, "message": {"content": "ALPHA-77"}}]}
    guard_of({**KEYWORD, "action": "redact"}).take(told)
    assert told == {"choices": [{"index": 0, "message": {"content": "[REDACTED_1]"}}]}


def test_masks_in_the_answer_are_restored() -> None:
    rule = {"kind": "detector", "detector": "email", "where": ["input"], "action": "redact", "restore": True}
    masks = Masks()
    masks.mask("EMAIL", '"taro"@example.com', alike="taro@example.com", restore=True)
    guard = guard_of(rule, masks=masks)
    (message,) = taken(guard, answer({"content": "[EMAIL_1]", **delta_of("tool_calls", '{"to": "[EMAIL_1]"}')}))
    assert message["content"] == '"taro"@example.com'
    assert json.loads(text_of(message, "tool_calls")) == {"to": '"taro"@example.com'}
    assert guard.decisions == []


def test_others_get_their_turn_while_a_long_text_is_judged() -> None:
    pauses: list[None] = []
    guard = AnswerGuard(rule_set(KEYWORD), Masks(), pause=lambda: pauses.append(None))
    guard.take(answer({"content": "x" * 3 * SLICE_CHARACTERS}))
    assert len(pauses) == 2
