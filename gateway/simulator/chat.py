"""The bytes of a chat answer: events and whole bodies, key by key as vLLM 0.32.0 was recorded. Pure.

What is the same in every event of a stream is made once; an event is then a few joins of bytes.
"""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.simulator import logprobs, tokens
from gateway.simulator.answers import Choice
from gateway.simulator.asks import Ask, Served
from gateway.simulator.engine import BLOCK_TOKENS, Call
from gateway.simulator.knobs import Knobs

DONE: Final = b"data: [DONE]\n\n"
FINGERPRINT: Final = "vllm-0.32.0-51b1a10e"

# Tokens an event stands for, and the event.
Event = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Chat:
    """One call and its answer; events() and whole() put them on the wire."""

    call: Call
    asked: Ask
    choices: Sequence[Choice]
    served: Served
    knobs: Knobs
    created_s: int

    @property
    def model(self) -> str:
        return f"{self.knobs.canary}/{self.asked.model}" if self.knobs.canary else self.asked.model

    @property
    def fingerprint(self) -> str:
        return self.knobs.canary or FINGERPRINT

    def whole(self, choices: Sequence[Choice]) -> bytes:
        """The body of a plain answer; choices: as far as they were generated."""
        completion_tokens = sum(choice.tokens for choice in choices)
        transfer = {"remote_host": self.knobs.canary} if self.knobs.canary else None
        body = {
            "id": self.call.id,
            "object": "chat.completion",
            "created": self.created_s,
            "model": self.model,
            "choices": [self._choice(index, choice) for index, choice in enumerate(choices)],
            "service_tier": None,
            "system_fingerprint": self.fingerprint,
            "usage": self._usage(completion_tokens) | self.details(is_stream=False) | {"completion_tokens_details": None},
            "prompt_logprobs": None,
            "prompt_token_ids": self.prompt_ids(),
            "prompt_text": None,
            "kv_transfer_params": transfer,
            "ec_transfer_params": transfer,
            "metrics": self.figures(completion_tokens, is_stream=False),
        }
        if self.knobs.usage_lies == "null":
            body["usage"] = None
        elif self.knobs.usage_lies == "missing":
            del body["usage"]
        return orjson.dumps(body)

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": choice.content,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
        }
        if choice.calls:
            message["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in choice.calls
            ]
        message["reasoning"] = choice.reasoning
        top = self.asked.top_logprobs
        return {
            "index": index,
            "message": message,
            "logprobs": None if top is None else logprobs.of(choice.pieces, top, as_ids=self.asked.tokens_as_ids),
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
            "token_ids": [tokens.token_id(p) for p in choice.pieces] if self.asked.returns_ids else None,
            "routed_experts": None,
        }

    def usage(self, completion_tokens: int) -> dict[str, Any] | None:
        """The three counts; None and worse when the knob says so."""
        return None if self.knobs.usage_lies == "null" else self._usage(completion_tokens)

    def _usage(self, completion_tokens: int) -> dict[str, Any]:
        sign = -1 if self.knobs.usage_lies == "negative" else 1
        return {
            "prompt_tokens": sign * self.call.prompt_tokens,
            "total_tokens": sign * (self.call.prompt_tokens + completion_tokens),
            "completion_tokens": sign * completion_tokens,
        }

    def details(self, *, is_stream: bool) -> dict[str, Any]:
        """prompt_tokens_details: always a key of a whole answer, a key of a stream's usage event only when shown."""
        if not self.served.shows_prompt_details:
            return {} if is_stream else {"prompt_tokens_details": None}
        cached = self.call.cached_tokens
        created = (self.call.prompt_tokens - 1) // BLOCK_TOKENS * BLOCK_TOKENS - cached
        counts = {"cached_tokens": cached, "created_cache_tokens": created}
        return {"prompt_tokens_details": counts if is_stream else counts | {"multimodal_tokens": None}}

    def figures(self, completion_tokens: int, *, is_stream: bool) -> dict[str, Any] | None:
        """--enable-per-request-metrics: only for one choice, as in vLLM."""
        if not self.served.shows_request_metrics or self.asked.n > 1:
            return None
        call, now_s = self.call, time.monotonic()
        generation_s = now_s - (call.first_token_s or now_s)
        figures = {
            "time_to_first_token_ms": ((call.first_token_s or now_s) - call.arrived_s) * 1000,
            "generation_time_ms": generation_s * 1000,
            "queue_time_ms": (call.scheduled_s - call.arrived_s) * 1000,
            "mean_itl_ms": generation_s * 1000 / (completion_tokens - 1) if completion_tokens > 1 else None,
            "tokens_per_second": completion_tokens / max(now_s - call.arrived_s, 1e-6),
        }
        return figures if is_stream else figures | {"speculative_decoding": None}

    def prompt_ids(self) -> list[int] | None:
        return [tokens.token_id(p) for p in self.asked.prompt] if self.asked.returns_ids else None


