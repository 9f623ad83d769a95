"""vLLM's first look at a request body: pydantic's lax types and its dump of what failed (recorded from 0.32.0). Pure.

Lax means: `"stream": "yes"` streams, `"max_tokens": "5"` is 5. Fields without a row here are taken as they come.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from gateway.simulator.errors import Refusal, detail, refusal

INT64_MAX: Final = 2**63 - 1
_SHOWN_ERRORS: Final = 10
_TRUE: Final = frozenset({"1", "on", "t", "true", "y", "yes"})
_FALSE: Final = frozenset({"0", "off", "f", "false", "n", "no"})


class _Fault(Exception):
    """kind, msg, ctx: pydantic's error type, sentence and context."""

    def __init__(self, kind: str, msg: str, **ctx: object) -> None:
        super().__init__(kind)
        self.kind, self.msg, self.ctx = kind, msg, ctx


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and value in {0, 1}:
        return bool(value)
    word = value.lower() if isinstance(value, str) else ""
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    if isinstance(value, (str, int, float)):
        raise _Fault("bool_parsing", "Input should be a valid boolean, unable to interpret input")
    raise _Fault("bool_type", "Input should be a valid boolean")


def _integer(value: object) -> int:
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            text = "Input should be a valid integer, unable to parse string as an integer"
            raise _Fault("int_parsing", text) from None
    if isinstance(value, float):
        if not value.is_integer():
            raise _Fault("int_from_float", "Input should be a valid integer, got a number with a fractional part")
        return int(value)
    if not isinstance(value, int):
        raise _Fault("int_type", "Input should be a valid integer")
    return int(value)


def _int64(value: object) -> int:
    number = _integer(value)
    if number > INT64_MAX:
        raise _Fault("less_than_equal", f"Input should be less than or equal to {INT64_MAX}", le=INT64_MAX)
    if number < -INT64_MAX - 1:
        text = f"Input should be greater than or equal to {-INT64_MAX - 1}"
        raise _Fault("greater_than_equal", text, ge=-INT64_MAX - 1)
    return number


def _number(value: object) -> float:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            text = "Input should be a valid number, unable to parse string as a number"
            raise _Fault("float_parsing", text) from None
    if not isinstance(value, (int, float)):
        raise _Fault("float_type", "Input should be a valid number")
    return float(value)


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise _Fault("string_type", "Input should be a valid string")
    return value


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _Fault("dict_type", "Input should be a valid dictionary")
    return value


