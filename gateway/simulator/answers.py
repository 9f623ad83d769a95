"""What the model answers: for each choice the tokens it generates and what every one of them adds to the message. Pure.

A Choice is decided whole before its first token is sent; pace, faults and an early end only cut it short.
"""

import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import orjson

from gateway.simulator import texts, tokens
from gateway.simulator.asks import Ask
from gateway.simulator.knobs import Knobs
from gateway.simulator.samples import sample

_CALL = re.compile(r"\bcall:([A-Za-z0-9_.-]+)")

# What one event of a stream carries: how many tokens it stands for, and its `delta` as JSON.
Step = tuple[int, bytes]
NOTHING: Final = b"{}"
_CALL_END: Final = "}\n</tool_call>"


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Choice:
    """pieces: the tokens generated, the end token among them. steps: the last one is sent with finish_reason."""

    pieces: Sequence[str]
    steps: Sequence[Step]
    content: str | None
    finish_reason: str
    stop_reason: str | int | None = None
    reasoning: str | None = None
    calls: Sequence[ToolCall] = ()

    @property
    def tokens(self) -> int:
        return len(self.pieces)

    def cut(self, done_tokens: int) -> "Choice":
        """This choice as far as it was generated when the engine stopped."""
        pieces = self.pieces[:done_tokens]
        content = "".join(pieces)
        return replace(self, pieces=pieces, content=content, calls=(), finish_reason="abort", stop_reason=None)


def answer(asked: Ask, knobs: Knobs) -> list[Choice]:
    """One Choice for each of the n asked for. Raises Refusal for a schema that is none."""
    called = _called(asked)
    if called:
        return [_tool_choice(asked, called) for _ in range(asked.n)]
    if asked.choices or asked.schema is not None:
        text = asked.choices[0] if asked.choices else orjson.dumps(sample(asked.schema)).decode()
        return [_ended(tuple(tokens.split(text)), asked.max_tokens)] * asked.n
    return [_text(asked, knobs, index) for index in range(asked.n)]


@lru_cache(65536)
def _step(text: str) -> Step:
    return 1, b'{"content":%b}' % orjson.dumps(text)


@lru_cache(4096)
def _reasoning(text: str) -> bytes:
    return b'{"reasoning":%b}' % orjson.dumps(text)


def _steps(deltas: Sequence[str]) -> tuple[Step, ...]:
    """One token each."""
    return tuple(map(_step, deltas))


def _text(asked: Ask, knobs: Knobs, index: int) -> Choice:
    prompt, seed = asked.last_user_text, asked.seed + index
    if knobs.says:
        pieces = tuple(tokens.split(knobs.says))
    elif asked.ignores_eos or knobs.tokens:
        wanted = asked.max_tokens if asked.ignores_eos else knobs.tokens
        pieces = texts.exactly(prompt, seed, wanted if asked.ignores_eos else wanted - 1)
    else:
        pieces = texts.natural(prompt, seed)
        if len(pieces) < asked.min_tokens:
            pieces = texts.exactly(prompt, seed, asked.min_tokens)
    if knobs.big_event_bytes:
        pieces = ("x" * knobs.big_event_bytes, *pieces[1:])
    if asked.stops or asked.stop_ids:
        stopped = _stopped(asked, pieces)
        if stopped:
            return stopped
    choice = _ended(pieces, asked.max_tokens)
    return _with_reasoning(asked, choice, knobs.reasoning_tokens) if knobs.reasoning_tokens else choice


@lru_cache(512)
def _ended(pieces: tuple[str, ...], max_tokens: int) -> Choice:
    """By the end token, which is an event with empty text, or by the limit before it.

    Kept: the usual answers are few, and thousands of calls in a load test get the same ones.
    """
    if len(pieces) >= max_tokens:
        pieces = pieces[:max_tokens]
        return Choice(pieces, _steps(pieces), "".join(pieces), "length")
    return Choice((*pieces, tokens.END), _steps((*pieces, "")), "".join(pieces), "stop")


