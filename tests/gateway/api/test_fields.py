"""Every row of the table: valid and invalid examples, and a matrix of values of the wrong kind for each field."""

from typing import Any

import pytest

from gateway.api.chat_request import for_alias, validate
from gateway.api.fields import FIELDS, GRANTS, REQUIRED, describe_fields
from gateway.config.documents import Alias, Tenant
from gateway.exceptions import InvalidRequest


def names(text: str) -> list[str]:
    return text.split()


# The fields of the schema that vLLM's clients are written against, as its own documentation lists them.
VLLM_SCHEMA = names("""
    messages model frequency_penalty logit_bias logprobs top_logprobs max_tokens max_completion_tokens n presence_penalty
    response_format seed stop stream stream_options temperature top_p tools tool_choice reasoning_effort include_reasoning
    parallel_tool_calls user use_beam_search top_k min_p repetition_penalty length_penalty stop_token_ids
    include_stop_str_in_output ignore_eos min_tokens skip_special_tokens spaces_between_special_tokens
    truncate_prompt_tokens prompt_logprobs allowed_token_ids bad_words echo add_generation_prompt continue_final_message
    add_special_tokens documents chat_template chat_template_kwargs mm_processor_kwargs structured_outputs priority
    request_id logits_processors return_tokens_as_token_ids return_token_ids cache_salt kv_transfer_params vllm_xargs
""")
# What vLLM 0.32's own /openapi.json has beyond it.
VLLM_032_SCHEMA = names("""
    thinking_token_budget watermarking truncation_side logprob_token_ids media_io_kwargs session_id
    routed_experts_prompt_start return_token_offsets return_prompt_text mm_payload return_mm_kwargs ec_transfer_params
    repetition_detection stream_interval
""")
OPENAI_SCHEMA = names("""
    messages model store reasoning_effort metadata frequency_penalty stream response_format audio function_call functions
    logit_bias logprobs max_completion_tokens max_tokens modalities moderation n parallel_tool_calls prediction
    presence_penalty prompt_cache_key prompt_cache_options prompt_cache_retention safety_identifier seed service_tier stop
    stream_options temperature tool_choice tools top_logprobs top_p user verbosity web_search_options
""")
LEMONDATA_SCHEMA = names("""
    model messages temperature max_tokens stream stream_options top_p frequency_penalty presence_penalty stop tools
    tool_choice parallel_tool_calls max_completion_tokens reasoning_effort seed n logprobs top_logprobs top_k
    response_format logit_bias user cache_control
""")

