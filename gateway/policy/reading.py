"""What a model reads of a chat request, text by text. Pure.

    texts(fields)               every text that a model reads, in order, with the surface it belongs to
    with_texts(fields, texts)   the same request with these texts in their place; what does not change is shared
    roles, tools, images        what else rules ask for

A text may be masked; a name may not. Names are those of functions and tools, keys of JSON objects, and roles of the model's
own: masked, they would call something else.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

import orjson

from gateway.policy.rules import ROLES, Surface

# prose: what people and models write. label: other strings, like ids and enumerated values. name: see above.
TextKind = Literal["prose", "label", "name"]

# Fields of api/fields.py that go upstream, and the surface of what they say. Any field that is in neither of these two, as
# tenants may let pass, is read like a tool definition.
SCANNED: Final[Mapping[str, Surface | None]] = {
    "messages": None,  # by role
    "documents": "input.documents",
    "tools": "input.tool_definitions",
    "tool_choice": "input.tool_definitions",
    "response_format": "input.tool_definitions",
    "structured_outputs": "input.tool_definitions",
    "chat_template_kwargs": "input.tool_definitions",
    "vllm_xargs": "input.tool_definitions",
    "chat_template": "input.system",
}
FREE_OF_TEXT: Final = frozenset({
    "add_generation_prompt", "add_special_tokens", "allowed_token_ids", "continue_final_message", "echo",
    "frequency_penalty", "ignore_eos", "include_reasoning", "include_stop_str_in_output", "length_penalty", "logit_bias",
    "logprob_token_ids", "logprobs", "max_completion_tokens", "max_tokens", "min_p", "min_tokens", "n",
    "parallel_tool_calls", "presence_penalty", "prompt_logprobs", "reasoning_effort", "repetition_detection",
    "repetition_penalty", "return_prompt_text", "return_token_ids", "return_tokens_as_token_ids",
    "routed_experts_prompt_start", "seed", "skip_special_tokens", "spaces_between_special_tokens", "stop_token_ids",
    "stream_interval", "temperature", "thinking_token_budget", "top_k", "top_logprobs", "top_p", "truncate_prompt_tokens",
    "truncation_side", "use_beam_search", "watermarking",
    # Texts for the sampler, not for the model: they end an answer, or keep words out of it.
    "stop", "bad_words",
    # Words for the backend's own code.
    "ec_transfer_params", "kv_transfer_params", "logits_processors", "media_io_kwargs", "mm_processor_kwargs",
})  # fmt: skip

_OF_ROLE: Final[Mapping[str, Surface]] = {
    "system": "input.system",
    "developer": "input.system",
    "user": "input.user",
    "assistant": "input.assistant",
    "tool": "input.tool",
    "function": "input.tool",
}
# The vocabulary of messages, tools and JSON Schema: these keys are nobody's words.
_STRUCTURE: Final = frozenset({
    "$defs", "$id", "$ref", "$schema", "additionalProperties", "allOf", "anyOf", "arguments", "audio", "begin", "choice",
    "closed", "const", "content", "default", "defer_loading", "definitions", "description", "end", "enum", "examples",
    "exclusiveMaximum", "exclusiveMinimum", "filename", "format", "function", "grammar", "id", "items", "json",
    "json_object", "json_schema", "maxItems", "maxLength", "maximum", "minItems", "minLength", "minimum", "name", "not",
    "oneOf", "parameters", "pattern", "prefixItems", "properties", "reasoning", "reasoning_content", "refusal", "regex",
    "required", "schema", "strict", "structural_tag", "structures", "task", "text", "thinking", "title", "tool_call_id",
    "triggers", "type", "whitespace_pattern",
})  # fmt: skip
_SPOKEN: Final = frozenset({"description", "title"})
_TYPES: Final = frozenset({
    "array", "boolean", "function", "integer", "json_object", "json_schema", "null", "number", "object", "string",
    "structural_tag", "text",
})  # fmt: skip
# Of content parts: media, which no rule reads, and where their bytes are.
_IMAGES: Final = frozenset({"image_url", "image_embeds", "image_pil"})
_MEDIA: Final = _IMAGES | {
    "audio_embeds", "audio_url", "data", "file_data", "input_audio", "prompt_embeds", "type", "uuid", "video_embeds",
    "video_url",
}  # fmt: skip

JSON_MAX_CHARACTERS: Final = 32_768  # of a tool call's arguments that are decoded: more would hold up other calls
JSON_MAX_DEPTH: Final = 64
SLICE_CHARACTERS: Final = 65_536
_VALUES_A_TURN: Final = 1_024
_OTHER_BACKSLASH: Final = re.compile(r"\\(?!u[0-9a-fA-F]{4})")

Pause = Callable[[], None]
_Visit = Callable[[Surface, str, TextKind], str]


class Text(NamedTuple):
    r"""One text of a request, its \uXXXX read. A tool call's arguments are several: each string in them."""

    surface: Surface
    text: str
    kind: TextKind = "prose"

    def __repr__(self) -> str:
        return f"Text({self.surface}, {self.kind})"


