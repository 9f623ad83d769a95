"""Checks of what shapes an answer: tools, tool choice, response formats and structured outputs. Pure.

Sources: OpenAI's chat reference; vLLM 0.32 (`ChatCompletionRequest`, `StructuredOutputsParams`). Sizes are ours: a schema or
grammar is compiled on the backend before the first token, at a cost the client does not pay.
"""

from collections.abc import Mapping
from typing import Any, Final

from gateway.api.checks import (
    BOOLEAN,
    FINE,
    ONLY_TRUE,
    TEXT,
    Problems,
    any_object,
    by_type,
    list_of,
    one_of,
    record,
    refined,
    scalar,
    shallow,
    string,
)

MAX_TOOLS: Final = 128  # OpenAI's own
MAX_TOOL_CALLS: Final = 512  # in one message of the history
SCHEMA_MAX_BYTES: Final = 131_072  # OpenAI takes 120,000 characters of names and values
GRAMMAR_MAX_CHARS: Final = 65_536
REGEX_MAX_CHARS: Final = 8_192
MAX_CHOICES_LISTED: Final = 1_024

SCHEMA: Final = any_object(SCHEMA_MAX_BYTES)
FUNCTION_NAME: Final = string(256, min_chars=1)  # OpenAI takes A-Z a-z 0-9 _ -; vLLM any, as tools of MCP servers bear them
ARGUMENTS: Final = shallow(512)  # vLLM decodes them, and answers 500 from some 990 levels on
CALL_ID: Final = string(4_096, min_chars=1)  # the client's own in a history: some gateways pack a model's signature into it

# ---- tools

_FUNCTION: Final = record(
    {"name": FUNCTION_NAME, "description": string(GRAMMAR_MAX_CHARS), "parameters": SCHEMA, "strict": BOOLEAN},
    required=("name",),
)
TOOLS: Final = list_of(
    record({"type": one_of("function"), "function": _FUNCTION, "defer_loading": BOOLEAN}, required=("function",)),
    MAX_TOOLS,
    min_items=1,
)

_NAMED_TOOL: Final = record(
    {"type": one_of("function"), "function": record({"name": FUNCTION_NAME}, required=("name",))}, required=("function",)
)
TOOL_CHOICE: Final = by_type({str: one_of("none", "auto", "required"), dict: _NAMED_TOOL})

CALLED_FUNCTION: Final = record({"name": FUNCTION_NAME, "arguments": ARGUMENTS}, required=("name", "arguments"))
# Only functions: on a custom tool's call vLLM looks for the function and fails.
TOOL_CALLS: Final = list_of(
    record(
        {"id": CALL_ID, "type": one_of("function"), "function": CALLED_FUNCTION},
        required=("id", "type", "function"),
    ),
    MAX_TOOL_CALLS,
)

# ---- response_format

_ANYTHING: Final = scalar(lambda _: True, "any JSON value", {})
_STRUCTURE: Final = record({"begin": TEXT, "schema": SCHEMA, "end": TEXT}, required=("begin", "end"))


def _find_missing_format(value: Mapping[str, Any]) -> Problems:
    kind = value["type"]
    if kind == "json_schema" and value.get("json_schema") is None:
        return ((".json_schema", 'is required for type "json_schema".'),)
    if kind == "structural_tag" and value.get("format") is None:
        missing = [name for name in ("structures", "triggers") if value.get(name) is None]
        if missing:
            return ((".format", 'is required for type "structural_tag", or else structures and triggers.'),)
    return FINE


RESPONSE_FORMAT: Final = refined(
    record(
        {
            "type": one_of("text", "json_object", "json_schema", "structural_tag"),
            "json_schema": record(
                {"name": string(128, min_chars=1), "description": string(8_192), "schema": SCHEMA, "strict": BOOLEAN},
                required=("name", "schema"),
            ),
            "format": _ANYTHING,
            "structures": list_of(_STRUCTURE, MAX_TOOLS),
            "triggers": list_of(string(1_024, min_chars=1), MAX_TOOLS),
        },
        required=("type",),
    ),
    _find_missing_format,
)

# ---- structured_outputs

CONSTRAINT_KINDS: Final = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")


def _find_other_than_one_constraint(value: Mapping[str, Any]) -> Problems:
    given = [kind for kind in CONSTRAINT_KINDS if value.get(kind) is not None]
    return FINE if len(given) == 1 else (("", f"must hold exactly one of {', '.join(CONSTRAINT_KINDS)}."),)


STRUCTURED_OUTPUTS: Final = refined(
    record(
        {
            "json": by_type({dict: SCHEMA, str: string(SCHEMA_MAX_BYTES, min_chars=1)}),
            "regex": string(REGEX_MAX_CHARS, min_chars=1),
            "choice": list_of(string(4_096, min_chars=1), MAX_CHOICES_LISTED, min_items=1),
            "grammar": string(GRAMMAR_MAX_CHARS, min_chars=1),
            "json_object": ONLY_TRUE,
            "structural_tag": string(SCHEMA_MAX_BYTES, min_chars=1),
            "disable_fallback": BOOLEAN,
            "disable_any_whitespace": BOOLEAN,
            "disable_additional_properties": BOOLEAN,
            "whitespace_pattern": string(256),
            "_backend": string(64),
            "_backend_was_auto": BOOLEAN,
        },
        closed=True,
    ),
    _find_other_than_one_constraint,
)


BACKEND_GRANT: Final = "structured_outputs._backend"


def backend_grants(structured_outputs: Mapping[str, Any]) -> dict[str, str]:
    """The grant that checked structured outputs need, with the path of what needs it: vLLM keeps `_backend*` for itself."""
    for name, value in structured_outputs.items():
        if name.startswith("_backend") and value is not None:
            return {BACKEND_GRANT: f"structured_outputs.{name}"}
    return {}


# ---- chat_template_kwargs

# The parameters of transformers' apply_chat_template, which the variables of a template reach as they are:
# `tokenize: true` alone held up a whole server (CVE-2025-62426).
_TEMPLATE_PARAMETERS: Final = (
    "chat_template",
    "tokenize",
    "conversation",
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "continue_final_message",
    "padding",
    "truncation",
    "max_length",
    "return_tensors",
    "return_dict",
    "return_assistant_tokens_mask",
    "tokenizer_kwargs",
    "processor_kwargs",
)


def _find_template_parameters(value: Mapping[str, Any]) -> Problems:
    return [(f".{name}", "is not a variable of a template.") for name in _TEMPLATE_PARAMETERS if name in value]


CHAT_TEMPLATE_KWARGS: Final = refined(any_object(SCHEMA_MAX_BYTES), _find_template_parameters)