def _items(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise _Fault("list_type", "Input should be a valid list")
    return value


def _stops(value: object) -> list[str]:
    """One string, or up to four."""
    if isinstance(value, str):
        return [value]
    stops = _items(value)
    if len(stops) > 4:
        text = f"List should have at most 4 items after validation, not {len(stops)}"
        raise _Fault("too_long", text, field_type="List", max_length=4, actual_length=len(stops))
    return [_string(stop) for stop in stops]


# In the order of vLLM's own class, which is the order of its dump.
_FIELDS: Final[dict[str, Callable[[object], Any]]] = {
    "messages": _items,
    "model": _string,
    "frequency_penalty": _number,
    "logit_bias": _mapping,
    "logprobs": _boolean,
    "top_logprobs": _integer,
    "max_tokens": _integer,
    "max_completion_tokens": _integer,
    "n": _integer,
    "presence_penalty": _number,
    "response_format": _mapping,
    "seed": _int64,
    "stop": _stops,
    "stream": _boolean,
    "stream_options": _mapping,
    "temperature": _number,
    "top_p": _number,
    "tools": _items,
    "top_k": _integer,
    "min_p": _number,
    "repetition_penalty": _number,
    "stop_token_ids": _items,
    "include_stop_str_in_output": _boolean,
    "ignore_eos": _boolean,
    "min_tokens": _integer,
    "truncate_prompt_tokens": _integer,
    "prompt_logprobs": _integer,
    "add_generation_prompt": _boolean,
    "continue_final_message": _boolean,
    "include_reasoning": _boolean,
    "structured_outputs": _mapping,
    "priority": _int64,
    "request_id": _string,
    "return_token_ids": _boolean,
    "return_tokens_as_token_ids": _boolean,
    "cache_salt": _string,
}
_ORDER: Final = {name: place for place, name in enumerate(_FIELDS)}
_MESSAGE_CLASSES: Final = ("Developer", "System", "User", "Assistant", "Tool")


def read_json(content_type: str, body: bytes) -> dict[str, Any]:
    """The body as an object. Raises Refusal as FastAPI answers."""
    if content_type.partition(";")[0].strip().lower() != "application/json" and body:
        text = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        raise refusal(400, text, "Bad Request")
    if not body:
        raise _dump([("body", _Fault("missing", "Field required"), None)])
    try:
        value = orjson.loads(body)
    except ValueError:
        value = _read_slowly(body)
    if not isinstance(value, dict):
        text = "Input should be a valid dictionary or object to extract fields from"
        raise _dump([("body", _Fault("model_attributes_type", text), value)])
    return value


def _read_slowly(body: bytes) -> Any:
    """What the standard library reads beyond orjson, NaN and lone surrogates, and the places of its errors."""
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        raise _dump([(f"body.{error.pos}", _Fault("json_invalid", "JSON decode error", error=error.msg), {})]) from None
    except ValueError:
        raise detail(400, "There was an error parsing the body") from None


def checked(body: Mapping[str, Any]) -> dict[str, Any]:
    """The known fields with their types, what is null left out. Raises Refusal with all faults at once."""
    values: dict[str, Any] = {}
    faults: list[tuple[str, _Fault, object]] = []
    for name, value in body.items():
        read = _FIELDS.get(name)
        if read is None or value is None:
            continue
        try:
            values[name] = read(value)
        except _Fault as fault:
            if name == "stop":
                faults.append(("body.stop", _Fault("string_type", "Input should be a valid string"), value))
            faults.append((f"body.{name}", fault, value))
    if "messages" not in body:
        faults.append(("body.messages", _Fault("missing", "Field required"), body))
    if faults:
        faults.sort(key=lambda fault: _ORDER[fault[0].removeprefix("body.")])
        raise _dump(faults)
    for place, message in enumerate(values.get("messages", ())):
        _check_message(place, message)
    return values


def _check_message(place: int, message: object) -> None:
    """vLLM tries each class of message in turn and reports the failures of all: shortened here to the first of each."""
    if not isinstance(message, dict):
        fault = _Fault("model_attributes_type", "Input should be a valid dictionary or object to extract fields from")
        attribute, subject = "", message
    elif "role" not in message:
        fault, attribute, subject = _Fault("missing", "Field required"), ".role", message
    else:
        content = message.get("content", "")
        if isinstance(content, (str, list)) or (content is None and message["role"] not in {"user", "system", "developer"}):
            return
        fault, attribute, subject = _Fault("string_type", "Input should be a valid string"), ".content", content
    where = f"body.messages.{place}.ChatCompletion"
    raise _dump([(f"{where}{name}MessageParam{attribute}", fault, subject) for name in _MESSAGE_CLASSES])


def _dump(faults: list[tuple[str, _Fault, object]]) -> Refusal:
    lines = []
    for where, fault, value in faults[:_SHOWN_ERRORS]:
        shown = {"type": fault.kind, "loc": where, "msg": fault.msg, "input": _summary(value)}
        lines.append(f"  {shown | ({'ctx': fault.ctx} if fault.ctx else {})}")
    if len(faults) > _SHOWN_ERRORS:
        lines.append(f"  ...and {len(faults) - _SHOWN_ERRORS} more errors")
    plural = "" if len(faults) == 1 else "s"
    text = "\n".join([f"{len(faults)} validation error{plural}:", *lines])
    return refusal(400, text, "Bad Request", faults[0][0])


def _summary(value: object) -> str:
    if isinstance(value, (dict, list)):
        return f"<{type(value).__name__} of {len(value)} items>"
    return str(value)