TOOL = {"type": "function", "function": {"name": "get_weather", "description": "d", "parameters": {"type": "object"}}}
NAMED = {"type": "function", "function": {"name": "get_weather"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
BASE: dict[str, Any] = {"model": "general", "messages": [{"role": "user", "content": "hi"}]}
# What a field needs beside it.
COMPANIONS: dict[str, dict[str, Any]] = {
    "top_logprobs": {"logprobs": True},
    "logprob_token_ids": {"logprobs": True},
    "stream_options": {"stream": True},
    "tool_choice": {"tools": [TOOL]},
}

BOOLEANS: tuple[list[Any], list[Any]] = ([True, False], [0, 1, "true", "yes", [], {}])
PENALTY: tuple[list[Any], list[Any]] = ([-2, -0.5, 0, 2.0], [-2.01, 3, "1", True])
TOKEN_IDS: tuple[list[Any], list[Any]] = ([[], [0, 31_999]], [5, [-1], [1.0], ["5"], [True], list(range(4_097))])
JSON_OBJECT: tuple[list[Any], list[Any]] = ([{}, {"a": [1, {"b": None}]}], ["x", [], 1, True, {"a": "x" * 131_072}])
OBJECT: tuple[list[Any], list[Any]] = ([{}, {"a": 1}], ["x", [], 1, True])

# name -> (valid, invalid)
EXAMPLES: dict[str, tuple[list[Any], list[Any]]] = {
    "model": (["general", "openai/gpt-oss-20b", "日本語"], ["", 5, ["general"], "x" * 257, "a\0b"]),
    "messages": ([[{"role": "user", "content": "x"}]], [[], "hi", {}, [1], [{"role": "user"}], [{"content": "x"}]]),
    "documents": ([[], [{}], [{"title": "t", "text": "x"}]], [{}, ["x"], [{"text": 5}], [{}] * 1_025]),
    "temperature": ([0, 0.7, 2, 2.0], [-0.1, 2.1, "0.5", True, [0.5], 1e308]),
    "top_p": ([0.1, 1, 1.0], [0, 1.1, "1", True]),
    "top_k": ([-1, 0, 1, 50], [-2, 1.0, "5", 2**31, True]),
    "min_p": ([0, 0.5, 1], [-0.1, 1.1, "0"]),
    "frequency_penalty": PENALTY,
    "presence_penalty": PENALTY,
    "repetition_penalty": ([0.1, 1.1, 2], [0, -1, 2.1, "1.1"]),
    "length_penalty": ([1, 1.0, -1], [11, "1"]),
    "logit_bias": (
        [{}, {"50256": -100, "1": 0.5}],
        [[], {"x": 1}, {"-1": 1}, {"²": 1}, {"1": 101}, {"1": "5"}, {"1": True}, {str(i): 1 for i in range(1_025)}],
    ),
    "seed": ([0, -(2**63), 2**63 - 1, 42], [2**63, 1.0, "1", True, -9.3e18]),
    "n": ([1, 8], [0, -1, 9, 129, 1.0, "2", True]),
    "watermarking": BOOLEANS,
    "max_tokens": ([1, 123, 100_000], [0, -1, 1.5, "5", True, 2**31, 2**63]),
    "max_completion_tokens": ([1, 123], [0, -1, 1.5, "5", True, 2**63]),
    "min_tokens": ([0, 5], [-1, 1.0, "0"]),
    "thinking_token_budget": ([-1, 0, 1_000], [-2, 1.5, True]),
    "stop": (["x", [], ["a", "b", "c", "d"]], ["", [""], 5, [5], ["x"] * 5, ["x"] * 65, "x" * 1_025, {}]),
    "stop_token_ids": TOKEN_IDS,
    "include_stop_str_in_output": BOOLEANS,
    "ignore_eos": BOOLEANS,
    "repetition_detection": ([{}, {"max_pattern_size": 5, "min_count": 3}], [5, [], {"min_count": -1}, {"min_count": "3"}]),
    "allowed_token_ids": ([[5]], [[], *TOKEN_IDS[1]]),
    "bad_words": ([[], ["bad"]], ["bad", [""], [5], ["x"] * 257, ["x" * 257]]),
    "response_format": (
        [
            {"type": "text"},
            {"type": "text", "json_schema": {"name": "x", "description": "y", "schema": {}, "strict": True}},
            {"type": "json_object"},
            {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": None}},
            {"type": "structural_tag", "format": {"type": "json_schema"}},
            {"type": "structural_tag", "structures": [{"begin": "<a>", "schema": SCHEMA, "end": "</a>"}], "triggers": ["<a"]},
        ],
        [
            "json_object",
            {},
            {"type": "xml"},
            {"type": "json_schema"},
            {"type": "json_schema", "json_schema": {}},
            {"type": "json_schema", "json_schema": {"name": "x", "schema": "{}"}},
            {"type": "json_schema", "json_schema": {"name": "x", "schema": {"description": "x" * 131_072}}},
            {"type": "structural_tag"},
            {"type": ["text"]},
        ],
    ),
    "structured_outputs": (
        [
            {"json": SCHEMA, "disable_any_whitespace": True},
            {"json": '{"type": "object"}', "disable_fallback": False},
            {"regex": "[0-9]{3}"},
            {"choice": ["yes", "no"]},
            {"grammar": 'root ::= "a"'},
            {"json_object": True, "regex": None, "whitespace_pattern": " "},
            {"structural_tag": "{}"},
        ],
        [
            {},
            "x",
            [],
            {"regex": "a", "choice": ["b"]},
            {"json_object": False},
            {"choice": []},
            {"choice": [1]},
            {"regex": "x" * 8_193},
            {"regex": "a", "backend": "guidance"},
            {"regex": "a", "_backend": "outlines"},
            {"regex": "a", "_backend_was_auto": False},
        ],
    ),
    "logprobs": BOOLEANS,
    "top_logprobs": ([0, 20], [-1, 21, 1.0, "5", True]),
    "logprob_token_ids": ([[], [5]], [5, ["5"], list(range(129))]),
    "skip_special_tokens": BOOLEANS,
    "spaces_between_special_tokens": BOOLEANS,
    "return_tokens_as_token_ids": BOOLEANS,
    "return_token_ids": BOOLEANS,
    "routed_experts_prompt_start": ([0, 7], [-1, "0"]),
    "reasoning_effort": (["low", "medium", "high", "none", "minimal", "xhigh", "max"], ["", "Low", "huge", 1, True, []]),
    "include_reasoning": BOOLEANS,
    "tools": (
        [
            [TOOL],
            *([{"function": {"name": name, "parameters": None, "strict": True}}] for name in ("a.b-c_d", "mcp/a:b", "天気")),
        ],
        [
            [],
            {},
            TOOL,
            [{}],
            [{"type": "custom", "custom": {"name": "x"}}],
            [{"function": {}}],
            [{"function": {"name": ""}}],
            [{"function": {"name": 5}}],
            [{"function": {"name": "x" * 257}}],
            [{"function": {"name": "x", "parameters": "{}"}}],
            [{"function": {"name": "x", "parameters": {"description": "x" * 131_072}}}],
            [{"function": {"name": "x", "strict": "yes"}}],
            [TOOL] * 129,
        ],
    ),
    "tool_choice": (
        ["none", "auto", "required", NAMED, {"function": {"name": "get_weather"}}],
        ["any", "", 1, [], {}, {"function": "get_weather"}, {"function": {"name": "other"}}, {"type": "allowed_tools"}],
    ),
    "parallel_tool_calls": BOOLEANS,
    "echo": BOOLEANS,
    "add_generation_prompt": BOOLEANS,
    "continue_final_message": BOOLEANS,
    "add_special_tokens": BOOLEANS,
    "chat_template_kwargs": (
        [{}, {"enable_thinking": False}],
        ["x", [], {"tokenize": True}, {"chat_template": "{{ 1 }}"}, {"a": "x" * 131_072}],
    ),
    "truncate_prompt_tokens": ([-1, 0, 4611686018427388000, 2**63 - 1], [-2, 2**63, 1.0]),
    "truncation_side": (["left", "right"], ["both", 1]),
    "stream": BOOLEANS,
    "stream_options": (
        [{}, {"include_usage": True, "continuous_usage_stats": False}, {"include_usage": None, "include_obfuscation": True}],
        [True, [], "x", {"include_usage": "yes"}, {"continuous_usage_stats": 1}],
    ),
    "stream_interval": ([1, 10], [0, 1_025, "1"]),
    "cache_control": (
        [{"type": t} for t in ("default", "no_cache", "no_store", "response_only", "semantic_only")]
        + [{"type": "default", "max_age": 0}, {"max_age": 86_400}],
        [{"type": "ephemeral"}, {"type": 1}, {"max_age": -1}, {"max_age": 86_401}, {"max_age": 1.5}, {"ttl": 1}, "no_cache"],
    ),
    "metadata": (
        [{}, {"team": "a"}, {"k" * 64: "v" * 512}, {str(i): "" for i in range(16)}],
        [[], {"k" * 65: "v"}, {"k": "v" * 513}, {"k": 1}, {"k": None}, {"k": "\0"}, {str(i): "" for i in range(17)}],
    ),
    "store": BOOLEANS,
    "user": (["", "u-1"], [5, [], "x" * 513, "\0"]),
    "safety_identifier": (["abc"], [5, "x" * 513]),
    "request_id": (["my-id"], [5, "x" * 257]),
    "priority": ([0, -5, 2**63 - 1], [1.5, "1", 2**63]),
    "cache_salt": (["s1"], ["", 5, "x" * 1_025]),
    "chat_template": (["{{ messages }}"], [5, {}]),
    "logits_processors": ([["a.B"], [{"qualname": "a.B", "args": [1]}]], ["a.B", [5]]),
    "mm_processor_kwargs": JSON_OBJECT,
    "media_io_kwargs": ([{"video": {"num_frames": 5}}], [{"video": 5}, []]),
    "kv_transfer_params": JSON_OBJECT,
    "ec_transfer_params": JSON_OBJECT,
    "vllm_xargs": ([{"a": "b", "c": 1, "d": 0.5, "e": [1, "x"]}], [{"a": {}}, {"a": True}, {"a": [[]]}, []]),
    "prompt_logprobs": ([0, 5, 20], [-1, 21, True, "1"]),
    "use_beam_search": BOOLEANS,
    "return_prompt_text": BOOLEANS,
    "service_tier": (["auto", "fast"], [5]),
    "modalities": ([["text"]], ["text", [5]]),
    "audio": OBJECT,
    "prediction": OBJECT,
    "verbosity": (["low"], [1]),
    "web_search_options": OBJECT,
    "moderation": OBJECT,
    "prompt_cache_key": (["k"], [1]),
    "prompt_cache_retention": (["24h"], [1]),
    "prompt_cache_options": OBJECT,
    "functions": ([[{"name": "f"}]], ["f", [1]]),
    "function_call": (["auto", {"name": "f"}], [1, []]),
    "session_id": (["s"], [1]),
    "return_token_offsets": BOOLEANS,
    "mm_payload": (["none"], [1]),
    "return_mm_kwargs": BOOLEANS,
}

ACME = Tenant(
    id="t1",
    slug="acme",
    name="Acme",
    is_active=True,
    error_dialect="openai",
    unknown_fields="drop",
    time_zone="Asia/Tokyo",
)
PRIVILEGED = frozenset(name for name, row in FIELDS.items() if row.kind == "privileged")
PLAIN = Alias(name="general", deployment="tiny", created_s=0)
TRUSTED = Alias(name="general", deployment="tiny", created_s=0, grants=PRIVILEGED)


def ask(name: str, value: Any, alias: Alias = PLAIN) -> dict[str, Any]:
    """What goes upstream of a request with this field."""
    return for_alias(validate({**BASE, **COMPANIONS.get(name, {}), name: value}), alias, ACME).fields


def refusal(name: str, value: Any, alias: Alias = PLAIN) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        ask(name, value, alias)
    return caught.value


def asks_for_nothing(value: Any) -> bool:
    return value is False or value in ({}, [])


def cases(which: int) -> list[Any]:
    return [
        pytest.param(name, value, id=f"{name}-{index}")
        for name, examples in EXAMPLES.items()
        for index, value in enumerate(examples[which])
    ]


def test_every_row_has_examples() -> None:
    assert set(EXAMPLES) == set(FIELDS)
    assert all(valid and invalid for valid, invalid in EXAMPLES.values())


@pytest.mark.parametrize("schema", [VLLM_SCHEMA, VLLM_032_SCHEMA, OPENAI_SCHEMA, LEMONDATA_SCHEMA])
def test_every_field_of_the_promised_schemas_has_a_row(schema: list[str]) -> None:
    assert [name for name in schema if name not in FIELDS] == []


@pytest.mark.parametrize(("name", "value"), cases(0))
def test_valid_value_is_accepted_and_sent_on_as_it_came(name: str, value: Any) -> None:
    fields = ask(name, value, TRUSTED)
    is_sent = FIELDS[name].kind in {"forward", "check", "privileged"} and name != "max_completion_tokens"
    if is_sent and not (name in PRIVILEGED and asks_for_nothing(value)):
        assert fields[name] == value
    else:
        assert name not in fields


@pytest.mark.parametrize(("name", "value"), cases(1))
def test_invalid_value_is_a_400_that_names_the_field(name: str, value: Any) -> None:
    error = refusal(name, value, TRUSTED)
    assert error.status == 400
    assert error.message == "Invalid chat completion request."
    assert error.param is not None
    assert error.param.startswith(name)
    assert error.details
    assert error.details[0]["param"] == error.param


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_null_is_absence_except_where_a_field_is_required(name: str) -> None:
    if name in REQUIRED:
        assert refusal(name, None).param == name
    else:
        assert name not in for_alias(validate({**BASE, name: None}), PLAIN, ACME).fields


# ---- the matrix: each field against values of every kind


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


HOSTILE: dict[str, Any] = {
    "true": True,
    "false": False,
    "0": 0,
    "1": 1,
    "-1": -1,
    "2**63": 2**63,
    "-2**63-1": -9.223372036854777e18,  # as orjson reads it
    "1.0": 1.0,
    "1.5": 1.5,
    "-0.5": -0.5,
    "1e308": 1e308,
    "nan": float("nan"),
    "inf": float("inf"),
    "empty": "",
    "9": "9",
    "yes": "yes",
    "null": "null",
    "nul": "a\0b",
    "100 kB": "x" * 100_000,
    "[]": [],
    "[null]": [None],
    "[0]": [0],
    "['']": [""],
    "['9']": ["9"],
    "[[]]": [[]],
    "[{}]": [{}],
    "{}": {},
    "{'':null}": {"": None},
    "{'a':1}": {"a": 1},
    "{'type':[]}": {"type": []},
    "nested": nested(30),
    "deep": nested(100),
    "wide": [[]] * 200_001,
}
# Accepted labels by kind of field; whatever is not listed must be refused.
KINDS: dict[str, tuple[str, str]] = {
    "booleans": (
        "true false",
        """watermarking include_stop_str_in_output ignore_eos logprobs skip_special_tokens spaces_between_special_tokens
        return_tokens_as_token_ids return_token_ids include_reasoning parallel_tool_calls echo add_generation_prompt
        continue_final_message add_special_tokens stream store return_token_offsets return_mm_kwargs use_beam_search
        return_prompt_text""",
    ),
    "penalties": ("0 1 -1 1.0 1.5 -0.5", "frequency_penalty presence_penalty length_penalty"),
    "temperature": ("0 1 1.0 1.5", "temperature"),
    "above zero": ("1 1.0 1.5", "repetition_penalty"),
    "probability above zero": ("1 1.0", "top_p"),
    "probability": ("0 1 1.0", "min_p"),
    "any integer": ("0 1 -1", "seed priority top_k thinking_token_budget truncate_prompt_tokens"),
    "count": ("0 1", "min_tokens top_logprobs routed_experts_prompt_start prompt_logprobs"),
    "positive": ("1", "n max_tokens max_completion_tokens stream_interval"),
    "token ids": ("[] [0]", "stop_token_ids logprob_token_ids"),
    "some token ids": ("[0]", "allowed_token_ids"),
    "words": ("[] ['9']", "bad_words"),
    "stop": ("9 yes null nul [] ['9']", "stop"),
    "names": ("9 yes null", "model"),
    "labels": ("empty 9 yes null", "user safety_identifier request_id"),
    "salt": ("9 yes null nul", "cache_salt"),
    "short text": (
        "empty 9 yes null nul",
        "service_tier verbosity prompt_cache_key prompt_cache_retention session_id mm_payload chat_template",
    ),
    "choices": ("", "reasoning_effort truncation_side tool_choice"),
    "strings": ("[] [''] ['9']", "modalities"),
    "processors": ("[] [''] ['9'] [{}]", "logits_processors"),
    "objects": (
        "{} {'':null} {'a':1} {'type':[]}",
        """audio prediction web_search_options moderation prompt_cache_options chat_template_kwargs mm_processor_kwargs
        kv_transfer_params ec_transfer_params stream_options repetition_detection""",
    ),
    "empty objects": ("{}", "logit_bias metadata media_io_kwargs cache_control"),
    "xargs": ("{} {'a':1} {'type':[]}", "vllm_xargs"),
    "functions": ("[] [{}]", "functions documents"),
    "function call": ("empty 9 yes null nul {} {'':null} {'a':1} {'type':[]}", "function_call"),
    "never": ("", "messages tools response_format structured_outputs"),
}
ACCEPTED = {name: set(labels.split()) for labels, names in KINDS.values() for name in names.split()}


def test_matrix_has_every_field() -> None:
    assert set(ACCEPTED) == set(FIELDS)


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_value_of_the_wrong_kind_is_refused_by_the_name_of_its_field(name: str) -> None:
    for label, value in HOSTILE.items():
        if label in ACCEPTED[name]:
            ask(name, value, TRUSTED)
        else:
            error = refusal(name, value, TRUSTED)
            assert error.param is not None, label
            assert error.param.startswith(name), label


def test_deep_unknown_field_is_refused() -> None:
    assert refusal("surprise", HOSTILE["deep"]).param == "surprise"


# ---- privileged fields


@pytest.mark.parametrize("name", sorted(PRIVILEGED))
def test_privileged_field_needs_the_grant_of_that_very_name(name: str) -> None:
    value = next(value for value in EXAMPLES[name][0] if not asks_for_nothing(value))
    error = refusal(name, value)
    assert error.param == name
    others = Alias(name="general", deployment="tiny", created_s=0, grants=PRIVILEGED - {name})
    assert refusal(name, value, others).param == name
    assert ask(name, value, TRUSTED)[name] == value


def test_grants_are_a_closed_list() -> None:
    inside_others = {"remote_media", "media_uuid", "embeds", "structured_outputs._backend"}
    assert PRIVILEGED | inside_others == GRANTS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("use_beam_search", False),
        ("return_prompt_text", False),
        ("mm_processor_kwargs", {}),
        ("media_io_kwargs", {}),
        ("kv_transfer_params", {}),
        ("ec_transfer_params", {}),
        ("vllm_xargs", {}),
        ("logits_processors", []),
    ],
)
def test_privileged_default_written_out_needs_no_grant(name: str, value: Any) -> None:
    assert name not in ask(name, value)


@pytest.mark.parametrize("member", ["_backend", "_backend_was_auto"])
def test_backend_of_structured_outputs_needs_its_own_grant(member: str) -> None:
    value = {"regex": "a", member: True if member.endswith("auto") else "guidance"}
    assert refusal("structured_outputs", value).param == f"structured_outputs.{member}"
    granting = Alias(name="general", deployment="tiny", created_s=0, grants=frozenset({"structured_outputs._backend"}))
    assert ask("structured_outputs", value, granting)["structured_outputs"] == value


# ---- the table in words


def test_description_has_every_row_in_words() -> None:
    rows = {row["name"]: row for row in describe_fields()}
    assert list(rows) == list(FIELDS)
    assert all(all(row.values()) for row in rows.values())
    assert rows["temperature"] == {
        "name": "temperature",
        "class": "check",
        "type": "number",
        "accepts": "a number between 0 and 2",
        "required": "no",
        "source": "openai",
        "description": "Sampling temperature; 0 always takes the likeliest token.",
    }
    assert rows["stop"]["type"] == "string or array"
