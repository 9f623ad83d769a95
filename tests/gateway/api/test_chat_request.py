"""A request as a whole: what fields mean together, what an alias and a tenant make of it, and that nothing else comes out."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.api.chat_request import CacheControl, ChatRequest, Upstream, default_problems, for_alias, validate
from gateway.api.fields import FIELDS
from gateway.config.documents import Alias, Tenant, UnknownFields
from gateway.exceptions import InvalidRequest
from tests.gateway.api.test_fields import ACME, BASE, COMPANIONS, NAMED, PLAIN, TOOL


def alias(**settings: Any) -> Alias:
    return Alias(name="general", deployment="tiny", created_s=0, **settings)


def tenant(unknown_fields: UnknownFields) -> Tenant:
    return Tenant("t1", "acme", "Acme", True, "openai", unknown_fields, "Asia/Tokyo")


def fit(body: dict[str, Any], to: Alias = PLAIN, of: Tenant = ACME) -> Upstream:
    return for_alias(validate({**BASE, **body}), to, of)


def refused(body: dict[str, Any], to: Alias = PLAIN, of: Tenant = ACME) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        fit(body, to, of)
    return caught.value


# ---- the examples of the documents whose clients must work unchanged

CONVERSATION = [
    {"role": "system", "content": "あなたは親切で知識豊富なアシスタントです。"},
    {"role": "user", "content": "Pythonでリストをソートする方法を教えてください。"},
    {"role": "assistant", "content": "`sorted()`関数または`list.sort()`メソッドを使用します。"},
    {"role": "user", "content": "降順にするにはどうすればいいですか？"},
]
SEED_EXAMPLES: dict[str, dict[str, Any]] = {
    "mdx plain": {"model": "openai/gpt-oss-20b", "temperature": 0.7, "max_tokens": 100, "stream": False},
    "mdx stream": {"model": "openai/gpt-oss-20b", "temperature": 0.7, "max_tokens": 100, "stream": True},
    "mdx history": {"model": "llm-jp/llm-jp-3.1-13b-instruct4", "messages": CONVERSATION, "temperature": 0.7, "stream": False},
    "alias gateway": {"model": "general"},
    "alias gateway with options": {"model": "secure", "messages": CONVERSATION[:2], "max_tokens": 512, "temperature": 0.2},
    "lemondata": {"model": "gpt-4o", "messages": CONVERSATION[:2], "temperature": 0.7, "max_tokens": 1000},
    "openai": {"model": "gpt-4o", "messages": [{"role": "developer", "content": "You are helpful."}, *BASE["messages"]]},
    # vLLM's is a sketch of types; with numbers in range and one structured output it is a request.
    "vllm": {
        "messages": [{"content": "<string>", "role": "user", "name": "<string>"}],
        "frequency_penalty": 0,
        "logit_bias": {},
        "logprobs": False,
        "top_logprobs": 0,
        "max_tokens": 123,
        "max_completion_tokens": 123,
        "n": 1,
        "presence_penalty": 0,
        "response_format": {
            "type": "text",
            "json_schema": {"name": "<string>", "description": "<string>", "schema": {}, "strict": True},
        },
        "seed": 0,
        "stop": [],
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": False},
        "temperature": 1,
        "top_p": 1,
        "tools": [{"function": {"name": "a", "description": "<string>", "parameters": {}}, "type": "function"}],
        "tool_choice": "none",
        "reasoning_effort": "low",
        "include_reasoning": True,
        "parallel_tool_calls": True,
        "user": "<string>",
        "use_beam_search": False,
        "top_k": 123,
        "min_p": 1,
        "repetition_penalty": 1,
        "length_penalty": 1,
        "stop_token_ids": [],
        "include_stop_str_in_output": False,
        "ignore_eos": False,
        "min_tokens": 0,
        "skip_special_tokens": True,
        "spaces_between_special_tokens": True,
        "truncate_prompt_tokens": 4611686018427388000,
        "allowed_token_ids": [123],
        "bad_words": ["<string>"],
        "echo": False,
        "add_generation_prompt": True,
        "continue_final_message": False,
        "add_special_tokens": False,
        "documents": [{}],
        "chat_template_kwargs": {},
        "structured_outputs": {
            "json": "<string>",
            "disable_fallback": False,
            "disable_any_whitespace": False,
            "disable_additional_properties": False,
            "whitespace_pattern": "<string>",
        },
        "priority": 0,
        "request_id": "<string>",
        "return_tokens_as_token_ids": True,
        "return_token_ids": True,
        "cache_salt": "<string>",
    },
}


@pytest.mark.parametrize("example", SEED_EXAMPLES.values(), ids=SEED_EXAMPLES)
def test_examples_of_the_documents_pass(example: dict[str, Any]) -> None:
    assert fit(example).dropped == ()


# ---- validate


def test_request_tells_what_the_gateway_needs() -> None:
    request = validate(
        {
            **BASE,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            "n": 3,
            "max_tokens": 9,
            "max_completion_tokens": 5,
            "stop": ["a", "b"],
            "user": "u1",
            "metadata": {"team": "a"},
            "cache_control": {"type": "no_store", "max_age": 60},
            "cache_salt": "s1",
            "temperature": 0.5,
            "verbosity": "low",
            "surprise": [1],
        }
    )
    assert (request.model, request.stream, request.include_usage, request.continuous_usage) == ("general", True, True, True)
    assert (request.n, request.max_tokens, request.stop_count) == (3, 5, 2)
    assert (request.user, request.metadata, request.cache_salt) == ("u1", {"team": "a"}, "s1")
    assert request.cache_control == CacheControl("no_store", 60)
    assert request.forwarded == {"messages": BASE["messages"], "n": 3, "stop": ["a", "b"], "temperature": 0.5}
    assert (request.unknown, request.ignored, request.privileged) == ({"surprise": [1]}, ("verbosity",), {})


def test_request_of_two_fields_has_quiet_defaults() -> None:
    request = validate(BASE)
    assert (request.stream, request.include_usage, request.continuous_usage) == (False, False, False)
    assert (request.n, request.max_tokens, request.stop_count) == (1, None, 0)
    assert (request.user, request.metadata, request.cache_control, request.cache_salt) == (None, None, None, None)


@pytest.mark.parametrize(
    ("limits", "smaller"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": 9, "max_completion_tokens": 7}, 7),
        ({"max_tokens": None, "max_completion_tokens": 7}, 7),
    ],
)
def test_smaller_output_limit_counts(limits: dict[str, Any], smaller: int) -> None:
    assert validate({**BASE, **limits}).max_tokens == smaller
    assert fit(limits).fields == {"messages": BASE["messages"], "max_tokens": smaller}


def test_running_usage_means_nothing_without_usage() -> None:
    request = validate({**BASE, "stream": True, "stream_options": {"continuous_usage_stats": True}})
    assert (request.include_usage, request.continuous_usage) == (False, False)


@pytest.mark.parametrize(
    ("given", "user"),
    [({"user": "a"}, "a"), ({"safety_identifier": "b"}, "b"), ({"user": "a", "safety_identifier": "b"}, "a"), ({}, None)],
)
def test_user_goes_by_either_name(given: dict[str, str], user: str | None) -> None:
    assert validate({**BASE, **given}).user == user


def test_cache_control_without_type_is_the_default_type() -> None:
    assert validate({**BASE, "cache_control": {"max_age": 60}}).cache_control == CacheControl("default", 60)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream_options": {"include_usage": True}, "stream": False}, "stream_options"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"top_logprobs": 3, "logprobs": False}, "top_logprobs"),
        ({"logprob_token_ids": [5]}, "logprob_token_ids"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"add_generation_prompt": True, "continue_final_message": True}, "continue_final_message"),
        ({"min_tokens": 6, "max_tokens": 5}, "min_tokens"),
        ({"min_tokens": 6, "max_tokens": 9, "max_completion_tokens": 5}, "min_tokens"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice"),
        ({"tool_choice": {"function": {"name": "other"}}, "tools": [TOOL]}, "tool_choice.function.name"),
        ({"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}, "structured_outputs"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        validate({**BASE, **body})
    assert caught.value.param == param


@pytest.mark.parametrize(
    "body",
    [
        {"stream_options": {}},
        {"stream_options": None},
        {"top_logprobs": 0},
        {"continue_final_message": True, "add_generation_prompt": False},
        {"continue_final_message": True},
        {"min_tokens": 5, "max_tokens": 5},
        {"tool_choice": "none"},
        {"tool_choice": NAMED, "tools": [TOOL, TOOL]},
        {"structured_outputs": {"regex": "a"}, "response_format": {"type": "text"}},
    ],
)
def test_fields_that_only_seem_to_contradict_pass(body: dict[str, Any]) -> None:
    fit(body)


def test_required_fields_are_named_when_missing() -> None:
    with pytest.raises(InvalidRequest) as caught:
        validate({})
    assert caught.value.param == "model"
    assert caught.value.details == [
        {"param": "model", "message": "is required."},
        {"param": "messages", "message": "is required."},
    ]


def test_first_of_several_problems_is_the_param_and_all_are_told() -> None:
    error = refused({"temperature": "x", "messages": [{"role": "user", "content": 5}], "n": 0})
    assert [detail["param"] for detail in error.details or ()] == ["messages[0].content", "temperature", "n"]
    assert error.param == "messages[0].content"


def test_no_more_than_ten_problems_are_told() -> None:
    error = refused({"messages": ["x"] * 50, "stop_token_ids": ["x"] * 4_000, "temperature": 3})
    assert len(error.details or ()) == 10


def test_depth_of_64_passes_and_65_does_not() -> None:
    def nested(levels: int) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for _ in range(levels - 1):
            value = {"a": value}
        return value

    fit({"chat_template_kwargs": nested(63)})
    assert refused({"chat_template_kwargs": nested(64)}).param == "chat_template_kwargs"


def test_validation_leaves_the_body_as_it_was() -> None:
    body = {**BASE, "messages": [{"role": "user", "content": "x", "name": None}], "max_tokens": 5, "n": None}
    before = json.dumps(body)
    fit(body)
    assert json.dumps(body) == before


@pytest.mark.parametrize("number", ["9223372036854775808", "18446744073709551616", "-9223372036854775809", "1e30", "5.0"])
def test_integer_beyond_64_bits_or_written_as_a_fraction_is_no_integer(number: str) -> None:
    body = orjson.loads(f'{{"model":"a","messages":[{{"role":"user","content":"x"}}],"seed":{number}}}')
    with pytest.raises(InvalidRequest) as caught:
        validate(body)
    assert caught.value.param == "seed"


@pytest.mark.parametrize("text", [rb'"\ud800"', b"NaN", b"Infinity", b"1e999", b'"\xff"', b"[" * 2_000 + b"]" * 2_000])
def test_reader_of_json_refuses_what_could_not_be_checked(text: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(text)


# ---- for_alias


def test_alias_caps_the_output() -> None:
    capped = alias(max_output_tokens=100)
    assert fit({"max_tokens": 50}, capped).fields["max_tokens"] == 50
    assert fit({"max_tokens": 5_000}, capped).fields["max_tokens"] == 100
    assert fit({"max_completion_tokens": 5_000}, capped).fields["max_tokens"] == 100
    assert fit({}, capped).fields["max_tokens"] == 100
    assert "max_tokens" not in fit({}).fields


def test_min_tokens_beyond_the_cap_is_refused() -> None:
    assert refused({"min_tokens": 200}, alias(max_output_tokens=100)).param == "min_tokens"


def test_alias_defaults_fill_only_what_is_absent() -> None:
    defaults = alias(defaults={"temperature": 0.7, "top_p": 0.9, "max_completion_tokens": 30}, max_output_tokens=100)
    assert fit({"top_p": 0.5, "temperature": None}, defaults).fields == {
        "messages": BASE["messages"],
        "temperature": 0.7,
        "top_p": 0.5,
        "max_tokens": 30,
    }
    assert fit({"max_tokens": 50}, defaults).fields["max_tokens"] == 50


def test_alias_limits_choices_and_stops() -> None:
    assert refused({"n": 9}).param == "n"
    assert fit({"n": 9}, alias(max_choices=9)).fields["n"] == 9
    assert refused({"stop": ["x"] * 5}).param == "stop"
    assert fit({"stop": ["x"] * 5}, alias(max_stops=5)).fields["stop"] == ["x"] * 5
    assert refused({"stop": "x"}, alias(max_stops=0)).param == "stop"


def test_several_greedy_answers_are_refused_whoever_made_them_greedy() -> None:
    assert refused({"n": 2, "temperature": 0}).param == "n"
    assert refused({"n": 2}, alias(defaults={"temperature": 0})).param == "n"
    fit({"n": 1, "temperature": 0})


def test_remote_image_is_refused_by_its_part_unless_granted() -> None:
    part = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}
    body = {"messages": [{"role": "user", "content": ["look", part]}]}
    assert refused(body).param == "messages[0].content[1]"
    assert fit(body, alias(grants=frozenset({"remote_media"}))).fields["messages"] == body["messages"]


def test_unknown_fields_are_dropped_and_listed() -> None:
    upstream = fit({"best_of": 2, "guided_choice": ["a"], "verbosity": "low", "absent": None})
    assert upstream.dropped == ("verbosity", "best_of", "guided_choice")
    assert upstream.fields == {"messages": BASE["messages"]}


def test_unknown_field_is_refused_by_name_where_the_tenant_says_so() -> None:
    error = refused({"best_of": 2, "absent": None}, of=tenant("reject"))
    assert error.param == "best_of"
    assert fit({"verbosity": "low"}, of=tenant("reject")).dropped == ("verbosity",)


def test_unknown_field_passes_where_the_tenant_says_so() -> None:
    upstream = fit({"best_of": 2, "verbosity": "low"}, of=tenant("pass"))
    assert upstream.fields == {"messages": BASE["messages"], "best_of": 2}
    assert upstream.dropped == ("verbosity",)


@pytest.mark.parametrize("name", ["a\r\nset-cookie: x", "", "日本語", "x" * 65, "a b"])
def test_name_that_could_not_stand_in_a_header_is_not_repeated(name: str) -> None:
    assert fit({name: 1, name + "!": 2}).dropped == ("(unprintable)",)
    assert refused({name: 1}, of=tenant("reject")).param == "(unprintable)"


def test_names_of_dropped_fields_stay_few() -> None:
    assert len(fit({f"x{i}": 1 for i in range(1_000)}).dropped) == 32


def test_defaults_of_an_alias_are_checked_before_they_are_saved() -> None:
    assert default_problems({"temperature": 0.7, "max_tokens": 100, "chat_template_kwargs": {"enable_thinking": False}}) == []
    problems = default_problems(
        {"temperature": 3, "stream": True, "model": "x", "messages": [], "surprise": 1, "verbosity": "low"}
    )
    assert [place for place, _ in problems] == ["temperature", "stream", "model", "messages", "surprise", "verbosity"]
    assert [place for place, _ in default_problems({"min_tokens": 5, "max_tokens": 1})] == ["min_tokens"]


# ---- secrets

CANARY = "canary-5f1d"
SHAPES: list[Any] = [
    CANARY,
    [CANARY],
    [[CANARY]],
    {CANARY: CANARY},
    [{CANARY: CANARY}],
    {"type": CANARY, "name": CANARY, "function": CANARY, "json_schema": CANARY, "regex": [CANARY], "_backend": CANARY},
    [{"role": CANARY + "!", "content": CANARY}],
    [{"role": "user", "content": [{"type": CANARY, "text": CANARY}]}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": CANARY}}]}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"http://{CANARY}/"}}]}],
    [{"role": "tool", "content": CANARY, "name": [CANARY], CANARY: CANARY}],
    [{"type": "function", "function": {"name": CANARY + "!", "parameters": CANARY}}],
]


def outcome(body: dict[str, Any], of: Tenant = ACME) -> ChatRequest | InvalidRequest:
    """The request, fit to be written as JSON for a backend; or why it is refused. Any other exception is a failure."""
    try:
        request = validate(body)
        orjson.dumps(for_alias(request, PLAIN, of).fields)
    except InvalidRequest as error:
        return error
    return request


@pytest.mark.parametrize("name", sorted(FIELDS.keys() - {"model"}))
def test_no_value_of_a_client_shows_in_an_error_or_a_repr(name: str) -> None:
    for shape in SHAPES:
        result = outcome({**BASE, **COMPANIONS.get(name, {}), "user": CANARY, "surprise": CANARY, name: shape})
        assert CANARY not in repr(result)
        if isinstance(result, InvalidRequest):
            assert CANARY not in repr((str(result), result.message, result.param, result.details))


# ---- anything at all

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=8)
INNER_NAMES = st.sampled_from(["role", "content", "type", "text", "url", "function", "name", "uuid"]) | st.text(max_size=4)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(INNER_NAMES, inner, max_size=4),
    max_leaves=8,
)
POLICIES = st.sampled_from([tenant("drop"), tenant("reject"), tenant("pass")])


@given(st.dictionaries(st.sampled_from(list(FIELDS)) | st.text(max_size=8), JSON, max_size=6), POLICIES)
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_any_json_object_is_refused_or_sent_on(body: dict[str, Any], of: Tenant) -> None:
    outcome(body, of)
    outcome({**BASE, **body}, of)


PARTS = [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, "bare"]
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
FULL = orjson.dumps(
    {
        **SEED_EXAMPLES["vllm"],
        "model": "general",
        "messages": [
            {"role": "user", "content": PARTS},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "a", "content": "x"},
        ],
        "tools": [TOOL],
        "tool_choice": NAMED,
        "cache_control": {"type": "default", "max_age": 1},
        "metadata": {"a": "b"},
    }
)


def test_full_request_is_valid() -> None:
    assert isinstance(outcome(orjson.loads(FULL)), ChatRequest)


@given(st.data(), POLICIES)
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_valid_request_with_one_value_replaced_is_refused_or_sent_on(data: st.DataObject, of: Tenant) -> None:
    body = container = orjson.loads(FULL)
    while True:
        key = data.draw(st.sampled_from(sorted(container) if isinstance(container, dict) else range(len(container))))
        if not isinstance(container[key], dict | list) or not container[key] or data.draw(st.booleans()):
            container[key] = data.draw(JSON)
            break
        container = container[key]
    outcome(body, of)
