"""vLLM's event streams: reads into events, and each event into what the client may see. Pure.

Wire format: vllm/entrypoints/openai/chat_completion/serving.py of vLLM 0.32, recorded in tests/recorded/*.body. An event,
here, is its bytes without the blank line that ends it.
"""

import re
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

import orjson

from gateway.upstream.errors import MalformedStream, UpstreamReported
from gateway.upstream.refusals import in_own_words

if TYPE_CHECKING:
    from gateway.upstream.metering import Usage

EVENT_MAX_BYTES: Final = 16 * 1024 * 1024
BLANK_LINE: Final = b"\n\n"
USUAL_END: Final = b"}" + BLANK_LINE
_LAST: Final = b"data: [DONE]"
DONE: Final = _LAST + BLANK_LINE

_BLANK_LINE_OR_CRLF: Final = re.compile(rb"\r?\n\r?\n")
# Keys stand in this order in every event of vLLM; what follows is the first choice. Names with escapes take the parse path.
_HEAD: Final = re.compile(rb'data: \{"id":"[^"\\]*",("object":"[^"\\]*","created":)(\d+),"model":"[^"\\]*",("choices":\[\{)')
# And this most often behind it, to the end: one choice that goes on with some text or ends (but is not aborted), and perhaps
# what it used so far. A long text is left to searches, which take a tenth of a pattern's time for each of its bytes (2026-11).
_USUAL: Final = re.compile(
    rb'(("index":\d+,"delta":\{"[a-z_]+":"[^"\\\r\n]{0,80}+(?:\\[^\r\n][^"\\\r\n]{0,80}+){0,9}+"\},'
    rb'"logprobs":null,"finish_reason":(?:null|"(?:stop|length|tool_calls)","stop_reason":(?:null|\d+|"[^"\\\r\n]{0,80}+"))'
    rb'(?:,"token_ids":null)?\}\])(?:,"usage":\{[^{}\r\n]*\})?)\}'
)
# The last event before [DONE], behind its head but for the first choice, which it lacks: what the whole call used.
_FINAL: Final = re.compile(
    rb'\],"usage":\{"prompt_tokens":\d+,"total_tokens":\d+,"completion_tokens":\d+(?:,"[a-z_]+":null)*+\}'
    rb'(?:,"system_fingerprint":"[^"\\\r\n]*")?\}'
)
# None of these can stand inside a JSON string, where a quote is never bare: they are keys wherever they are found.
_USAGE_AFTER_CHOICES: Final = b'}],"usage":{'
_END_OF_CHOICES: Final = b"}]}"
_KEY_AFTER_LIST: Final = b'}],"'
_UNFINISHED: Final = b'"finish_reason":null'
_ABORTED: Final = b'"finish_reason":"abort"'
_FIELDS: Final = frozenset({b"", b"data", b"event", b"id", b"retry"})  # a comment's name is empty
_HIDDEN_KEYS: Final = ("system_fingerprint", "kv_transfer_params", "ec_transfer_params")


class EventKind(Enum):
    CONTENT = auto()
    USAGE = auto()  # the usage of the whole call, without a choice
    DONE = auto()
    ABORTED = auto()  # content with finish_reason "abort": the backend was stopped
    NOTHING = auto()  # comments, blank lines


# Looking a member up in its class costs as much as finding a byte in an event.
_CONTENT, _USAGE, _DONE, _NOTHING = EventKind.CONTENT, EventKind.USAGE, EventKind.DONE, EventKind.NOTHING


