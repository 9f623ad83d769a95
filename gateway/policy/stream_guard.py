"""StreamGuard: lets the events of one streamed answer pass, as far as its output rules let their texts. Pure.

Each text of each choice is scanned by itself (content, reasoning, the arguments of each tool call): interleaved choices do not
tear a match apart. An event whose texts pass as they are goes out as the bytes it came in. What is held back goes out with the
choice's next event; what a block stops never does: that choice ends there, with finish_reason "content_filter".

Wire format: vllm/entrypoints/openai/chat_completion/protocol.py, DeltaMessage; what vLLM's own code calls `reasoning` older
releases call `reasoning_content`.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import orjson

from gateway.policy.decisions import Decision
from gateway.policy.masks import Masks
from gateway.policy.ruleset import RuleSet
from gateway.policy.scanner import Scanner, judge_text

FILTERED: Final = "content_filter"
TEXTS: Final = {
    "content": "output.content",
    "refusal": "output.content",
    "reasoning": "output.reasoning",
    "reasoning_content": "output.reasoning",
}
ARGUMENTS: Final = "output.tool_arguments"
_DATA: Final = b"data: "
_BLANK_LINE: Final = b"\n\n"
# Most events: one choice that says some plain text, and nothing else.
_PLAIN: Final = re.compile(
    rb'"choices":\[\{"index":(\d+),"delta":\{"content":"([^"\\]+)"\},"logprobs":null,"finish_reason":null(?:,"token_ids":null)?\}\]'
)


class StreamGuard:
    """is_over: every choice there was has ended, at least one of them by a block; what the backend goes on with is nobody's."""

    __slots__ = ("_blocked", "_choices", "_count", "_ended", "_masks", "_rules")

    def __init__(self, rules: RuleSet, masks: Masks, choices: int) -> None:
        self._rules = rules
        self._masks = masks
        self._count = choices
        self._choices: dict[int, _Choice] = {}
        self._ended: set[int] = set()
        self._blocked: set[int] = set()

    def restart(self) -> None:
        """Another backend begins the answer anew, before anything of this one has gone out."""
        self._choices.clear()
        self._ended.clear()
        self._blocked.clear()

    @property
    def is_over(self) -> bool:
        return bool(self._blocked) and len(self._ended) >= self._count

    @property
    def decisions(self) -> Iterator[Decision]:
        return (made for choice in self._choices.values() for made in choice.decisions)

    def take(self, event: bytes) -> bytes:
        """What to send for an event with choices, as the client is to see it, with its blank line; b"" for nothing now."""
        plain = _PLAIN.search(event)
        if plain is not None:
            return self._take_plain(event, plain)
        body = orjson.loads(event[len(_DATA) :])
        shown = [choice for choice in body["choices"] if self._shows(choice)]
        if shown == (before := orjson.loads(event[len(_DATA) :])["choices"]):
            return event
        if before and not shown:
            return b""
        body["choices"] = shown
        return _DATA + orjson.dumps(body) + _BLANK_LINE

    def _choice(self, index: int) -> "_Choice":
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice(self._rules, self._masks)
        return choice

    def _take_plain(self, event: bytes, plain: re.Match[bytes]) -> bytes:
        index = int(plain[1])
        if index in self._ended:
            return b""
        text = plain[2].decode()
        choice = self._choices.get(index) or self._choice(index)
        scanner = choice.content
        if scanner is None:
            return event
        passed = scanner.feed(text)
        if passed == text and scanner.blocked is None:
            return event
        choice.is_blocked = choice.is_blocked or scanner.blocked is not None
        start, end = plain.span(2)
        shown = orjson.dumps(passed)[1:-1]
        if choice.is_blocked:
            self._ended.add(index)
            self._blocked.add(index)
            head, tail = event[:end], event[end:].replace(b'"finish_reason":null', b'"finish_reason":"content_filter"', 1)
            return head[:start] + shown + tail
        return event[:start] + shown + event[end:] if passed else b""

    def _shows(self, told: dict[str, Any]) -> bool:
        """Let one choice of an event pass as far as it may. False: there is nothing to send of it."""
        index = told.get("index", 0)
        if index in self._ended:
            return False
        choice = self._choice(index)
        has_more = choice.take(told)
        if choice.is_blocked:
            told["finish_reason"] = FILTERED
            self._blocked.add(index)
        if told.get("finish_reason") is not None:
            self._ended.add(index)
        return has_more or told.get("finish_reason") is not None


class _Tokens(NamedTuple):
    """What is told of the tokens of events. of: their texts, each from and to where; None: nothing of a text came with them.

    That is so for the first bytes of a character, say: it comes with the last of them.
    """

    of: list[tuple[Scanner, int, int]] | None
    logprobs: list[Any]
    ids: list[Any]

    def have_passed(self, *, is_last: bool) -> bool:
        return is_last if self.of is None else all(end <= scanner.passed for scanner, _, end in self.of)

    @property
    def are_masked(self) -> bool:
        return any(scanner.masked(start, end) for scanner, start, end in self.of or ())


