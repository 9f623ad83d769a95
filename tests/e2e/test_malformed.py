"""Malformed requests: each gets a clear 400 that names the field; none is a 500, none reaches a backend."""

import json
from typing import Any

import pytest
import requests

from tests.e2e.conftest import CHAT, Stand

USER = {"role": "user", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}

# what is added to a minimal request -> the param that the answer names
MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"model": None}, "model"),
    ({"model": 5}, "model"),
    ({"model": ["general"]}, "model"),
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": {}}, "messages"),
    ({"messages": "Hello"}, "messages"),
    ({"messages": ["Hello"]}, "messages[0]"),
    ({"messages": [{}]}, "messages[0].role"),
    ({"messages": [{"role": 5, "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [None]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    ({"messages": [{"role": "user", "content": [{"type": "nonsense"}]}]}, "messages[0].content[0].type"),
    ({"messages": [USER, {"role": "tool", "tool_call_id": 5, "content": "x"}]}, "messages[1].tool_call_id"),
    ({"stream": "yes"}, "stream"),
    ({"stream": 1}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
    ({"stream": True, "stream_options": []}, "stream_options"),
    ({"temperature": "0.5"}, "temperature"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"temperature": [1]}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.5}, "top_p"),
    ({"top_k": 1.5}, "top_k"),
    ({"frequency_penalty": 3}, "frequency_penalty"),
    ({"presence_penalty": -3}, "presence_penalty"),
    ({"logit_bias": {"5": 101}}, "logit_bias"),
    ({"logit_bias": {"word": 1}}, "logit_bias"),
    ({"logit_bias": []}, "logit_bias"),
    ({"n": 0}, "n"),
    ({"n": 9}, "n"),
    ({"n": 1.0}, "n"),
    ({"n": True}, "n"),
    ({"n": 2**70}, "n"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": "5"}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"stop": 5}, "stop"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"stop": [""]}, "stop"),
    ({"seed": 2**63}, "seed"),
    ({"seed": "1"}, "seed"),
    ({"logprobs": 5}, "logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"tools": {}}, "tools"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
    ({"tool_choice": "auto"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": "never"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"metadata": {"k": 5}}, "metadata"),
    ({"metadata": {str(i): "v" for i in range(17)}}, "metadata"),
    ({"user": 5}, "user"),
    ({"cache_control": {"type": "always"}}, "cache_control"),
    ({"cache_control": {"max_age": 86401}}, "cache_control"),
    ({"cache_control": "no_cache"}, "cache_control"),
    ({"reasoning_effort": 5}, "reasoning_effort"),
    ({"chat_template": "{{ messages }}"}, "chat_template"),
    ({"logits_processors": ["os.system"]}, "logits_processors"),
    ({"mm_processor_kwargs": {"code_revision": "x"}}, "mm_processor_kwargs"),
    ({"kv_transfer_params": {"a": 1}}, "kv_transfer_params"),
    ({"vllm_xargs": {"a": 1}}, "vllm_xargs"),
    ({"prompt_logprobs": 1}, "prompt_logprobs"),
    ({"use_beam_search": True}, "use_beam_search"),
    ({"structured_outputs": {"choice": ["a"], "_backend": "x"}}, "structured_outputs._backend"),
]


def test_a_malformed_request_is_400_and_names_the_field(stand: Stand, subtests: pytest.Subtests) -> None:
    for added, param in MALFORMED:
        with subtests.test(json.dumps(added)[:60]):
            response = stand.post(added)
            error = response.json()["error"]
            assert response.status_code == 400
            assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_request")
            assert error["message"] == "Invalid chat completion request."
            assert error["param"].startswith(param)
            assert error["details"][0]["message"]
    assert stand.vllm.requests() == []


def test_a_body_that_is_no_json_object_is_400(stand: Stand, subtests: pytest.Subtests) -> None:
    headers = {"Authorization": f"Bearer {stand.secret}", "Content-Type": "application/json"}
    for body in (b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"model": NaN}', b"{" * 5000, b'{"a":' * 5000, b"x" * 100_000):
        with subtests.test(repr(body[:16])):
            response = requests.post(stand.gateway.url + CHAT, data=body, headers=headers, timeout=30)
            assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_request")


def test_no_error_quotes_the_prompt(stand: Stand) -> None:
    secret = "the-launch-code-is-8812"
    for added in (
        {"messages": [{"role": "user", "content": [{"type": secret}]}]},
        {"messages": [{"role": secret + " ", "content": secret}]},
        {"tool_choice": secret},
        {"stop": [secret] * 99},
        {secret: secret, "temperature": 9},
    ):
        assert secret not in stand.post(added).text
    assert stand.get(f"/v1/{secret}").status_code == 404
    assert not any(secret in line for line in stand.gateway.lines())


def test_unknown_fields_are_dropped_refused_or_passed_as_the_tenant_chose(stand: Stand) -> None:
    response = stand.post({"brand_new": {"a": 1}})
    assert (response.status_code, response.headers["x-gateway-dropped-params"]) == (200, "brand_new")
    stand.acme.unknown_fields = "reject"
    stand.acme.save()
    stand.until(lambda: all(stand.post({"brand_new": 1}).status_code == 400 for _ in range(5)), "the setting did not arrive")
    assert stand.post({"brand_new": 1}).json()["error"]["param"] == "brand_new"
    stand.acme.unknown_fields = "pass"
    stand.acme.save()
    stand.until(lambda: all(stand.post({"brand_new": 1}).status_code == 200 for _ in range(5)), "the setting did not arrive")
    stand.post({"brand_new": {"a": 1}})
    assert stand.vllm.requests()[-1]["body"]["brand_new"] == {"a": 1}
