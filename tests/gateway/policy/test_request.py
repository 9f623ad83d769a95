"""Every text of a request is found on its surface, judged, and replaced where it stands; nothing else changes."""

import copy
from typing import Any

import orjson
import pytest

from gateway.policy.masks import Masks
from gateway.policy.reading import JSON_MAX_CHARACTERS, texts
from gateway.policy.request import RequestJudgement, judge_request
from gateway.policy.rules import INPUT, Policy, parse_rules
from gateway.policy.ruleset import compiled

SECRET = "機密コード"
ESCAPED = orjson.dumps({"note": "機密コード"}).decode().replace("機密コード", r"\u6a5f\u5bc6\u30b3\u30fc\u30c9")
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content, **more}]}


def said(role: str, **members: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, **members}]}


def called(arguments: str, name: str = "note") -> dict[str, Any]:
    return said(
        "assistant",
        content=None,
        tool_calls=[{"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}],
    )


def tool(**function: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "note", **function}}]}


def judged(
    fields: dict[str, Any], *rules: dict[str, Any], masks: Masks | None = None, pause: Any = lambda: None
) -> RequestJudgement:
    policy = Policy("no-secrets", 3, parse_rules(list(rules)))
    return judge_request(compiled((policy,)), fields, masks or Masks(), pause=pause)


def keyword(action: str, *where: str, word: str = SECRET) -> dict[str, Any]:
    return {"kind": "keywords", "words": [word], "where": list(where or ("input",)), "action": action}


# Where a text may stand, and whether it can be masked there.
PLACES: list[tuple[str, dict[str, Any], bool]] = [
    ("input.system", said("system", content=SECRET), True),
    ("input.system", said("developer", content=[{"type": "text", "text": SECRET}]), True),
    ("input.system", {"chat_template": SECRET}, True),
    ("input.user", user(SECRET), True),
    ("input.user", user([SECRET]), True),
    ("input.user", user([IMAGE, {"type": "text", "text": SECRET}]), True),
    ("input.user", user("Hello", name=SECRET), True),
    ("input.user", user("Hello", task=SECRET), True),
    ("input.user", user("Hello", unheard_of={"deep": [SECRET]}), True),
    ("input.user", user([{"type": "tool_reference", "name": SECRET}]), False),
    ("input.user", said("critic", content=SECRET), True),
    ("input.assistant", said("assistant", content=SECRET), True),
    ("input.assistant", said("assistant", content=[{"type": "thinking", "thinking": SECRET}]), True),
    ("input.assistant", said("assistant", content=[{"type": "refusal", "refusal": SECRET}]), True),
    ("input.assistant", said("assistant", refusal=SECRET), True),
    ("input.assistant", said("assistant", reasoning=SECRET), True),
    ("input.assistant", said("assistant", reasoning_content=SECRET), True),
    (
        "input.assistant",
        said("assistant", tool_calls=[{"id": SECRET, "type": "function", "function": {"name": "f", "arguments": "{}"}}]),
        True,
    ),
    ("input.assistant", called(orjson.dumps({"note": SECRET}).decode()), True),
    ("input.assistant", called(ESCAPED), True),
    ("input.assistant", called(ESCAPED[:-1]), True),
    ("input.assistant", called('{"a": 1, "a": "' + SECRET + '"}'), True),
    ("input.assistant", called(r'{"a": "\ud800", "b": "\u6a5f\u5bc6\u30b3\u30fc\u30c9"}'), True),
    ("input.assistant", called("[" * 200 + f'"{SECRET}"' + "]" * 200), True),
    ("input.assistant", called("[" * 5000 + f'"{SECRET}"' + "]" * 5000), True),
    ("input.assistant", called('{"a": "' + "x" * JSON_MAX_CHARACTERS + r'\u6a5f\u5bc6\u30b3\u30fc\u30c9"}'), True),
    ("input.assistant", called(orjson.dumps({SECRET: 1}).decode()), False),
    ("input.assistant", called("{}", name=SECRET), False),
    ("input.assistant", said("assistant", function_call={"name": "f", "arguments": ESCAPED}), True),
    ("input.assistant", said("assistant", function_call={"name": SECRET, "arguments": "{}"}), False),
    ("input.tool", said("tool", content=SECRET, tool_call_id="c1"), True),
    ("input.tool", said("tool", content=ESCAPED, tool_call_id="c1"), True),
    ("input.tool", said("tool", content="fine", tool_call_id=SECRET), True),
    ("input.tool", said("tool", content="fine", name=SECRET), False),
    ("input.tool", said("function", content=SECRET, name="f"), True),
    ("input.documents", {"documents": [{"title": SECRET, "text": "fine"}]}, True),
    ("input.documents", {"documents": [{"title": "fine", "text": SECRET}]}, True),
    ("input.documents", {"documents": [{"author": SECRET}]}, True),
    ("input.documents", {"documents": [{SECRET: "fine"}]}, False),
    ("input.tool_definitions", tool(description=SECRET), True),
    ("input.tool_definitions", tool(parameters={"type": "object", "properties": {"a": {"enum": [SECRET]}}}), True),
    ("input.tool_definitions", tool(parameters={"type": "object", "properties": {SECRET: {}}}), False),
    ("input.tool_definitions", {"tools": [{"type": "function", "function": {"name": SECRET}}]}, False),
    ("input.tool_definitions", {"tool_choice": {"type": "function", "function": {"name": SECRET}}}, False),
    ("input.tool_definitions", user("Hello", tools=tool(description=SECRET)["tools"]), True),
    (
        "input.tool_definitions",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"title": SECRET}}}},
        True,
    ),
    ("input.tool_definitions", {"structured_outputs": {"choice": ["fine", SECRET]}}, True),
    ("input.tool_definitions", {"chat_template_kwargs": {"persona": SECRET}}, True),
    ("input.tool_definitions", {"vllm_xargs": {"prefix": SECRET}}, True),
    ("input.tool_definitions", {"not_in_the_table": [SECRET]}, True),
]
IDS = [f"{surface}-{at}" for at, (surface, _, _) in enumerate(PLACES)]