class ChatStream:
    """The events of one stream. It remembers what has been told, so that an aborted one can be ended properly."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._asked = chat.asked
        self._told = [0] * len(chat.choices)  # steps of each choice
        self._tokens = [0] * len(chat.choices)
        self.steps_left = sum(len(choice.steps) for choice in chat.choices)
        self._has_begun = False
        self.has_ended = False
        call_id, model = orjson.dumps(chat.call.id), orjson.dumps(chat.model)
        self._head = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":[' % (
            call_id,
            chat.created_s,
            model,
        )
        self._fingerprint = b',"system_fingerprint":%b' % orjson.dumps(chat.fingerprint)

    def events(self) -> Iterator[Event]:
        """All of them, with [DONE]."""
        yield from self._openings()
        for index in self._order():
            yield self._content(index)
        yield from self._closings()

    def aborted(self) -> Iterator[Event]:
        """What ends the stream now: an abort event for each unfinished choice, usage where asked for, [DONE]."""
        if self.has_ended:
            return
        if not self._has_begun:
            yield from self._openings()
        for index, choice in enumerate(self._chat.choices):
            if self._told[index] < len(choice.steps):
                yield 0, self._event(index, b'{"content":""}', finish=b'"abort","stop_reason":null')
        yield from self._closings()

    def _openings(self) -> Iterator[Event]:
        self._has_begun = True
        ids = orjson.dumps(self._chat.prompt_ids())
        for index in range(len(self._chat.choices)):
            choice = b'{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]' % index
            yield 0, b'%b%b%b,"prompt_token_ids":%b,"prompt_text":null}\n\n' % (self._head, choice, self._running(0), ids)

    def _order(self) -> Iterator[int]:
        """Whose step is next: with several choices they interleave unevenly, as recorded."""
        left = [len(choice.steps) for choice in self._chat.choices]
        if len(left) == 1:
            yield from [0] * left[0]
            return
        dice = random.Random(self._asked.seed)  # noqa: S311 - the same call has the same order
        while any(left):
            index = dice.choice([i for i, count in enumerate(left) if count])
            left[index] -= 1
            yield index

    def _content(self, index: int) -> Event:
        choice = self._chat.choices[index]
        place = self._told[index]
        count, delta = choice.steps[place]
        self._told[index] = place + 1
        self._tokens[index] += count
        self.steps_left -= 1
        finish = b"null"
        if place + 1 == len(choice.steps):
            finish = b'%b,"stop_reason":%b' % (orjson.dumps(choice.finish_reason), orjson.dumps(choice.stop_reason))
        piece = choice.pieces[place] if len(choice.steps) == len(choice.pieces) else None
        return count, self._event(index, delta, finish=finish, piece=piece)

    def _event(self, index: int, delta: bytes, *, finish: bytes, piece: str | None = None) -> bytes:
        shown = ids = b"null"
        if piece is not None and self._asked.top_logprobs is not None:
            shown = orjson.dumps(logprobs.of([piece], self._asked.top_logprobs, as_ids=self._asked.tokens_as_ids))
        if self._asked.returns_ids:
            ids = b"[%d]" % tokens.token_id(piece) if piece is not None else b"[]"
        print_ = self._fingerprint if finish != b"null" and not self._asked.includes_usage else b""
        return b'%b{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":%b,"token_ids":%b}]%b%b}\n\n' % (
            self._head,
            index,
            delta,
            shown,
            finish,
            ids,
            self._running(self._tokens[index]),
            print_,
        )

    def _running(self, completion_tokens: int) -> bytes:
        """The running usage, of this choice alone; nothing unless asked for."""
        if not self._asked.continuous_usage or self._chat.knobs.usage_lies == "missing":
            return b""
        prompt_tokens = self._chat.call.prompt_tokens
        if not self._chat.knobs.usage_lies:
            return (
                b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,"completion_tokens_details":null}'
                % (
                    prompt_tokens,
                    prompt_tokens + completion_tokens,
                    completion_tokens,
                )
            )
        return b',"usage":%b' % orjson.dumps(self._chat.usage(completion_tokens))

    def _closings(self) -> Iterator[Event]:
        chat, self.has_ended = self._chat, True
        if self._asked.includes_usage and chat.knobs.usage_lies != "missing":
            total = sum(self._tokens)
            usage = chat.usage(total)
            counts = orjson.dumps(usage if usage is None else usage | chat.details(is_stream=True))
            figures = chat.figures(total, is_stream=True)
            metrics = b',"metrics":%b' % orjson.dumps(figures) if figures else b""
            yield 0, b'%b],"usage":%b%b%b}\n\n' % (self._head, counts, self._fingerprint, metrics)
        if not chat.knobs.no_done:
            yield 0, DONE
