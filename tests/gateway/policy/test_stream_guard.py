"""Of a streamed answer passes what its rules let pass, in whatever events it comes: the same texts as judged whole."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.masks import Masks
from gateway.policy.rules import Policy, parse_rules
from gateway.policy.ruleset import RuleSet
from gateway.policy.scanner import judge_text
from gateway.policy.stream_guard import StreamGuard
from gateway.upstream.errors import UpstreamReported
from gateway.upstream.sse import EventKind, EventRewriter, EventSplitter
from tests.gateway.upstream.recordings import ALIAS, COMPLETION_ID, HEAD, STREAMS, content_event, event, usage

KEYWORD = {"kind": "keywords", "words": ["ALPHA-77"]}
# kind -> rule, a text that it matches, a tool's name that it does
KINDS: dict[str, tuple[Mapping[str, object], str, str]] = {
    "keywords": (KEYWORD, "code: ALPHA-77, he said", "get_alpha-77"),
    "pattern": ({"kind": "pattern", "pattern": "案件_?[A-Z]{3}-[0-9]{2}"}, "see 案件ABC-12 now", "案件abc-12"),
    "detector": ({"kind": "detector", "detector": "email"}, "to taro@example.com now", "taro@example.com"),
    "size": ({"kind": "size", "max_characters": 9}, "ten letters and more", "more_than_nine"),
    "script": ({"kind": "script", "scripts": ["latin"]}, "plain текст here", "текст"),
}
# where in a delta -> its surface
TEXTS = {
    "content": "output.content",
    "refusal": "output.content",
    "reasoning": "output.reasoning",
    "reasoning_content": "output.reasoning",
    "tool_calls": "output.tool_arguments",
    "function_call": "output.tool_arguments",
}
CASES = [
    pytest.param(kind, action, id=f"{kind}-{action}")
    for kind in KINDS
    for action in ("block", "redact", "flag")
    if action != "redact" or kind not in {"size", "script"}
]


def rule_set(*rules: Mapping[str, object]) -> RuleSet:
    return RuleSet([Policy("p", 1, parse_rules([{"where": ["output"], "action": "block", **rule} for rule in rules]))])


def guard_of(*rules: Mapping[str, object], choices: int = 1, masks: Masks | None = None) -> StreamGuard:
    return StreamGuard(rule_set(*rules), masks or Masks(), choices)


def delta_of(name: str, text: str) -> dict[str, Any]:
    if name == "tool_calls":
        return {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}
    return {name: {"arguments": text} if name == "function_call" else text}


def choice_event(delta: dict[str, Any], *, index: int = 0, finish_reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason, **more}
    return event({**HEAD, "choices": [choice]})


def finish(*, index: int = 0, finish_reason: str = "stop") -> bytes:
    return choice_event({}, index=index, finish_reason=finish_reason)


def text_of(delta: dict[str, Any], name: str) -> str:
    if name == "tool_calls":
        return "".join(call["function"].get("arguments", "") for call in delta.get(name, []))
    if name == "function_call":
        return str(delta.get(name, {}).get("arguments", ""))
    return delta.get(name) or ""


def choices_of(sent: Iterable[bytes], index: int = 0) -> list[dict[str, Any]]:
    for one in filter(None, sent):
        assert one.startswith(b"data: ")
        assert one.endswith(b"\n\n")
    bodies = [json.loads(one.removeprefix(b"data: ")) for one in sent if one]
    return [choice for body in bodies for choice in body["choices"] if choice["index"] == index]


def delivered(sent: Iterable[bytes], name: str = "content", index: int = 0) -> str:
    return "".join(text_of(choice["delta"], name) for choice in choices_of(sent, index))


def endings(sent: Iterable[bytes], index: int = 0) -> list[str]:
    return [choice["finish_reason"] for choice in choices_of(sent, index) if choice["finish_reason"] is not None]


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_clean_events_of_a_backend_pass_as_the_very_same_bytes(path: Path) -> None:
    rules: list[Mapping[str, object]] = [
        {"kind": "keywords", "words": ["機密コード"]},
        {"kind": "pattern", "pattern": "案件[A-Z]{3}"},
    ]
    guard = guard_of(*rules, choices=8)
    rewriter = EventRewriter(
        completion_id=COMPLETION_ID, alias=ALIAS, created_s=None, shows_usage=True, shows_running_usage=True
    )
    for raw in EventSplitter().feed(path.read_bytes()):
        try:
            kind, shown = rewriter.rewrite(raw)
        except UpstreamReported:
            break
        if kind in {EventKind.CONTENT, EventKind.USAGE}:
            assert guard.take(shown) == shown
    assert not guard.is_over
    assert [*guard.decisions] == []


@pytest.mark.parametrize(
    "clean",
    [
        choice_event({"role": "assistant", "content": ""}),
        choice_event({"content": None}),
        choice_event({"content": "text", "tool_calls": []}),
        choice_event({"reasoning": "so", "reasoning_content": "so"}),
        choice_event({"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]}),
        choice_event({"tool_calls": [{"index": 0, "function": {"arguments": '{"x": "\\"y\\""}'}}]}),
        choice_event({"content": 'a "quote", a \\ and 機密\U0001f600'}),
        choice_event({"content": "last"}, finish_reason="length", stop_reason=None),
        choice_event({"content": "x"}, token_ids=[5]),
        finish(finish_reason="tool_calls"),
        event({**HEAD, "choices": [], "usage": usage(1, 2)}),
        event({**HEAD, "choices": [{"index": 0, "finish_reason": None}]}),
        event({**HEAD, "choices": [{"index": 0, "delta": None, "finish_reason": None}]}),
    ],
    ids=[
        "role", "null", "no calls", "two kinds of reasoning", "begun call", "arguments", "escapes", "finish", "token ids",
        "bare finish", "usage", "no delta", "null delta",
    ],
)  # fmt: skip
def test_a_clean_event_passes_as_the_very_same_bytes(clean: bytes) -> None:
    assert guard_of(KEYWORD).take(clean) == clean


def test_clean_text_of_a_surface_without_rules_passes() -> None:
    guard = guard_of({**KEYWORD, "where": ["output.reasoning"]})
    for said in (content_event("ALPHA-77"), choice_event({"content": "ALPHA-77", "reasoning": "no"})):
        assert guard.take(said) == said


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(("kind", "action"), CASES)
def test_a_match_split_anywhere_comes_out_as_judged_whole(kind: str, action: str, name: str) -> None:
    rule, text, _ = KINDS[kind]
    matcher = rule_set({**rule, "action": action}).on(TEXTS[name])
    assert matcher is not None
    whole = judge_text(matcher, text, Masks(), surface=TEXTS[name])
    assert (whole.text != text) == (action != "flag")
    for cut in range(len(text) + 1):
        guard = guard_of({**rule, "action": action})
        pieces = [text[:cut], text[cut:]]
        sent = [*(guard.take(choice_event(delta_of(name, piece))) for piece in pieces), guard.take(finish())]
        assert delivered(sent, name) == whole.text
        assert endings(sent) == ["content_filter" if action == "block" else "stop"]
        assert guard.is_over == (action == "block")
        assert [*guard.decisions] == [*whole.decisions]
        assert [made.action for made in guard.decisions] == [action]


@pytest.mark.parametrize("call", ["tool_calls", "function_call"])
@pytest.mark.parametrize(("kind", "action"), CASES)
def test_a_name_of_a_tool_cannot_be_masked_and_blocks(kind: str, action: str, call: str) -> None:
    rule, _, name = KINDS[kind]
    guard = guard_of({**rule, "action": action})
    function = {"name": name, "arguments": "{}"}
    said = choice_event({call: [{"index": 0, "id": "a", "function": function}] if call == "tool_calls" else function})
    sent = [guard.take(said), guard.take(finish())]
    if action == "flag":
        assert sent == [said, finish()]
    else:
        assert name.encode() not in sent[0]
        assert json.dumps(name).encode() not in sent[0]
        assert delivered(sent, call) == ""
        assert endings(sent) == ["content_filter"]
    assert guard.is_over == (action != "flag")
    assert [made.action for made in guard.decisions] == [action]


@pytest.mark.parametrize("action", ["block", "redact"])
def test_text_in_plain_events_is_held_masked_and_stopped(action: str) -> None:
    """The short way of most events."""
    guard = guard_of({**KEYWORD, "action": action})
    sent = [guard.take(content_event(piece)) for piece in ["say AL", "PHA", "-77", "!", " more"]]
    assert sent[1] == b""
    if action == "block":
        assert sent[0] == content_event("say ")
        assert sent[2] == content_event("", finish_reason="content_filter")
        assert sent[3:] == [b"", b""]
    else:
        assert delivered(sent) == "say [REDACTED_1]! more"
        assert sent[4] == content_event(" more")
    assert b"PHA" not in b"".join(sent)


def test_a_block_ends_its_choice_and_nothing_follows() -> None:
    guard = guard_of(KEYWORD, choices=2)
    for index in (0, 1):
        guard.take(choice_event({"role": "assistant", "content": ""}, index=index))
    sent = [guard.take(content_event("my ALPHA-77 is", index=0, usage=usage(1, 2)))]
    assert delivered(sent) == "my "
    assert endings(sent) == ["content_filter"]
    assert json.loads(sent[0].removeprefix(b"data: "))["usage"] == usage(1, 2)
    for late in (
        content_event("more"),
        choice_event({"reasoning": "more"}),
        choice_event({"content": "é", "role": "assistant"}),
        finish(),
        choice_event({"tool_calls": [{"index": 0, "function": {"name": "f"}}]}),
    ):
        assert guard.take(late) == b""
    assert not guard.is_over
    assert guard.take(content_event("on", index=1)) == content_event("on", index=1)
    assert guard.take(finish(index=1)) == finish(index=1)
    assert guard.is_over


def test_an_answer_without_a_block_is_never_over() -> None:
    guard = guard_of(KEYWORD)
    guard.take(finish())
    assert not guard.is_over


def test_what_other_texts_of_a_blocked_choice_hold_never_goes_out() -> None:
    guard = guard_of(KEYWORD)
    sent = [
        guard.take(choice_event({"reasoning": "thinking of ALPHA"})),
        guard.take(choice_event({"content": "it is ALPHA-77", "reasoning": "-88"})),
        guard.take(finish()),
    ]
    assert delivered(sent) == "it is "
    assert delivered(sent, "reasoning") == "thinking of "


def test_interleaved_choices_do_not_tear_a_match_apart() -> None:
    guard = guard_of({**KEYWORD, "action": "redact"}, choices=2)
    text = "is ALPHA-77."
    sent = [guard.take(content_event(char, index=index)) for char in text for index in (0, 1)]
    sent += [guard.take(finish(index=index)) for index in (0, 1)]
    assert [delivered(sent, index=index) for index in (0, 1)] == ["is [REDACTED_1]."] * 2
    assert [endings(sent, index) for index in (0, 1)] == [["stop"], ["stop"]]


def test_choices_of_one_event_are_taken_each_by_itself() -> None:
    guard = guard_of(KEYWORD, choices=2)
    choices = [
        {"index": index, "delta": {"content": text}, "finish_reason": None} for index, text in enumerate(["ALPHA-77", "ok"])
    ]
    sent = [guard.take(event({**HEAD, "choices": choices})), guard.take(event({**HEAD, "choices": choices}))]
    assert [len(json.loads(one.removeprefix(b"data: "))["choices"]) for one in sent] == [2, 1]
    assert [delivered(sent, index=index) for index in (0, 1)] == ["", "okok"]


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("has_delta", [True, False], ids=["with a delta", "without"])
def test_what_is_held_goes_out_when_the_choice_ends(name: str, has_delta: bool) -> None:
    guard = guard_of(KEYWORD)
    assert guard.take(choice_event(delta_of(name, "ALPHA-"))) == b""
    last = finish() if has_delta else event({**HEAD, "choices": [{"index": 0, "finish_reason": "stop"}]})
    sent = [guard.take(last)]
    assert delivered(sent, name) == "ALPHA-"
    assert endings(sent) == ["stop"]


def test_what_is_held_goes_out_before_what_comes_last() -> None:
    guard = guard_of(KEYWORD)
    sent = [guard.take(content_event("AL")), guard.take(content_event("so ALP", finish_reason="length"))]
    assert delivered(sent) == "ALso ALP"
    assert endings(sent) == ["length"]


def test_a_block_that_only_the_end_decides_is_one() -> None:
    guard = guard_of({"kind": "pattern", "pattern": r"\bALPHA-7+\b"})
    sent = [guard.take(content_event("say alpha-77")), guard.take(finish())]
    assert delivered(sent) == "say "
    assert endings(sent) == ["content_filter"]
    assert guard.is_over


def test_arguments_of_several_calls_are_held_and_flushed_each() -> None:
    guard = guard_of({**KEYWORD, "action": "redact"})

    def piece(**pieces: str) -> bytes:
        calls = [{"index": int(call[1:]), "function": {"arguments": text}} for call, text in pieces.items()]
        return guard.take(choice_event({"tool_calls": calls}))

    begun = choice_event({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "AL"}}]})
    sent = [
        piece(c0='{"x": "AL'),
        guard.take(begun),
        piece(c0="PHA", c1="PHA-7"),
        piece(c0="-77", c1="8"),
        piece(c0='"', c1="ALP"),
    ]
    assert sent[2] == b""
    sent.append(guard.take(finish(finish_reason="tool_calls")))
    calls = [call for choice in choices_of(sent) for call in choice["delta"].get("tool_calls", [])]
    texts = ["".join(call["function"].get("arguments", "") for call in calls if call["index"] == index) for index in (0, 1)]
    assert texts == ['{"x": "[REDACTED_1]"', "ALPHA-78ALP"]
    assert [call["function"]["name"] for call in calls if "name" in call["function"]] == ["g"]
    assert not any(call["function"] == {"arguments": ""} for call in calls)


def test_escapes_in_the_arguments_hide_nothing() -> None:
    guard = guard_of({**KEYWORD, "action": "redact"})
    text = r'{"x": "\u0041LPHA\u002d77"}'
    sent = [guard.take(choice_event(delta_of("tool_calls", char))) for char in text]
    sent.append(guard.take(finish()))
    assert json.loads(delivered(sent, "tool_calls")) == {"x": "[REDACTED_1]"}


def tokens(*texts: str) -> dict[str, Any]:
    return {"content": [{"token": text, "logprob": -1.0, "bytes": [*text.encode()], "top_logprobs": []} for text in texts]}


def told_tokens(sent: Iterable[bytes]) -> list[str]:
    return [token["token"] for choice in choices_of(sent) for token in (choice["logprobs"] or {}).get("content") or []]


def told_ids(sent: Iterable[bytes]) -> list[int]:
    return [token for choice in choices_of(sent) for token in choice.get("token_ids") or []]


def say(guard: StreamGuard, pieces: Iterable[str], name: str = "content", **last: Any) -> list[bytes]:
    """Each piece one token, with its number."""
    sent = [
        guard.take(choice_event(delta_of(name, piece), logprobs=tokens(piece or "\ufffd"), token_ids=[at]))
        for at, piece in enumerate(pieces)
    ]
    return [*sent, guard.take(choice_event({}, finish_reason="stop", **last))]


@pytest.mark.parametrize("name", ["content", "reasoning", "tool_calls"])
def test_tokens_of_masked_text_are_never_told(name: str) -> None:
    guard = guard_of({**KEYWORD, "action": "redact"})
    sent = say(guard, ["is ", "AL", "PHA", "-77", " ok"], name)
    assert delivered(sent, name) == "is [REDACTED_1] ok"
    assert told_tokens(sent) == ["is ", " ok"]
    assert told_ids(sent) == [0, 4]


@pytest.mark.parametrize("name", ["content", "reasoning", "tool_calls"])
def test_tokens_of_held_text_come_with_it(name: str) -> None:
    sent = say(guard_of(KEYWORD), ["is ", "AL", "PHA", " ok", "ALP"], name)
    assert [told_tokens([one]) for one in sent] == [["is "], [], [], ["AL", "PHA", " ok"], [], ["ALP"]]
    assert [told_ids([one]) for one in sent] == [[0], [], [], [1, 2, 3], [], [4]]


def test_tokens_of_a_character_that_is_not_all_there_wait_for_it() -> None:
    guard = guard_of({"kind": "keywords", "words": ["密"], "action": "redact"})
    sent = say(guard, ["機", "", "", "密", "", "x", ""], logprobs=tokens("</s>"), token_ids=[99])
    assert delivered(sent) == "機[REDACTED_1]x"
    assert told_ids(sent) == [0, 4, 5, 6, 99]
    assert told_tokens(sent) == ["機", "\ufffd", "x", "\ufffd", "</s>"]


@pytest.mark.parametrize("name", ["content", "reasoning", "tool_calls"])
def test_no_tokens_are_told_of_what_is_blocked(name: str) -> None:
    sent = say(guard_of(KEYWORD), ["is ", "AL", "PHA", "-77", " ok"], name)
    assert told_tokens(sent) == ["is "]
    assert told_ids(sent) == [0]
    assert b"PHA" not in b"".join(sent)


def test_masks_in_the_answer_are_restored() -> None:
    rule = {"kind": "detector", "detector": "email", "where": ["input"], "action": "redact", "restore": True}
    masks = Masks()
    masks.mask("EMAIL", '"taro"@example.com', alike="taro@example.com", restore=True)
    guard = guard_of(rule, masks=masks)
    sent = [guard.take(content_event(char)) for char in "to [EMAIL_1] and [email_2]"]
    sent += [guard.take(choice_event(delta_of("tool_calls", piece))) for piece in ['{"to": "[EMA', 'IL_1]"}']]
    sent.append(guard.take(finish()))
    assert delivered(sent) == 'to "taro"@example.com and [email_2]'
    assert json.loads(delivered(sent, "tool_calls")) == {"to": '"taro"@example.com'}
    assert [*guard.decisions] == []


def test_another_backend_begins_anew() -> None:
    guard = guard_of(KEYWORD)
    assert guard.take(content_event("ALPHA-")) == b""
    guard.restart()
    assert guard.take(content_event("77")) == content_event("77")
    guard.take(content_event(" ALPHA-77"))
    assert guard.is_over
    guard.restart()
    assert not guard.is_over
    assert [*guard.decisions] == []
    assert guard.take(content_event("77")) == content_event("77")


@pytest.mark.parametrize("cut", range(4))
def test_escapes_in_the_json_of_events_hide_nothing(cut: int) -> None:
    text = '\U0001f600機"\\密'
    guard = guard_of({"kind": "keywords", "words": [text], "action": "redact"})

    def escaped(piece: str) -> bytes:
        return content_event("#").replace(b'"#"', json.dumps(piece, ensure_ascii=True).encode())

    sent = [guard.take(escaped("say " + text[:cut])), guard.take(escaped(text[cut:] + " é")), guard.take(finish())]
    assert delivered(sent) == "say [REDACTED_1] é"


ALPHABET = 'abAB-"\\ カか゛é'
RULES = st.lists(
    st.builds(
        lambda rule, action: {**rule, "action": action},
        st.sampled_from(
            [
                {"kind": "keywords", "words": ["ab", "がb"]},
                {"kind": "keywords", "words": ['a"', "かb"], "where": ["output.content"]},
                {"kind": "pattern", "pattern": "a+b?-"},
                {"kind": "pattern", "pattern": r"\\か", "where": ["output.reasoning"]},
                {"kind": "pattern", "pattern": "b.?b", "where": ["output.tool_arguments"]},
            ]
        ),
        st.sampled_from(["block", "redact", "redact", "flag"]),
    ),
    min_size=1,
    max_size=3,
)
NAMES = ("content", "reasoning", "function_call")


def without_numbers(text: str) -> str:
    """Masks are numbered in the order in which the events bring them."""
    return re.sub(r"\[REDACTED_\d+\]", "[]", text)


def drawn_events(data: st.DataObject, texts: dict[tuple[int, str], str]) -> list[bytes]:
    left = dict(texts)
    events: list[bytes] = []
    while left:
        index, name = data.draw(st.sampled_from(sorted(left)))
        text = left.pop((index, name))
        size = data.draw(st.integers(1, max(1, len(text))))
        events.append(choice_event(delta_of(name, text[:size]), index=index))
        if text[size:]:
            left[index, name] = text[size:]
        elif not any(other == index for other, _ in left):
            events.append(finish(index=index))
    return events


@settings(max_examples=300, deadline=None)
@given(RULES, st.data())
def test_whatever_the_events_the_texts_are_those_judged_whole(rules: list[Mapping[str, object]], data: st.DataObject) -> None:
    """But for a choice that was blocked on another of its texts: of that the beginning came out."""
    written = data.draw(st.tuples(*[st.text(ALPHABET, max_size=14)] * 6))
    texts = dict(zip([(index, name) for index in (0, 1) for name in NAMES], written, strict=True))
    looks = rule_set(*rules)
    guard = StreamGuard(looks, Masks(), 2)
    sent = [guard.take(said) for said in drawn_events(data, texts)]
    are_blocked = []
    for index in (0, 1):
        told, judged, blocked = {}, {}, set()
        for name in NAMES:
            matcher, text = looks.on(TEXTS[name]), texts[index, name]
            whole = None if matcher is None else judge_text(matcher, text, Masks(), surface=TEXTS[name])
            judged[name] = without_numbers(whole.text if whole else text)
            told[name] = without_numbers(delivered(sent, name, index))
            if whole is not None and whole.blocked is not None:
                blocked.add(name)
        are_blocked.append(bool(blocked))
        if blocked:
            assert endings(sent, index) == ["content_filter"]
            assert any(told[name] == judged[name] for name in blocked)
            assert all(judged[name].startswith(told[name]) for name in NAMES)
        else:
            assert endings(sent, index) == ["stop"]
            assert told == judged
    assert guard.is_over == any(are_blocked)