class EventSplitter:
    """Cuts a stream into events, the same ones whatever the reads. held_bytes: of an event whose end has not come yet."""

    __slots__ = ("_parts", "held_bytes")

    def __init__(self) -> None:
        self._parts: list[bytes] = []  # of the event at hand
        self.held_bytes = 0

    @property
    def rest(self) -> bytes:
        """What stands behind the last whole event, without blank lines before and after it."""
        return b"".join(self._parts).strip()

    def feed(self, data: bytes) -> list[bytes]:
        """The events that `data` completes, in order. Where blank lines follow each other, some are blank or begin with one.

        Raises MalformedStream when one outgrows EVENT_MAX_BYTES.
        """
        if self._parts:
            self._keep(data)
            if b"\n" not in data:  # no event ends here: a large one is joined once, not with every read
                return []
            data = b"".join(self._parts)
            self._parts = []
            self.held_bytes = 0
        events = _BLANK_LINE_OR_CRLF.split(data) if b"\r" in data else data.split(BLANK_LINE)
        if rest := events.pop():
            self._keep(rest)
        return events

    def _keep(self, part: bytes) -> None:
        self._parts.append(part)
        self.held_bytes += len(part)
        if self.held_bytes > EVENT_MAX_BYTES:
            raise MalformedStream(f"an event of more than {EVENT_MAX_BYTES} bytes")