@pytest.mark.parametrize(("surface", "fields", "can_mask"), PLACES, ids=IDS)
def test_a_block_finds_it_everywhere(surface: str, fields: dict[str, Any], can_mask: bool) -> None:
    judgement = judged(fields, keyword("block", surface))
    assert judgement.blocked is not None
    assert (judgement.blocked.policy, judgement.blocked.version, judgement.blocked.rule) == ("no-secrets", 3, "1")
    assert (judgement.blocked.surface, judgement.blocked.action, judgement.blocked.kind) == (surface, "block", "keywords")
    assert judgement.decisions == (judgement.blocked,)
    assert judged(fields, keyword("block", *(INPUT - {surface}))).decisions == ()


@pytest.mark.parametrize(("surface", "fields", "can_mask"), PLACES, ids=IDS)
def test_redaction_masks_it_or_blocks_where_a_mask_would_break_what_it_names(
    surface: str, fields: dict[str, Any], can_mask: bool
) -> None:
    before = copy.deepcopy(fields)
    judgement = judged(fields, keyword("redact", surface))
    assert fields == before
    if can_mask:
        assert judgement.blocked is None
        assert [text.text for text in texts(judgement.fields) if SECRET in text.text] == []
        assert "[REDACTED_1]" in orjson.dumps(judgement.fields).decode()
    else:
        assert judgement.blocked is not None
        assert judgement.fields is fields


@pytest.mark.parametrize(("surface", "fields", "can_mask"), PLACES, ids=IDS)
def test_a_flag_changes_nothing(surface: str, fields: dict[str, Any], can_mask: bool) -> None:
    judgement = judged(fields, keyword("flag", surface))
    assert (judgement.blocked, judgement.fields) == (None, fields)
    assert judgement.fields is fields
    assert [decision.action for decision in judgement.decisions] == ["flag"]


