"""What one call used, from the backend's own counts. Pure; parses nothing until it is asked.

vLLM's running usage counts per choice, its final usage for all choices (vllm/entrypoints/openai/chat_completion/serving.py).
"""

import re
from typing import Any, Final

import orjson

from gateway.upstream.errors import UpstreamError
from gateway.upstream.sse import event_data
from usage.events import UsageSource
from usage.values import light_dataclass

# More than any model holds in one context: a count above it is a fault, and must not eat up a quota.
CEILING_TOKENS: Final = 100_000_000
_FIRST_CHOICE: Final = b'"choices":[{"index":'
_USAGE: Final = b'"usage"'
# As vLLM writes it, at an event's end: inside of another object more than one bracket would follow.
_COUNTS: Final = re.compile(
    rb'"usage":\{"prompt_tokens":(\d{1,9}),"total_tokens":\d+,"completion_tokens":(\d{1,9})(?:,"[a-z_]+":null)*+\}'
    rb'(?:,"system_fingerprint":"[^"\\\r\n]*")?\}\s*'
)


@light_dataclass
class Usage:
    """Tokens of one call. cached_tokens are among the prompt_tokens. source: whose count, see usage.events."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    source: UsageSource


NO_USAGE: Final = Usage(0, 0, 0, "none")


class Meter:
    """Collects the usage of one call, streamed or whole.

    choices: how many answers were asked for (`n`). prompt_estimate_tokens: what to count for the prompt if the backend's
    count is missing or cannot be. ceiling_tokens: above it a count is a fault; the model's context where it is known.
    """

    __slots__ = ("_before", "_ceiling_tokens", "_choices", "_events", "_final", "_last", "_last_by_choice", "_prompt_estimate")

    def __init__(self, *, choices: int = 1, prompt_estimate_tokens: int = 0, ceiling_tokens: int = CEILING_TOKENS) -> None:
        self._choices = choices
        self._prompt_estimate = prompt_estimate_tokens
        self._ceiling_tokens = ceiling_tokens
        self._events = 0
        self._before = self._last = b""
        self._last_by_choice: dict[bytes, bytes] = {}
        self._final: object = None

    def note_content(self, event: bytes) -> None:
        """An event that carries a piece of a choice, as the backend sent it."""
        self._events += 1
        if self._choices == 1:
            self._before = self._last
            self._last = event
        else:
            self._last_by_choice[_choice_of(event)] = event

    def note_contents(self, events: list[bytes]) -> None:
        """Several such events, in their order."""
        if self._choices == 1 and len(events) > 1:
            self._events += len(events)
            self._before, self._last = events[-2:]
        else:
            for event in events:
                self.note_content(event)

    def note_final(self, event: bytes) -> None:
        """The event with the usage of the whole call."""
        self._final = _usage_of(event)

    def note_answer(self, usage: object, *, completion_estimate_tokens: int) -> None:
        """The `usage` of an answer that came whole, whatever it is, and what to count for the answer if it is no usage."""
        self._events = self._choices + completion_estimate_tokens
        self._final = usage

    def usage(self) -> Usage:
        """The call's usage as far as it is known by now. Never raises; no count is ever negative.

        The final count wins. Before it came the running ones are exact to the last event. Where a count is no count,
        too large, or falls, all of it is estimated: a token an event, without the first of each choice, which has none.
        """
        if not self._events and self._final is None:
            return NO_USAGE
        running = self._running() if self._last or self._last_by_choice else None  # a whole answer tells none
        final = self._read(self._final, self._ceiling_tokens * self._choices)
        known = final or running
        if known is None or (final and running and final.completion_tokens < running.completion_tokens):
            return Usage(self._prompt_estimate, 0, max(0, self._events - self._choices), "estimated")
        return known

    def _running(self) -> Usage | None:
        if self._choices > 1:
            return self._sum([self._read(_usage_of(event)) for event in self._last_by_choice.values()])
        last = self._read(_usage_of(self._last))
        before = self._read(_usage_of(self._before))
        if last and before and last.completion_tokens < before.completion_tokens:
            return None
        return last

    def _sum(self, usages: list[Usage | None]) -> Usage | None:
        known = [usage for usage in usages if usage]
        if not known or len(known) < len(usages):
            return None
        completion_tokens = sum(usage.completion_tokens for usage in known)
        return Usage(known[0].prompt_tokens, known[0].cached_tokens, completion_tokens, "backend")

    def _read(self, usage: object, ceiling_tokens: int | None = None) -> Usage | None:
        if not isinstance(usage, dict):
            return None
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if type(prompt) is not int or type(completion) is not int:  # a bool is an int too, but no count
            return None
        if not (0 <= prompt <= self._ceiling_tokens and 0 <= completion <= (ceiling_tokens or self._ceiling_tokens)):
            return None
        details = usage.get("prompt_tokens_details")
        if not isinstance(details, dict):
            return Usage(prompt, 0, completion, "backend")
        cached = details.get("cached_tokens")
        return Usage(prompt, cached if type(cached) is int and 0 <= cached <= prompt else 0, completion, "backend")


def _choice_of(event: bytes) -> bytes:
    """The index of the choice an event belongs to, as written; vLLM sends one choice an event."""
    start = event.find(_FIRST_CHOICE)
    if start >= 0:
        start += len(_FIRST_CHOICE)
        return event[start : event.find(b",", start)]
    choices = _body_of(event).get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return str(first.get("index") if isinstance(first, dict) else None).encode()


def _usage_of(event: bytes) -> object:
    """As it was written, of whatever form. A flat one is read as text: to parse three events took a stream 30 functions."""
    at = event.rfind(_USAGE)
    if at < 0:
        return None
    if counts := _COUNTS.fullmatch(event, at):
        return {"prompt_tokens": int(counts[1]), "completion_tokens": int(counts[2])}
    return _body_of(event).get("usage")


def _body_of(event: bytes) -> dict[str, Any]:
    if not event:
        return {}
    try:
        body = orjson.loads(event_data(event) or b"")
    except (orjson.JSONDecodeError, UpstreamError):
        return {}
    return body if isinstance(body, dict) else {}
