"""The table of request fields of POST /v1/chat/completions: one row a field. Pure; it also renders the docs and OpenAPI.

    forward     its type is checked; goes upstream as it is
    check       checked in range, length or shape; goes upstream, where the alias may clamp, default or cap it
    owned       the gateway's own: obeyed here, never sent upstream as the client wrote it
    privileged  goes upstream only where the alias grants it; a 400 naming the field elsewhere;
                false, {} and [] ask for nothing
    ignored     nothing here does what it asks for: accepted, dropped, listed in x-gateway-dropped-params

null is as good as absent, except in the two required fields. A field without a row is unknown: the tenant decides.
What two fields mean together stands in chat_request.py.

Sources: "openai", "vllm" and "lemondata" are the three schemas the API promises to serve; "openai-2026" and "vllm-0.32"
are later fields of theirs, which newer clients send.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from gateway.api.checks import (
    BOOLEAN,
    INT64_MAX,
    INT64_MIN,
    TEXT,
    Check,
    any_object,
    by_type,
    integer,
    label,
    list_of,
    mapping_of,
    matching,
    number,
    number_above,
    one_of,
    record,
    string,
)
from gateway.api.constraints import (
    BACKEND_GRANT,
    CHAT_TEMPLATE_KWARGS,
    GRAMMAR_MAX_CHARS,
    RESPONSE_FORMAT,
    SCHEMA_MAX_BYTES,
    STRUCTURED_OUTPUTS,
    TOOL_CHOICE,
    TOOLS,
)
from gateway.api.messages import MEDIA_GRANTS, MESSAGES

FieldClass = Literal["forward", "check", "owned", "privileged", "ignored"]
FORWARD: Final = "forward"
CHECK: Final = "check"
OWNED: Final = "owned"
PRIVILEGED: Final = "privileged"
IGNORED: Final = "ignored"


@dataclass(frozen=True, slots=True)
class Field:
    """A row. description: one English sentence or two, for the docs."""

    name: str
    kind: FieldClass
    check: Check
    source: str
    description: str
    required: bool = False


MAX_CHOICES: Final = 128
MAX_STOPS: Final = 64
MAX_TOKEN_IDS: Final = 4_096

_PENALTY: Final = number(-2, 2)
_TOKEN_LIMIT: Final = integer(1)
_TOKEN_ID: Final = integer(0)
_TOKEN_IDS: Final = list_of(_TOKEN_ID, MAX_TOKEN_IDS)
_STOP: Final = string(1_024, min_chars=1)
_ANY_OBJECT: Final = any_object(SCHEMA_MAX_BYTES)
_OBJECT: Final = record({})
_DOCUMENTS: Final = list_of(mapping_of(string(256), TEXT, 32), 1_024)
_TOKEN_DIGITS: Final = matching(re.compile(r"[0-9]{1,10}", re.ASCII), "a token id in digits")
_LOGIT_BIAS: Final = mapping_of(_TOKEN_DIGITS, number(-100, 100), 1_024)
_PATTERN_SIZE: Final = integer(0, 4_096)
_REPETITION: Final = record({"max_pattern_size": _PATTERN_SIZE, "min_pattern_size": _PATTERN_SIZE, "min_count": _PATTERN_SIZE})
_EFFORT: Final = one_of("none", "minimal", "low", "medium", "high", "xhigh", "max")
_STREAM_OPTIONS: Final = record({"include_usage": BOOLEAN, "continuous_usage_stats": BOOLEAN})
_CACHE_TYPE: Final = one_of("default", "no_cache", "no_store", "response_only", "semantic_only")
_CACHE_CONTROL: Final = record({"type": _CACHE_TYPE, "max_age": integer(0, 86_400)}, closed=True)
_PROCESSORS: Final = list_of(by_type({str: string(256), dict: _ANY_OBJECT}), 16)
_SCALARS: Final = {str: TEXT, int: number(INT64_MIN, INT64_MAX), float: number(-1e308, 1e308)}
_XARGS: Final = mapping_of(string(256), by_type({**_SCALARS, list: list_of(by_type(_SCALARS), MAX_TOKEN_IDS)}), 64)

# A row is one line, or two. In the formatter's hands it would be eight.
# fmt: off
_ROWS: Final = (
    # ---- what is asked, and of whom
    Field("model", OWNED, label(256, min_chars=1), "openai",
          "The alias to call. The answer bears the same name.", required=True),
    Field("messages", CHECK, MESSAGES, "openai",
          "The conversation so far. Media are data: URLs, unless the alias grants remote_media.", required=True),
    Field("documents", CHECK, _DOCUMENTS, "vllm",
          "Documents for a template that does retrieval: objects of strings, best with title and text."),

    # ---- sampling
    Field("temperature", CHECK, number(0, 2), "openai", "Sampling temperature; 0 always takes the likeliest token."),
    Field("top_p", CHECK, number_above(0, 1), "openai", "Nucleus sampling: the probability mass of the tokens considered."),
    Field("top_k", CHECK, integer(-1), "vllm", "How many of the likeliest tokens are considered; 0 or -1 for all."),
    Field("min_p", CHECK, number(0, 1), "vllm", "Least probability of a token considered, relative to the likeliest one."),
    Field("frequency_penalty", CHECK, _PENALTY, "openai", "Penalty on tokens by how often the text already holds them."),
    Field("presence_penalty", CHECK, _PENALTY, "openai", "Penalty on tokens that the text already holds."),
    Field("repetition_penalty", CHECK, number_above(0, 2), "vllm",
          "Above 1 discourages tokens of prompt and text, below 1 encourages them."),
    Field("length_penalty", CHECK, number(-10, 10), "vllm", "Weight of the length in beam search."),
    Field("logit_bias", CHECK, _LOGIT_BIAS, "openai", "Token id, in digits, to what is added to its logit."),
    Field("seed", CHECK, integer(INT64_MIN, INT64_MAX), "openai",
          "Same seed and parameters: same answer, as far as the backend can."),
    Field("n", CHECK, integer(1, MAX_CHOICES), "openai", "How many answers to generate; the alias sets the most."),
    Field("watermarking", FORWARD, BOOLEAN, "vllm-0.32", "Watermark the text, where the backend can."),

    # ---- where it stops
    Field("max_tokens", CHECK, _TOKEN_LIMIT, "openai", "Most tokens to generate for each choice; the alias sets the most."),
    Field("max_completion_tokens", CHECK, _TOKEN_LIMIT, "openai",
          "The newer name of max_tokens; the smaller counts when both are given."),
    Field("min_tokens", CHECK, integer(0), "vllm", "Least tokens to generate before the end is allowed."),
    Field("thinking_token_budget", CHECK, integer(-1), "vllm-0.32", "Most tokens of reasoning; -1 for no limit."),
    Field("stop", CHECK, by_type({str: _STOP, list: list_of(_STOP, MAX_STOPS)}), "openai",
          "Texts that end the answer; the alias sets how many."),
    Field("stop_token_ids", CHECK, _TOKEN_IDS, "vllm", "Tokens that end the answer."),
    Field("include_stop_str_in_output", FORWARD, BOOLEAN, "vllm", "Leave the stop text in the answer."),
    Field("ignore_eos", FORWARD, BOOLEAN, "vllm", "Go on past the model's end token."),
    Field("repetition_detection", CHECK, _REPETITION, "vllm-0.32", "End an answer that repeats itself."),

    # ---- which tokens may come
    Field("allowed_token_ids", CHECK, list_of(_TOKEN_ID, MAX_TOKEN_IDS, min_items=1), "vllm", "The only tokens allowed."),
    Field("bad_words", CHECK, list_of(string(256, min_chars=1), 256), "vllm", "Words that may not be generated."),

    # ---- the shape of the answer
    Field("response_format", CHECK, RESPONSE_FORMAT, "openai", "text, json_object, json_schema or structural_tag."),
    Field("structured_outputs", CHECK, STRUCTURED_OUTPUTS, "vllm",
          "Exactly one constraint on the text: a JSON schema, regex, choice, grammar, any JSON, or structural tag."),
    Field("logprobs", FORWARD, BOOLEAN, "openai", "Return the log probability of each token."),
    Field("top_logprobs", CHECK, integer(0, 20), "openai",
          "How many alternatives to return for each token; needs logprobs."),
    Field("logprob_token_ids", CHECK, list_of(_TOKEN_ID, 128), "vllm-0.32",
          "Tokens whose log probability to return each time; needs logprobs."),
    Field("skip_special_tokens", FORWARD, BOOLEAN, "vllm", "Leave special tokens out of the text."),
    Field("spaces_between_special_tokens", FORWARD, BOOLEAN, "vllm", "Put spaces between special tokens."),
    Field("return_tokens_as_token_ids", FORWARD, BOOLEAN, "vllm", 'Write tokens of logprobs as "token_id:N".'),
    Field("return_token_ids", FORWARD, BOOLEAN, "vllm", "Return the token ids of prompt and answer too."),
    Field("routed_experts_prompt_start", CHECK, integer(0), "vllm-0.32",
          "Skip that many prompt tokens in routed-expert data."),

    # ---- reasoning and tools
    Field("reasoning_effort", FORWARD, _EFFORT, "openai", "How hard a reasoning model thinks."),
    Field("include_reasoning", FORWARD, BOOLEAN, "vllm", "Return the reasoning beside the answer."),
    Field("tools", CHECK, TOOLS, "openai", "Functions the model may call."),
    Field("tool_choice", CHECK, TOOL_CHOICE, "openai",
          "none, auto, required or one tool of the list; left to the backend when absent."),
    Field("parallel_tool_calls", FORWARD, BOOLEAN, "openai", "Allow several tool calls in one answer."),

    # ---- how the prompt is built
    Field("echo", FORWARD, BOOLEAN, "vllm",
          "Repeat the last message before the answer when it has the same role."),
    Field("add_generation_prompt", FORWARD, BOOLEAN, "vllm", "End the prompt with the opening of an answer."),
    Field("continue_final_message", FORWARD, BOOLEAN, "vllm",
          "Continue the last message instead; not together with add_generation_prompt."),
    Field("add_special_tokens", FORWARD, BOOLEAN, "vllm", "Add special tokens beside those of the template."),
    Field("chat_template_kwargs", CHECK, CHAT_TEMPLATE_KWARGS, "vllm",
          "Variables for the model's chat template, such as enable_thinking."),
    Field("truncate_prompt_tokens", CHECK, integer(-1, INT64_MAX), "vllm",
          "Cut the prompt to that many tokens; -1 for the model's limit."),
    Field("truncation_side", FORWARD, one_of("left", "right"), "vllm-0.32", "Which end of the prompt is cut."),

    # ---- streaming
    Field("stream", OWNED, BOOLEAN, "openai", "Answer in server-sent events."),
    Field("stream_options", OWNED, _STREAM_OPTIONS, "openai",
          "Show usage in the stream: once at its end, or with each event too. Needs stream."),
    Field("stream_interval", CHECK, integer(1, 1_024), "vllm-0.32", "Tokens to gather for each event."),

    # ---- the gateway's own
    Field("cache_control", OWNED, _CACHE_CONTROL, "lemondata",
          "How the response cache may serve this call; max_age in seconds."),
    Field("metadata", OWNED, mapping_of(label(64), label(512), 16), "openai", "Tags for the dashboard."),
    Field("store", OWNED, BOOLEAN, "openai", "Accepted; answers are kept or not as the tenant has set."),
    Field("user", OWNED, label(512), "openai", "The end user, for your own reports. The backend never sees it."),
    Field("safety_identifier", OWNED, label(512), "openai-2026",
          "The newer name of user, which counts when both are given."),
    Field("request_id", OWNED, label(256), "vllm", "Accepted; the id of a call is the gateway's own."),
    Field("priority", OWNED, integer(INT64_MIN, INT64_MAX), "vllm", "Accepted; a call has its tenant's priority."),
    Field("cache_salt", OWNED, string(1_024, min_chars=1), "vllm", "Mixed into the tenant's own salt of the prefix cache."),

    # ---- what reaches into the backend, or tells what it is
    Field("chat_template", PRIVILEGED, string(GRAMMAR_MAX_CHARS), "vllm", "A Jinja template in place of the model's."),
    Field("logits_processors", PRIVILEGED, _PROCESSORS, "vllm", "Code of the backend's to run on the logits."),
    Field("mm_processor_kwargs", PRIVILEGED, _ANY_OBJECT, "vllm", "Arguments for the processor of media."),
    Field("media_io_kwargs", PRIVILEGED, mapping_of(string(64), _ANY_OBJECT, 16), "vllm-0.32",
          "Arguments for the readers of media."),
    Field("kv_transfer_params", PRIVILEGED, _ANY_OBJECT, "vllm", "Disaggregated serving: where KV blocks come from."),
    Field("ec_transfer_params", PRIVILEGED, _ANY_OBJECT, "vllm-0.32",
          "Disaggregated serving: where encoder outputs come from."),
    Field("vllm_xargs", PRIVILEGED, _XARGS, "vllm", "Arguments for the backend's own extensions."),
    Field("prompt_logprobs", PRIVILEGED, integer(0, 20), "vllm",
          "Log probabilities of the prompt: memory of the backend's by its whole length. Not in streams."),
    Field("use_beam_search", PRIVILEGED, BOOLEAN, "vllm", "Beam search, at the cost of n answers. false needs no grant."),
    Field("return_prompt_text", PRIVILEGED, BOOLEAN, "vllm-0.32",
          "Return the rendered prompt, which tells the model by its template. false needs no grant."),

    # ---- accepted, without effect
    Field("service_tier", IGNORED, string(64), "openai-2026", "A call has its tenant's tier."),
    Field("modalities", IGNORED, list_of(string(64), 16), "openai-2026", "Answers are text."),
    Field("audio", IGNORED, _OBJECT, "openai-2026", "Answers are text."),
    Field("prediction", IGNORED, _OBJECT, "openai-2026", "vLLM has no predicted outputs."),
    Field("verbosity", IGNORED, string(64), "openai-2026", "vLLM has no such setting."),
    Field("web_search_options", IGNORED, _OBJECT, "openai-2026", "Nothing here searches the web."),
    Field("moderation", IGNORED, _OBJECT, "openai-2026", "The tenant's content policy applies, whatever is asked."),
    Field("prompt_cache_key", IGNORED, string(1_024), "openai-2026",
          "The prefix cache is shared within a tenant, by its salt."),
    Field("prompt_cache_retention", IGNORED, string(64), "openai-2026",
          "vLLM keeps its prefix cache as long as there is room."),
    Field("prompt_cache_options", IGNORED, _OBJECT, "openai-2026",
          "vLLM keeps its prefix cache as long as there is room."),
    Field("functions", IGNORED, list_of(_OBJECT, 128), "openai-2026", "Superseded by tools; vLLM ignores it."),
    Field("function_call", IGNORED, by_type({str: string(64), dict: _OBJECT}), "openai-2026",
          "Superseded by tool_choice; vLLM ignores it."),
    Field("session_id", IGNORED, string(1_024), "vllm-0.32",
          "Backends are shared: a session named by a client could be another tenant's."),
    Field("return_token_offsets", IGNORED, BOOLEAN, "vllm-0.32", "Only vLLM's render endpoints know it."),
    Field("mm_payload", IGNORED, string(64), "vllm-0.32", "Only vLLM's render endpoints know it."),
    Field("return_mm_kwargs", IGNORED, BOOLEAN, "vllm-0.32", "Only vLLM's render endpoints know it."),
)
# fmt: on

FIELDS: Final[Mapping[str, Field]] = {row.name: row for row in _ROWS}
REQUIRED: Final = tuple(row.name for row in _ROWS if row.required)
# Everything an alias can grant: the privileged fields, and what is privileged inside other fields.
GRANTS: Final = frozenset(row.name for row in _ROWS if row.kind == PRIVILEGED) | MEDIA_GRANTS | {BACKEND_GRANT}


def describe_fields() -> list[dict[str, str]]:
    """The table in words, in its own order; "accepts" completes "must be"."""
    return [
        {
            "name": row.name,
            "class": row.kind,
            "type": _type_words(row.check.schema),
            "accepts": row.check.words,
            "required": "yes" if row.required else "no",
            "source": row.source,
            "description": row.description,
        }
        for row in _ROWS
    ]


def _type_words(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type_words(one) for one in schema["anyOf"]))
    return str(schema.get("type", "any"))
