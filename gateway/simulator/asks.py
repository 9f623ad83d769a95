"""A chat request as the engine understands it, after vLLM's own checks in vLLM's words (recorded from 0.32.0). Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.simulator import tokens
from gateway.simulator.errors import bad_request, unknown_model

# vLLM refuses by length in characters before it counts tokens: 512 tokens refused 6,656 characters.
_CHARACTERS_A_TOKEN: Final = 13
_CHOICES_MAX: Final = 16384
_LOGPROBS_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class Served:
    """What this server serves, as its command line said."""

    models: tuple[str, ...]
    max_model_len: int
    has_tools: bool = True  # vLLM's --enable-auto-tool-choice and --tool-call-parser
    forces_usage: bool = False  # --enable-force-include-usage
    shows_prompt_details: bool = False  # --enable-prompt-tokens-details
    shows_request_metrics: bool = False  # --enable-per-request-metrics
    shows_request_ids: bool = False  # --enable-request-id-headers


@dataclass(frozen=True, slots=True)
class Ask:
    """max_tokens: what the context leaves room for, at most. prompt: the tokens of the whole conversation."""

    model: str
    last_user_text: str
    ends_with_user: bool
    prompt: Sequence[str]
    streams: bool
    includes_usage: bool
    continuous_usage: bool
    n: int
    seed: int
    max_tokens: int
    min_tokens: int
    ignores_eos: bool
    stops: tuple[str, ...]
    stop_ids: frozenset[int]
    keeps_stop: bool
    top_logprobs: int | None  # None: no logprobs
    returns_ids: bool
    tokens_as_ids: bool
    includes_reasoning: bool
    tools: Sequence[Mapping[str, Any]]
    tool_choice: str  # none, auto, required, or a function's name
    schema: object  # JSON schema of the answer; None: free text
    choices: Sequence[str]  # structured_outputs.choice
    priority: int
    salt: str
    request_id: str | None

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt)


def ask(body: Mapping[str, Any], fields: Mapping[str, Any], served: Served) -> Ask:
    """body: as sent. fields: its known ones, converted by `schema.checked`. Raises Refusal."""
    for check in _CHECKS:
        check(fields, body)
    model = fields.get("model") or served.models[0]
    if model not in served.models:
        raise unknown_model(model, served.models)
    tools, tool_choice = _tools(fields, body, has_tools=served.has_tools)
    messages = fields["messages"]
    user_texts = [tokens.content_text(m.get("content")) for m in messages if m["role"] == "user"]
    prompt = _prompt(messages, tools if tool_choice != "none" else (), fields, served)
    options = fields.get("stream_options") or {}
    is_stream = fields.get("stream", False)
    includes_usage = is_stream and (bool(options.get("include_usage")) or served.forces_usage)
    return Ask(
        model=model,
        last_user_text=user_texts[-1] if user_texts else "",
        ends_with_user=messages[-1]["role"] == "user",
        prompt=prompt,
        streams=is_stream,
        includes_usage=includes_usage,
        continuous_usage=includes_usage and (bool(options.get("continuous_usage_stats")) or served.forces_usage),
        n=fields.get("n", 1),
        seed=fields.get("seed", 0),
        max_tokens=min(_output_limit(fields, served), served.max_model_len - len(prompt)),
        min_tokens=fields.get("min_tokens", 0),
        ignores_eos=fields.get("ignore_eos", False),
        stops=tuple(fields.get("stop", ())),
        stop_ids=frozenset(i for i in fields.get("stop_token_ids", ()) if isinstance(i, int)),
        keeps_stop=fields.get("include_stop_str_in_output", False),
        top_logprobs=fields.get("top_logprobs", 0) if fields.get("logprobs") else None,
        returns_ids=fields.get("return_token_ids", False),
        tokens_as_ids=fields.get("return_tokens_as_token_ids", False),
        includes_reasoning=fields.get("include_reasoning", True),
        tools=tools,
        tool_choice=tool_choice,
        schema=_answer_schema(fields),
        choices=(fields.get("structured_outputs") or {}).get("choice") or (),
        priority=fields.get("priority", 0),
        salt=fields.get("cache_salt", ""),
        request_id=fields.get("request_id"),
    )


def _prompt(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], fields: Mapping[str, Any], served: Served
) -> Sequence[str]:
    if not messages:
        raise bad_request("Cannot apply chat template to an empty conversation. Provide at least one message.")
    for message in messages:
        content = message.get("content")
        if isinstance(content, list) and any(isinstance(p, dict) and p.get("type", "text") != "text" for p in content):
            raise bad_request(f"{served.models[0]} is not a multimodal model")
    text = tokens.chat_prompt(messages, tools)
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError:
        raise bad_request("TextEncodeInput must be Union[TextInputSequence, Tuple[InputSequence, InputSequence]]") from None
    limit = served.max_model_len
    cut = fields.get("truncate_prompt_tokens")
    begin = f"This model's maximum context length is {limit} tokens. However, your prompt contains"
    end = "Please reduce the length of the input prompt."
    if cut is None and len(text) > limit * _CHARACTERS_A_TOKEN:
        bound = limit * _CHARACTERS_A_TOKEN
        why = f"{len(text)} characters (more than {bound} characters, which is the upper bound for {limit} input tokens)."
        raise bad_request(f"{begin} {why} {end}", "input_text", len(text))
    pieces = tokens.split(text)
    if cut is not None and cut > 0:
        pieces = pieces[-cut:]
    if len(pieces) >= limit:
        why = f"at least {limit + 1} input tokens, which exceeds this limit even without any output tokens."
        raise bad_request(f"{begin} {why} {end}", "input_tokens", limit + 1)
    return pieces


def _output_limit(fields: Mapping[str, Any], served: Served) -> int:
    name = "max_completion_tokens" if "max_completion_tokens" in fields else "max_tokens"
    value = fields.get(name)
    if value is None:
        return served.max_model_len
    if value < 1:
        raise bad_request(f"max_tokens must be at least 1, got {value}.", "max_tokens", value)
    if value > served.max_model_len:
        text = f"max_tokens={value} cannot be greater than max_model_len={served.max_model_len}."
        raise bad_request(f"{text} Please request fewer output tokens.", "max_tokens", value)
    if fields.get("min_tokens", 0) > value:
        text = f"min_tokens must be less than or equal to max_tokens={value}, got {fields['min_tokens']}."
        raise bad_request(text)
    return int(value)


def _tools(fields: Mapping[str, Any], body: Mapping[str, Any], *, has_tools: bool) -> tuple[Sequence[Mapping[str, Any]], str]:
    tools = fields.get("tools") or ()
    chosen = body.get("tool_choice")
    if chosen is None or not tools:
        chosen = "auto" if tools and chosen is None else (chosen or "none")
    if chosen != "none" and not tools:
        raise bad_request("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if isinstance(chosen, dict):
        name = str((chosen.get("function") or {}).get("name"))
        if name not in {t["function"]["name"] for t in tools}:
            text = "The tool specified in `tool_choice` does not match any of the specified `tools`"
            raise bad_request(text, "tool_choice")
        if not has_tools:
            raise bad_request(f'tool_choice=function "{name}" requires --tool-call-parser to be set')
        return tools, name
    if chosen == "auto" and not has_tools:
        raise bad_request('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
    if chosen == "required" and not has_tools:
        raise bad_request('tool_choice="required" requires --tool-call-parser to be set')
    return tools, str(chosen)


def _answer_schema(fields: Mapping[str, Any]) -> object:
    """The schema a guided answer must meet: an empty one for any JSON object, None for free text."""
    wanted = fields.get("response_format") or {}
    if wanted.get("type") == "json_object":
        return {"type": "object"}
    if wanted.get("type") == "json_schema":
        return (wanted["json_schema"] or {}).get("schema", {})
    return (fields.get("structured_outputs") or {}).get("json")


Check = Callable[[Mapping[str, Any], Mapping[str, Any]], None]


def _check_combinations(fields: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    is_stream = fields.get("stream", False)
    if fields.get("stream_options") is not None and not is_stream:
        raise bad_request("Stream options can only be defined when `stream=True`.", "stream_options")
    if fields.get("prompt_logprobs") is not None and is_stream:
        raise bad_request("`prompt_logprobs` are not available when `stream=True`.", "prompt_logprobs")
    if fields.get("top_logprobs") and not fields.get("logprobs"):
        raise bad_request("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")
    if body.get("cache_salt") == "":
        raise bad_request("Parameter 'cache_salt' must be a non-empty string if provided.", "cache_salt")
    if fields.get("continue_final_message") and fields.get("add_generation_prompt", True):
        raise bad_request("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
    wanted = fields.get("response_format") or {}
    if wanted.get("type") == "json_schema" and wanted.get("json_schema") is None:
        text = "When response_format type is 'json_schema', the 'json_schema' field must be provided."
        raise bad_request(text, "response_format")


def _check_sampling(fields: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    n, temperature = fields.get("n", 1), fields.get("temperature", 1.0)
    if n < 1:
        raise bad_request(f"n must be at least 1, got {n}.")
    if n > _CHOICES_MAX:
        text = "To increase this limit, set the VLLM_MAX_N_SEQUENCES environment variable."
        raise bad_request(f"n must be at most {_CHOICES_MAX}, got {n}. {text}")
    if not math.isfinite(temperature):
        raise bad_request(f"temperature must be a finite number, got {temperature}.", "temperature", temperature)
    if temperature < 0:
        raise bad_request(f"temperature must be non-negative, got {temperature}.", "temperature", temperature)
    if temperature > 2:
        raise bad_request(f"temperature must be in [0, 2], got {temperature}.", "temperature", temperature)
    if n > 1 and temperature == 0 and not body.get("use_beam_search"):
        raise bad_request(f"n must be 1 when using greedy sampling, got {n}.")
    top_p, top_k = fields.get("top_p", 1.0), fields.get("top_k", 0)
    if not 0 < top_p <= 1:
        raise bad_request(f"top_p must be in (0, 1], got {top_p}.", "top_p", top_p)
    if top_k < -1:
        raise bad_request(f"top_k must be 0 (disable), or at least 1, got {top_k}.")
    for name in ("presence_penalty", "frequency_penalty"):
        if not -2 <= fields.get(name, 0) <= 2:
            raise bad_request(f"{name} must be in [-2, 2], got {fields[name]}.")


def _check_words(fields: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    if "" in fields.get("stop", ()):
        raise bad_request("stop cannot contain an empty string.")
    top = fields.get("top_logprobs", 0)
    if top > _LOGPROBS_MAX:
        text = f"Requested sample logprobs of {top}, which is greater than max allowed: {_LOGPROBS_MAX}"
        raise bad_request(text, "logprobs", top)
    words = [key for key in fields.get("logit_bias", ()) if not key.lstrip("-").isdigit()]
    if words:
        text = "logit_bias contains key(s) that cannot be converted to integer token IDs:"
        raise bad_request(f"{text} {words}", "logit_bias", words)


_CHECKS: Final[tuple[Check, ...]] = (_check_combinations, _check_sampling, _check_words)