def test_what_is_not_touched_is_shared() -> None:
    fields = {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [IMAGE, {"type": "text", "text": SECRET}]},
        ],
        "tools": tool(description="fine")["tools"],
        "temperature": 0.5,
    }
    new = judged(fields, keyword("redact")).fields
    assert new["messages"][1]["content"][1] == {"type": "text", "text": "[REDACTED_1]"}
    assert new["messages"][0] is fields["messages"][0]  # type: ignore[index]
    assert new["messages"][1]["content"][0] is IMAGE
    assert new["tools"] is fields["tools"]
    assert list(new) == list(fields)


def test_clean_arguments_keep_their_spelling() -> None:
    fields = called('{ "n":1.50,\n "s": "\\u0041" }')
    assert judged(fields, keyword("redact")).fields is fields


def test_a_number_is_read_too() -> None:
    rule = {"kind": "pattern", "pattern": "4[0-9]{15}", "where": ["input.assistant"], "action": "redact"}
    new = judged(called('{"card": 4111111111111111, "ok": true}'), rule).fields
    assert orjson.loads(new["messages"][0]["tool_calls"][0]["function"]["arguments"]) == {"card": "[REDACTED_1]", "ok": True}


def test_the_same_text_has_the_same_mask_throughout_the_call() -> None:
    email = {"kind": "detector", "detector": "email", "where": ["input"], "action": "redact"}
    fields = {
        "messages": [
            {"role": "user", "content": "a@example.com and b@example.com"},
            {"role": "tool", "content": "b@example.com"},
        ]
    }
    new = judged(fields, email).fields["messages"]
    assert new[0]["content"] == "[EMAIL_1] and [EMAIL_2]"
    assert new[1]["content"] == "[EMAIL_2]"


def test_what_is_said_twice_is_decided_once() -> None:
    fields = {"messages": [{"role": "user", "content": SECRET}] * 3}
    assert len(judged(fields, keyword("flag")).decisions) == 1


# ---- rules for the whole


@pytest.mark.parametrize(
    ("bounds", "blocks"),
    [
        ({"max_characters": 11}, False),
        ({"max_characters": 10}, True),
        ({"max_messages": 3}, False),
        ({"max_messages": 2}, True),
        ({"max_images": 1}, False),
    ],
)
def test_sizes_count_all_of_their_surfaces(bounds: dict[str, int], blocks: bool) -> None:
    fields = {
        "messages": [
            {"role": "system", "content": "12"},
            {"role": "user", "content": [IMAGE, {"type": "text", "text": "34567"}]},
            {"role": "user", "content": "8901"},
        ]
    }
    judgement = judged(fields, {"kind": "size", "where": ["input"], "action": "block", **bounds})
    assert (judgement.blocked is not None) is blocks
    assert judgement.blocked is None or judgement.blocked.surface == "input.user"
    assert judged(fields, {"kind": "size", "where": ["input.system"], "action": "block", **bounds}).blocked is None


def test_images_are_counted() -> None:
    rule = {"kind": "size", "max_images": 1, "where": ["input.user"], "action": "block"}
    assert judged(user([IMAGE, IMAGE]), rule).blocked is not None
    assert judged(user([{"image_url": "data:image/png;base64,AAAA"}, IMAGE]), rule).blocked is not None


def test_a_role_that_is_not_allowed() -> None:
    rule = {"kind": "roles", "roles": ["user", "assistant"], "where": ["input"], "action": "block"}
    assert judged(user("Hello"), rule).decisions == ()
    for role, surface in (("system", "input.system"), ("developer", "input.system"), ("critic", "input.user")):
        blocked = judged(said(role, content="x"), rule).blocked
        assert blocked is not None
        assert (blocked.kind, blocked.surface, blocked.start) == ("roles", surface, None)