def texts(fields: Mapping[str, Any], *, pause: Pause = lambda: None) -> list[Text]:
    """Every text that a model reads; none of them empty."""
    found: list[Text] = []

    def note(surface: Surface, text: str, kind: TextKind) -> str:
        found.append(Text(surface, text, kind))
        return text

    _Walk(note, pause).fields(fields)
    return found


def with_texts(fields: dict[str, Any], replaced: Iterable[str], *, pause: Pause = lambda: None) -> dict[str, Any]:
    """The request with `replaced` where texts() found its texts, one for each. Names stay."""
    rest = iter(replaced)

    def take(_surface: Surface, text: str, kind: TextKind) -> str:
        new = next(rest)
        return text if kind == "name" else new

    return _Walk(take, pause).fields(fields)


# ---- the way through a request


class _Walk:
    """Goes through a request and shows `visit` each text; returns what it makes of them, a copy where anything changes."""

    def __init__(self, visit: _Visit, pause: Pause) -> None:
        self._seen = 0
        self._visit = visit
        self._pause = pause

    def fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        whole = fields if isinstance(fields, dict) else dict(fields)
        return self._members(whole, self._field)

    def _field(self, name: str, value: Any) -> Any:
        if name in FREE_OF_TEXT:
            return value
        if name == "messages":
            return self._items(value, self._message)
        if name == "tools":
            return self._items(value, self._tool)
        if name == "tool_choice":
            return self._tool(value) if isinstance(value, dict) else value
        if name not in SCANNED:
            self._text("input.tool_definitions", name, "name")
        surface = SCANNED.get(name) or "input.tool_definitions"
        return self._any(surface, value, "label" if surface == "input.tool_definitions" else "prose")

    def _message(self, message: Any) -> Any:
        if not isinstance(message, dict):
            return message
        role = str(message.get("role"))
        surface = _OF_ROLE.get(role, "input.user")
        if role not in ROLES:
            self._text(surface, role, "name")
        return self._members(message, lambda name, value: self._said(surface, name, value))

    def _said(self, surface: Surface, name: str, value: Any) -> Any:
        """A member of a message."""
        if name == "role":
            return value
        if name == "content" and isinstance(value, list):
            return self._items(value, lambda part: self._part(surface, part))
        if name == "tool_calls":
            return self._items(value, lambda call: self._call(surface, call))
        if name == "function_call":
            return self._function(surface, value)
        if name == "tools":
            return self._items(value, self._tool)
        if name == "name":  # a tool's answer bears the name of its function
            return self._any(surface, value, "name" if surface == "input.tool" else "label")
        return self._member(surface, name, value, "label" if name == "tool_call_id" else "prose")

    def _part(self, surface: Surface, part: Any) -> Any:
        if not isinstance(part, dict):
            return self._any(surface, part, "prose")

        def member(name: str, value: Any) -> Any:
            if name in _MEDIA:
                return value
            if name == "file" and isinstance(value, dict):
                return self._part(surface, value)
            return self._member(surface, name, value, "name" if name == "name" else "prose")

        return self._members(part, member)

    def _call(self, surface: Surface, call: Any) -> Any:
        if not isinstance(call, dict):
            return self._any(surface, call, "label")

        def member(name: str, value: Any) -> Any:
            return self._function(surface, value) if name == "function" else self._member(surface, name, value, "label")

        return self._members(call, member)

    def _function(self, surface: Surface, function: Any) -> Any:
        """What was called, and with what."""
        if not isinstance(function, dict):
            return self._any(surface, function, "prose")

        def member(name: str, value: Any) -> Any:
            if name == "arguments" and isinstance(value, str):
                return self._arguments(surface, value)
            return self._member(surface, name, value, "name" if name == "name" else "prose")

        return self._members(function, member)

    def _arguments(self, surface: Surface, written: str) -> str:
        """JSON is read as those read it who get it; what is none, or says a key twice, is a text like any other."""
        decoded = _decoded(written)
        if decoded is _NOT_JSON:
            return self._text(surface, written, "prose")
        new = self._any(surface, decoded, "prose")
        return written if new is decoded else json.dumps(new, ensure_ascii=False)

    def _tool(self, tool: Any) -> Any:
        def member(name: str, value: Any) -> Any:
            if name == "function" and isinstance(value, dict):
                return self._members(value, defined)
            return self._member("input.tool_definitions", name, value, "label")

        def defined(name: str, value: Any) -> Any:
            return self._member("input.tool_definitions", name, value, "name" if name == "name" else "label")

        return self._members(tool, member) if isinstance(tool, dict) else self._any("input.tool_definitions", tool, "label")

    def _any(self, surface: Surface, value: Any, kind: TextKind) -> Any:
        """JSON of any shape. A number that is masked becomes a string."""
        self._seen += 1
        if self._seen % _VALUES_A_TURN == 0:
            self._pause()
        if isinstance(value, str):
            return self._text(surface, value, kind)
        if isinstance(value, dict):
            return self._members(value, lambda name, member: self._member(surface, name, member, kind))
        if isinstance(value, list):
            return self._items(value, lambda member: self._any(surface, member, kind))
        if isinstance(value, bool) or value is None:
            return value
        number = str(value)
        new = self._text(surface, number, "label")
        return value if new == number else new

    def _member(self, surface: Surface, name: str, value: Any, kind: TextKind) -> Any:
        if name == "type" and isinstance(value, str) and value in _TYPES:
            return value
        if name not in _STRUCTURE:
            self._text(surface, name, "name")
        return self._any(surface, value, "prose" if kind == "label" and name in _SPOKEN else kind)

    def _members(self, value: dict[str, Any], new_of: Callable[[str, Any], Any]) -> dict[str, Any]:
        changed = {name: new for name, member in value.items() if (new := new_of(name, member)) is not member}
        return value | changed if changed else value

    def _items(self, value: Any, new_of: Callable[[Any], Any]) -> Any:
        if not isinstance(value, list):
            return self._any("input.tool_definitions", value, "label")
        items = [new_of(member) for member in value]
        return items if any(new is not member for new, member in zip(items, value, strict=True)) else value

    def _text(self, surface: Surface, text: str, kind: TextKind) -> str:
        r"""Its \uXXXX are read: models read them too, and many tools answer in JSON that has nothing but these."""
        if not text:
            return text
        read = _unescaped(text, self._pause)
        new = self._visit(surface, read, kind)
        return text if new == read else new


