"""vLLM's refusals (status 4xx) in the gateway's own words. Not a byte of a backend's text goes through.

Source of the patterns: answers recorded from vLLM 0.32.0. What matches none becomes a plain InvalidRequest, with the field
that vLLM names where it is one of ours.
"""

import re
from collections.abc import Callable
from typing import Any, Final

import orjson

from gateway.api.fields import FIELDS
from gateway.exceptions import ContextLengthExceeded, GatewayError, InvalidRequest

_MESSAGE_MAX: Final = 4096

_Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], GatewayError]]


_PARAMETER: Final = re.compile(r"\(parameter=([a-z_]{1,40})[,)]")


def _refusal(param: str | None, message: str) -> GatewayError:
    return InvalidRequest(param=param, details=[{"param": param, "message": message}])


def _field(param: str | None, message: str) -> Callable[[re.Match[str]], GatewayError]:
    return lambda match: _refusal(param, match.expand(message))


def _too_long(match: re.Match[str]) -> GatewayError:
    return ContextLengthExceeded(
        f"This model's context holds {match[1]} tokens; the messages, with room for an answer, do not fit. Shorten them.",
        param="messages",
    )


_RULES: Final[tuple[_Rule, ...]] = (
    (re.compile(r"maximum context length is ([0-9]{1,9}) tokens"), _too_long),
    (
        re.compile(r"max_tokens=[0-9]+ cannot be greater than max_model_len=([0-9]{1,9})"),
        _field("max_tokens", r"Must not be greater than \1, the size of this model's context."),
    ),
    (re.compile(r"not a multimodal model"), _field("messages", "This model takes text alone.")),
    (re.compile(r"greedy sampling"), _field("n", "Must be 1 when temperature is 0.")),
    (re.compile(r"tool.choice.* requires"), _field("tool_choice", "This model is not served with tool calls.")),
    (re.compile(r"chat template|[Cc]onversation roles"), _field("messages", "This model takes no such sequence of roles.")),
    (
        # It does not say whose: response_format, structured_outputs and tools are compiled alike.
        re.compile(r"[Gg]rammar|json_schema|structured"),
        _field(None, "The schema, regex or grammar asked for cannot be followed."),
    ),
    (
        re.compile(r"(logit_bias|stop_token_ids|allowed_token_ids|logprob_token_ids).{1,16}out-of-vocab"),
        lambda match: _refusal(match[1], "Holds token ids outside of this model's vocabulary."),
    ),
    (re.compile(r"continue_final_message"), _field("continue_final_message", "Needs add_generation_prompt to be false.")),
    (re.compile(r"thinking_token_budget"), _field("thinking_token_budget", "This model is not served with a budget.")),
    (re.compile(r"min_tokens"), _field("min_tokens", "Must not be greater than max_tokens.")),
    (re.compile(r"prompt_logprobs"), _field("prompt_logprobs", "Is not available in a stream.")),
    (re.compile(r"truncate_prompt_tokens"), _field("truncate_prompt_tokens", "Is out of this model's range.")),
)


def in_own_words(body: bytes) -> GatewayError:
    """The error for a 400, 413 or 422 of vLLM with `body`."""
    message = message_of(body)
    for pattern, error in _RULES:
        if match := pattern.search(message):
            return error(match)
    if (match := _PARAMETER.search(message)) and match[1] in FIELDS:
        return _refusal(match[1], "The model's server does not accept this value.")
    return _refusal(None, "The model's server does not accept this combination of fields.")


def message_of(body: bytes) -> str:
    """vLLM's message out of its several shapes of error, those of older releases too; "" when there is none."""
    try:
        value: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    error = value.get("error") or value.get("detail") or value if isinstance(value, dict) else ""
    text = error.get("message", "") if isinstance(error, dict) else error
    return text[:_MESSAGE_MAX] if isinstance(text, str) else ""