class _Choice:
    """The texts of one choice, by what names them in a delta."""

    __slots__ = ("_decisions", "_fed", "_masks", "_rules", "_scanners", "_tokens", "is_blocked")

    def __init__(self, rules: RuleSet, masks: Masks) -> None:
        self._rules = rules
        self._masks = masks
        self._scanners: dict[tuple[str, int], Scanner | None] = {}
        self._decisions: list[Decision] = []
        self._tokens: list[_Tokens] = []  # of text that is held
        self._fed: list[tuple[Scanner, int, int]] | None = None  # texts of the event at hand; None: it has none
        self.is_blocked = False

    @property
    def decisions(self) -> Iterator[Decision]:
        yield from self._decisions
        for scanner in self._scanners.values():
            yield from scanner.decisions if scanner is not None else ()

    @property
    def content(self) -> Scanner | None:
        return self._scanner("content", TEXTS["content"])

    def feed(self, name: str, surface: str, text: str, *, call: int = 0) -> str:
        """What may pass of this text by now."""
        if self.is_blocked:
            return ""
        scanner = self._scanner(name, surface, call)
        self._fed = self._fed or []
        if scanner is None:
            return text
        self._fed.append((scanner, scanner.size, scanner.size + len(text)))
        passed = scanner.feed(text)
        self.is_blocked = self.is_blocked or scanner.blocked is not None
        return passed

    def take(self, told: dict[str, Any]) -> bool:
        """Leave in this choice of an event what may pass. False: that is nothing, where there was something."""
        delta = told.get("delta")
        if not isinstance(delta, dict):
            delta = {}
        was_silent = not any(delta.values())
        self._fed = None
        for name, surface in TEXTS.items():
            if isinstance(text := delta.get(name), str) and text:
                delta[name] = self.feed(name, surface, text)
        calls = delta.get("tool_calls")
        if isinstance(calls, list):
            delta["tool_calls"] = [call for call in calls if self._takes_call(call)]
        if isinstance(one := delta.get("function_call"), dict) and not self._takes_call({"index": -1, "function": one}):
            del delta["function_call"]
        is_last = told.get("finish_reason") is not None
        if is_last:
            self._flush(delta)
        if delta:
            told["delta"] = delta
        self._tell_tokens(told, is_last=is_last)
        return was_silent or any(delta.values())

    def _tell_tokens(self, told: dict[str, Any], *, is_last: bool) -> None:
        """Tokens, and what they might have been, are told once their text has passed as it was."""
        probabilities = told.get("logprobs")
        logprobs = (probabilities.get("content") if isinstance(probabilities, dict) else None) or []
        ids = told.get("token_ids") or []
        if not logprobs and not ids and not self._tokens:
            return
        before = self._tokens.pop() if self._tokens and self._tokens[-1].of is None else _Tokens(None, [], [])
        self._tokens.append(_Tokens(self._fed, before.logprobs + logprobs, before.ids + ids))
        if self.is_blocked:
            self._tokens.clear()
        held, self._tokens = self._tokens, []
        shown: list[_Tokens] = []
        for tokens in held:
            if not tokens.have_passed(is_last=is_last):
                self._tokens.append(tokens)
            elif not tokens.are_masked:
                shown.append(tokens)
        shown_logprobs = [token for tokens in shown for token in tokens.logprobs]
        shown_ids = [token for tokens in shown for token in tokens.ids]
        if shown_logprobs != logprobs:
            told["logprobs"] = {**(probabilities or {}), "content": shown_logprobs}
        if shown_ids != ids:
            told["token_ids"] = shown_ids

    def _takes_call(self, call: Any) -> bool:
        """A piece of a tool call; False where nothing of it may go out yet."""
        if not isinstance(call, dict) or not isinstance(function := call.get("function"), dict):
            return True
        had = function.get("arguments")
        self._take_function(function, call.get("index", 0))
        if self.is_blocked:
            return bool(function.get("name") or function.get("arguments"))
        return not had or bool(function.get("arguments")) or "name" in function or "id" in call

    def _take_function(self, function: dict[str, Any], call: int) -> None:
        if isinstance(name := function.get("name"), str) and name:
            function["name"] = self._name(name)
        if isinstance(arguments := function.get("arguments"), str) and arguments:
            function["arguments"] = self.feed("arguments", ARGUMENTS, arguments, call=call)

    def _name(self, name: str) -> str:
        """A tool's name comes whole, and cannot be masked: nobody has a tool of that name."""
        self._fed = self._fed or []
        matcher = self._rules.on(ARGUMENTS)
        if matcher is not None and not self.is_blocked:
            judged = judge_text(matcher, name, self._masks, surface=ARGUMENTS)
            self._decisions += judged.decisions
            self.is_blocked = judged.text != name
        return "" if self.is_blocked else name

    def _flush(self, delta: dict[str, Any]) -> None:
        """The choice ends: what was held is judged as it is. Where it was blocked nothing more goes out of any of its texts."""
        for (name, call), scanner in self._scanners.items():
            if scanner is None or self.is_blocked:
                continue
            rest = scanner.end()
            self.is_blocked = self.is_blocked or scanner.blocked is not None
            if not rest:
                continue
            if name in TEXTS:
                delta[name] = (delta.get(name) or "") + rest
            elif name == "arguments" and call >= 0:
                delta["tool_calls"] = _with_arguments(delta.get("tool_calls") or [], call, rest)
            elif name == "arguments":
                delta["function_call"] = {"arguments": (delta.get("function_call") or {}).get("arguments", "") + rest}

    def _scanner(self, name: str, surface: str, call: int = 0) -> Scanner | None:
        key = name, call
        try:
            return self._scanners[key]
        except KeyError:
            matcher = self._rules.on(surface)
            scanner = self._scanners[key] = Scanner(matcher, self._masks, surface) if matcher is not None else None
            return scanner


def _with_arguments(calls: list[Any], index: int, rest: str) -> list[Any]:
    for call in calls:
        if isinstance(call, dict) and call.get("index", 0) == index:
            function = call.setdefault("function", {})
            function["arguments"] = (function.get("arguments") or "") + rest
            return calls
    return [*calls, {"index": index, "function": {"arguments": rest}}]