class EventRewriter:
    """Turns each event of one backend stream into what the client sees.

    The id is ours, the model is the alias, what names the backend is gone, usage stays where the client asked for it.
    An event that begins as the first one did is rewritten as bytes; any other is parsed and rebuilt.
    created_s: Unix seconds shown in place of the backend's; None keeps the backend's. shown_head: of such an event.
    """

    __slots__ = (
        "_alias", "_completion_id", "_created_s", "_final_head", "_head", "_head_bytes", "_shown_group", "_shows_running_usage",
        "_shows_usage", "shown_head",
    )  # fmt: skip

    def __init__(
        self, *, completion_id: str, alias: str, created_s: int | None, shows_usage: bool, shows_running_usage: bool
    ) -> None:
        self._completion_id = completion_id
        self._alias = alias
        self._created_s = created_s
        self._shows_usage = shows_usage
        self._shows_running_usage = shows_running_usage
        self._head: bytes | tuple[()] = ()  # not learnt: begins no event
        self._head_bytes = 0
        self._final_head: bytes | tuple[()] = ()  # of an event without a choice
        self.shown_head = b""
        self._shown_group = 1 if shows_running_usage else 2  # of _USUAL

    def usual_rest(self, read: bytes, start: int, end: int) -> bytes | None:
        """Of read[start:end], where that is one event with content, as `rewrite` takes it: what to send for it, between
        `shown_head` and USUAL_END. None: it may be none.

        A third of what it costs to split the read, and to look at its event for all that it may hold (2026-11).
        """
        if not read.startswith(self._head, start):
            return None
        usual = _USUAL.fullmatch(read, start + self._head_bytes, end)
        return None if usual is None else usual[self._shown_group]

    def usual(self, events: list[bytes]) -> bytes:
        """What to send for them, where each is one with content, as `rewrite` takes it; b"" where one may be none."""
        head, head_bytes, group, match = self._head, self._head_bytes, self._shown_group, _USUAL.fullmatch
        rests = []
        for event in events:
            usual = match(event, head_bytes) if event.startswith(head) else None
            if usual is None:
                return b""
            rests.append(usual[group])
        return self.shown_head + (USUAL_END + self.shown_head).join(rests) + USUAL_END

    def rewrite(self, event: bytes) -> tuple[EventKind, bytes]:
        """What `event` is, and what to send for it, with its blank line: b"" for nothing.

        Raises UpstreamReported for an error event, MalformedStream for what is no chat event.
        """
        usual = self.usual_rest(event, 0, len(event))
        if usual is not None:
            return _CONTENT, self.shown_head + usual + USUAL_END
        if event == _LAST:
            return _DONE, DONE
        if not self._shows_usage and event.startswith(self._final_head) and _FINAL.fullmatch(event, self._head_bytes - 1):
            return _USAGE, b""
        if not event.startswith(self._head) and not self._learn_head(event):
            return self._rebuild(event)
        if event.endswith(_END_OF_CHOICES):
            # As of servers that tell no running usage: one line, nothing stands behind the choices, and none was aborted. A
            # list of objects that another key follows, be it of tool calls, is left to the parse path.
            rest = event[self._head_bytes :]
            if b"\n" in event or b"\r" in event or _ABORTED in event or _KEY_AFTER_LIST in rest:
                return self._rebuild(event)
            return _CONTENT, self.shown_head + rest + BLANK_LINE
        # Behind the choices stands a flat usage and nothing else: no key is left that must be hidden.
        choices, found, usage = event.rpartition(_USAGE_AFTER_CHOICES)
        if not found or usage.find(b"}") != len(usage) - 2:
            return self._rebuild(event)
        if choices.rfind(_UNFINISHED) < 0 and _ABORTED in choices:
            return EventKind.ABORTED, b""
        if self._shows_running_usage:
            return _CONTENT, self.shown_head + event[self._head_bytes :] + BLANK_LINE
        return _CONTENT, self.shown_head + choices[self._head_bytes :] + b"}]}\n\n"

    def usage_event(self, usage: "Usage") -> bytes:
        """The last event of a stream that we end ourselves: what the backend was not asked for any more."""
        if not self._shows_usage:
            return b""
        counts = {
            "prompt_tokens": usage.prompt_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            "completion_tokens": usage.completion_tokens,
        }
        body = {
            "id": self._completion_id,
            "object": "chat.completion.chunk",
            "created": self._created_s or 0,
            "model": self._alias,
            "choices": [],
            "usage": counts,
        }
        return b"data: %b\n\n" % orjson.dumps(body)

    def _learn_head(self, event: bytes) -> bool:
        match = _HEAD.match(event)
        if match is None:
            return False
        between, created, rest = match.groups()
        if self._created_s is not None:
            created = b"%d" % self._created_s
        names = (orjson.dumps(self._completion_id), orjson.dumps(self._alias))
        self._head = match[0]
        self._final_head = match[0][:-1]
        self._head_bytes = len(match[0])
        self.shown_head = b'data: {"id":%b,%b%b,"model":%b,%b' % (names[0], between, created, names[1], rest)
        return True

    def _rebuild(self, event: bytes) -> tuple[EventKind, bytes]:
        if event.startswith((b"\n", b"\r")):
            return self.rewrite(event.lstrip(b"\r\n"))
        data = event_data(event)
        if data is None:
            return _NOTHING, b""
        if data == b"[DONE]":
            return _DONE, DONE
        body = _chat_event(data)
        for key in _HIDDEN_KEYS:
            body.pop(key, None)
        choices = body["choices"]
        kind = _CONTENT
        if any(choice.get("finish_reason") == "abort" for choice in choices):
            return EventKind.ABORTED, b""
        if not choices and body.get("usage"):
            kind = _USAGE
            if not self._shows_usage:
                return kind, b""
        elif not self._shows_running_usage:
            body.pop("usage", None)
        body |= {"id": self._completion_id, "model": self._alias}
        if self._created_s is not None:
            body["created"] = self._created_s
        return kind, b"data: %b\n\n" % orjson.dumps(body)


def event_data(event: bytes) -> bytes | None:
    """The data of an event: its data lines without their names. None for an event that has none.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation. An event named "error" raises
    UpstreamReported, a line that is no field's MalformedStream: what speaks here is no model server.
    """
    lines = []
    for line in event.splitlines():
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
        elif name == b"event" and value.strip() == b"error":
            raise UpstreamReported
        elif name not in _FIELDS:
            raise MalformedStream("a line that is no field of an event")
    return b"\n".join(lines) if lines else None


def _chat_event(data: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise MalformedStream("an event that is not JSON") from None
    if not isinstance(body, dict):
        raise MalformedStream("an event that is not a JSON object")
    error = body.get("error")
    if error is not None:
        # vLLM's engine checks a request only when its stream has begun: schemas, token ids, most that needs the tokenizer.
        blames_request = isinstance(error, dict) and error.get("code") == 400
        raise UpstreamReported(in_own_words(data) if blames_request else None)
    choices = body.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise MalformedStream("an event without choices")
    return body