def _with_reasoning(asked: Ask, choice: Choice, count: int) -> Choice:
    """The first `count` tokens as reasoning; not part of any recording, the field's name is."""
    thought = choice.pieces[: min(count, choice.tokens - 1)]
    shown = [(1, _reasoning(p) if asked.includes_reasoning else NOTHING) for p in thought]
    reasoning = "".join(thought) if asked.includes_reasoning else None
    content = (choice.content or "").removeprefix("".join(thought))
    return replace(choice, steps=[*shown, *choice.steps[len(thought) :]], content=content, reasoning=reasoning)


def _stopped(asked: Ask, pieces: Sequence[str]) -> Choice | None:
    """The choice as a stop string or a stop token ends it, None if neither comes before max_tokens.

    vLLM holds back as many characters as could begin a stop string, so that none of one is ever sent.
    """
    held = 0 if asked.keeps_stop else max((len(s) - 1 for s in asked.stops), default=0)
    text, sent = "", 0
    deltas: list[str] = []
    for place, piece in enumerate(pieces[: asked.max_tokens]):
        is_id = bool(asked.stop_ids) and tokens.token_id(piece) in asked.stop_ids
        begin = len(text)
        text += "" if is_id else piece
        stop = None if is_id else next((s for s in asked.stops if text.find(s, max(0, begin - len(s) + 1)) >= 0), None)
        if is_id or stop is not None:
            if stop is not None:
                end = text.find(stop, max(0, begin - len(stop) + 1))
                text = text[: end + len(stop)] if asked.keeps_stop else text[:end]
            reason = tokens.token_id(piece) if is_id else stop
            steps = _steps((*deltas, text[sent:]))
            return Choice(pieces[: place + 1], steps, text, "stop", reason)
        upto = max(sent, len(text) - held)
        deltas.append(text[sent:upto])
        sent = upto
    return None


def _called(asked: Ask) -> list[str]:
    """The names of the tools the model calls: the one that is demanded, or those the user names as `call:NAME`."""
    if not asked.tools or asked.tool_choice == "none":
        return []
    names = [str(t["function"]["name"]) for t in asked.tools]
    wanted = [n for n in _CALL.findall(asked.last_user_text) if n in names] if asked.ends_with_user else []
    if asked.tool_choice == "auto":
        return wanted
    if asked.tool_choice == "required":
        return wanted or names[:1]
    return [asked.tool_choice]


def _tool_choice(asked: Ask, names: list[str]) -> Choice:
    """Hermes form, as recorded: the tokens around the arguments are counted but not sent."""
    schemas = {str(t["function"]["name"]): t["function"].get("parameters", {}) for t in asked.tools}
    calls = [
        ToolCall(f"chatcmpl-tool-{uuid.uuid4().hex[:16]}", name, orjson.dumps(sample(schemas[name])).decode()) for name in names
    ]
    heads = [f'<tool_call>\n{{"name": "{c.name}", "arguments": ' for c in calls]
    said = "".join(f"{head}{c.arguments}{_CALL_END}" for c, head in zip(calls, heads, strict=True))
    pieces = [*tokens.split(said), tokens.END]
    steps = [step for index, c in enumerate(calls) for step in _call_steps(index, c, heads[index])]
    if len(pieces) > asked.max_tokens:
        pieces = pieces[: asked.max_tokens]
        return Choice(pieces, list(_within(steps, asked.max_tokens)), "".join(pieces), "length")
    steps.append((len(pieces) - sum(count for count, _ in steps), NOTHING))
    is_named = asked.tool_choice not in {"auto", "required"}
    content = None if asked.tool_choice == "auto" else ""
    return Choice(pieces, steps, content, "stop" if is_named else "tool_calls", calls=calls)


def _call_steps(index: int, call: ToolCall, head: str) -> Iterator[Step]:
    name = {"id": call.id, "type": "function", "index": index, "function": {"name": call.name}}
    before = tokens.count(head) + (tokens.count(_CALL_END) if index else 0)
    yield before, orjson.dumps({"content": None, "tool_calls": [name]})
    for piece in tokens.split(call.arguments):
        part = {"index": index, "function": {"arguments": piece}}
        yield 1, orjson.dumps({"content": None, "tool_calls": [part]})


def _within(steps: Sequence[Step], limit_tokens: int) -> Iterator[Step]:
    """The steps that fit, and a last empty one for the tokens left over."""
    left = limit_tokens
    for count, delta in steps:
        if count > left:
            break
        left -= count
        yield count, delta
    yield left, NOTHING