def test_a_tool_that_is_not_allowed() -> None:
    rule = {"kind": "tools", "tools": ["note"], "where": ["input"], "action": "block"}
    assert judged(called("{}") | tool(), rule).decisions == ()
    for fields in (
        {"tools": [{"function": {"name": "shell"}}]},
        {"tool_choice": {"function": {"name": "shell"}}},
        user("x", tools=[{"function": {"name": "shell"}}]),
        called("{}", name="shell"),
        said("assistant", function_call={"name": "shell", "arguments": "{}"}),
        said("tool", content="x", name="shell"),
    ):
        assert judged(fields, rule).blocked is not None


def test_letters_of_another_script_in_prose() -> None:
    rule = {"kind": "script", "scripts": ["japanese"], "where": ["input"], "action": "block"}
    assert judged(user("東京は12時。", name="taro") | tool(), rule).decisions == ()
    blocked = judged(user("東京はTokyo"), rule).blocked
    assert blocked is not None
    assert (blocked.surface, blocked.start, blocked.end) == ("input.user", 3, 8)


def test_another_script_behind_a_megabyte_is_found_and_others_have_their_turn() -> None:
    turns: list[None] = []
    rule = {"kind": "script", "scripts": ["japanese"], "where": ["input"], "action": "flag"}
    [decision] = judged(user("あ" * 1_000_000 + "x"), rule, pause=lambda: turns.append(None)).decisions
    assert (decision.start, decision.end) == (1_000_000, 1_000_001)
    assert len(turns) > 10


def test_the_whole_is_judged_before_its_texts_and_the_first_block_ends_it() -> None:
    size = {"kind": "size", "max_characters": 1, "where": ["input"], "action": "block"}
    roles = {"kind": "roles", "roles": ["system"], "where": ["input"], "action": "flag"}
    judgement = judged(user(SECRET), keyword("block"), size, roles)
    assert [decision.kind for decision in judgement.decisions] == ["roles", "size"]
    assert judgement.blocked == judgement.decisions[-1]


def test_rules_for_answers_do_not_look_at_requests() -> None:
    rules = [{"kind": "size", "max_characters": 1, "where": ["output"], "action": "block"}, keyword("block", "output")]
    assert judged(user(SECRET), *rules).decisions == ()


# ---- many short texts are asked at once


@pytest.mark.parametrize("at", [0, 1, 50, 99])
@pytest.mark.parametrize("pattern", ["ab+c", "^ab+c", "ab+c$", r"\\bab+c\\b", r"\\Aab+c\\z", "[^x]?ab+c"])
def test_one_of_many_short_texts_is_found(pattern: str, at: int) -> None:
    rule = {"kind": "pattern", "pattern": pattern.replace("\\\\", "\\"), "where": ["input"], "action": "redact"}
    fields = {"documents": [{"title": "abbc" if n == at else f"t{n}"} for n in range(100)]}
    new = judged(fields, rule).fields["documents"]
    assert new == [{"title": "[REDACTED_1]" if n == at else f"t{n}"} for n in range(100)]


def test_what_only_two_texts_together_say_is_not_found() -> None:
    fields = {"documents": [{"title": "ALPHA"}, {"title": "-77"}, {"title": "4111"}, {"title": "1111 1111 1111"}]}
    card = {"kind": "detector", "detector": "credit_card", "where": ["input"], "action": "block"}
    assert judged(fields, keyword("block", word="ALPHA-77"), card).decisions == ()


def test_a_number_is_not_hidden_behind_the_text_before_it() -> None:
    fields = {"documents": [{"title": "12"}, {"title": "4111111111111111"}, {"title": "1"}]}
    card = {"kind": "detector", "detector": "credit_card", "where": ["input"], "action": "block"}
    assert judged(fields, card).blocked is not None