_NOT_JSON: Final = object()


def _decoded(written: str) -> Any:
    """JSON of tool-call arguments; _NOT_JSON where those who read it may disagree about it, or where it is too large."""
    if len(written) > JSON_MAX_CHARACTERS:
        return _NOT_JSON
    try:
        orjson.loads(written)  # takes no lone surrogates, which no scanner could read
        value = json.loads(written, object_pairs_hook=_object)
        return value if _is_flat_enough(value) else _NOT_JSON
    except (ValueError, RecursionError):
        return _NOT_JSON


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(members)
    if len(made) < len(members):
        raise ValueError("a key twice")
    return made


def _is_flat_enough(value: Any) -> bool:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > JSON_MAX_DEPTH:
            return False
        level = [
            member
            for container in level
            if isinstance(container, (dict, list))
            for member in (container.values() if isinstance(container, dict) else container)
        ]
    return True


def _unescaped(text: str, pause: Pause) -> str:
    r"""With its \uXXXX read, slice by slice."""
    if "\\u" not in text:
        return text
    read: list[str] = []
    start = 0
    while start < len(text):
        end = start + SLICE_CHARACTERS
        if end < len(text) and (cut := text.rfind("\\", end - 5, end)) >= 0:
            end = cut  # no escape is cut in two
        plain = _OTHER_BACKSLASH.sub(r"\\\\", text[start:end]).replace('"', '\\"')
        read.append(json.loads(f'"{plain}"', strict=False))  # a third of what a function for each escape takes (2026-11)
        start = end
        pause()
    return "".join(read).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# ---- what else rules ask of a request


def roles(fields: Mapping[str, Any]) -> list[tuple[Surface, str]]:
    """The role of each message, with the surface of what it says."""
    said = (str(message.get("role")) for message in fields.get("messages") or ())
    return [(_OF_ROLE.get(role, "input.user"), role) for role in said]


def tools(fields: Mapping[str, Any]) -> list[tuple[Surface, str]]:
    """The name of every tool that is offered, was called or has answered."""
    offered = [*(fields.get("tools") or ()), fields.get("tool_choice")]
    named: list[tuple[Surface, Any]] = []
    for message in fields.get("messages") or ():
        surface = _OF_ROLE.get(str(message.get("role")), "input.user")
        offered += message.get("tools") or ()
        calls = [call.get("function") for call in message.get("tool_calls") or ()]
        named += [(surface, called.get("name")) for called in (*calls, message.get("function_call")) if called]
        if surface == "input.tool":
            named.append((surface, message.get("name")))
    functions = (tool.get("function") for tool in offered if isinstance(tool, dict))
    named += [("input.tool_definitions", function.get("name")) for function in functions if isinstance(function, dict)]
    return [(surface, name) for surface, name in named if isinstance(name, str)]


def images(fields: Mapping[str, Any]) -> Counter[Surface]:
    """How many images there are on each surface."""
    counted: Counter[Surface] = Counter()
    for message in fields.get("messages") or ():
        content = message.get("content")
        if isinstance(content, list):
            surface = _OF_ROLE.get(str(message.get("role")), "input.user")
            counted[surface] += sum(isinstance(part, dict) and not _IMAGES.isdisjoint(part) for part in content)
    return counted
