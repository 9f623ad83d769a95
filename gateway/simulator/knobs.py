"""The knobs: how the stand-in behaves, and how it fails. Pure.

Set by command line options, at run time by `POST /sim/knobs`, and for one request by the header `x-sim-knobs: name=value ...`
or by words in the last user message, `[[sim name=value ...]]`, which pass through a gateway that drops unknown headers.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final

NEVER: Final = -1
_IN_MESSAGE = re.compile(r"\[\[sim([^\]]*)\]\]")


class KnobError(ValueError):
    """No such knob, or not its kind of value; the text is for the person who turned it."""


def _knob(default: Any, meaning: str, *, is_global: bool = False) -> Any:
    return field(default=default, metadata={"meaning": meaning, "is_global": is_global})


@dataclass(frozen=True, slots=True)
class Knobs:
    """Counts of events include the first one, which carries the role. -1: never. 0 where a rate stands: no limit."""

    first_token_ms: float = _knob(0.0, "time before the first token; the head of a stream is sent at once")
    tokens_per_s: float = _knob(0.0, "pace of one choice; 0: as fast as possible")
    speed: float = _knob(1.0, "so many times as fast as first_token_ms and tokens_per_s say")
    tokens: int = _knob(0, "completion tokens exactly, unless the request's own limit is lower; 0: a natural length")
    says: str = _knob("", "the text of the answer; without it some sentences about itself")
    reasoning_tokens: int = _knob(0, "so many of the tokens are reasoning")
    max_num_seqs: int = _knob(1024, "choices that run at once; others wait", is_global=True)
    max_queued: int = _knob(0, "running and waiting together above which 503 is answered; 0: no limit", is_global=True)
    health_status: int = _knob(200, "what GET /health answers", is_global=True)
    health_delay_ms: float = _knob(0.0, "time before GET /health answers", is_global=True)
    metrics_frozen: bool = _knob(False, "GET /metrics says what it said when this was turned on", is_global=True)
    models_name: str = _knob("", "the one model that is served instead of those it was started with", is_global=True)
    max_model_len: int = _knob(0, "the context, tokens; 0: 8192", is_global=True)
    engine_dead: bool = _knob(False, "new requests get 500 `cannot schedule new futures`, /health stays 200", is_global=True)
    engine_hung: bool = _knob(False, "nothing is generated and the gauges stand still, /health stays 200", is_global=True)
    fail_rate: float = _knob(0.0, "share of requests that fail with `status`, 0..1")
    status: int = _knob(500, "the status of such a failure; set without fail_rate, every request fails")
    retry_after_s: int = _knob(1, "Retry-After of a 429")
    html: bool = _knob(False, "the body of a failure is an HTML page")
    redirect: str = _knob("", "answer 307 with this Location")
    error_body_200: bool = _knob(False, "status 200, and an error object as the body")
    hang: bool = _knob(False, "take the request and never answer")
    hang_after: int = _knob(NEVER, "stand still after so many events")
    cut_after: int = _knob(NEVER, "FIN after so many events (bytes of a plain body), without the last chunk")
    reset_after: int = _knob(NEVER, "as cut_after, with RST")
    half_event_after: int = _knob(NEVER, "after so many events half of the next one, then half_event_end")
    half_event_end: str = _knob("fin", "what follows half an event: fin, reset (in the middle of its chunk) or silence")
    error_event_after: int = _knob(NEVER, "after so many events an error event and [DONE]")
    abort_after: int = _knob(NEVER, "after so many events finish_reason abort and [DONE]")
    no_done: bool = _knob(False, "the stream ends properly, but without [DONE]")
    drip_bytes_per_s: float = _knob(0.0, "the whole answer byte by byte; 0: off")
    garbage: bool = _knob(False, "bytes that are neither events nor JSON, under the usual head")
    content_type: str = _knob("", "the content-type of the answer instead of the right one")
    gzip: bool = _knob(False, "answers compressed, though nobody asked")
    framing: str = _knob("vllm", "vllm; chunked: plain answers too; close: the end of the connection ends the body")
    usage_lies: str = _knob("", "null, negative or missing: the usage that is reported")
    big_event_bytes: int = _knob(0, "the first token's text is this long")
    clock_skew_s: float = _knob(0.0, "how far its clock is ahead, and `created` with it")
    canary: str = _knob("", "this marker in every header, id, name and error text that should not pass a gateway")

    def turned(self, changes: Mapping[str, object], *, for_one_request: bool = False) -> "Knobs":
        """A copy with `changes`, whose values may be texts. Raises KnobError."""
        known = {f.name: f for f in fields(self)}
        values: dict[str, Any] = {}
        for name, value in changes.items():
            knob = known.get(name)
            if knob is None or (for_one_request and knob.metadata["is_global"]):
                raise KnobError(f"there is no knob {name!r} here")
            values[name] = _value(name, value, type(knob.default))
        if "status" in values and "fail_rate" not in values:
            values["fail_rate"] = 1.0
        return replace(self, **values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _value(name: str, value: object, kind: type) -> object:
    if kind is str:
        return str(value)
    if kind is bool:
        if str(value).lower() in {"1", "true", "yes", "on"}:
            return True
        if str(value).lower() in {"0", "false", "no", "off"}:
            return False
        raise KnobError(f"{name} is a switch: 1 or 0, not {value!r}")
    try:
        return kind(str(value))
    except ValueError as error:
        raise KnobError(f"{name} is a number, not {value!r}") from error


def spoken(text: str) -> dict[str, str]:
    """`name=value name` as words; a bare name is a switch turned on."""
    pairs = (word.partition("=") for word in text.replace(";", " ").split())
    return {name.replace("-", "_"): value if equals else "1" for name, equals, value in pairs}


def in_message(text: str) -> dict[str, str]:
    """The knobs that a user message turns, {} for none."""
    if "[[sim" not in text:
        return {}
    return {name: value for words in _IN_MESSAGE.findall(text) for name, value in spoken(words).items()}
