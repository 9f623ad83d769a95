"""The OpenAPI description says what the code does."""

from collections.abc import Iterator
from typing import Any

import orjson

from gateway import exceptions
from gateway.api.fields import FIELDS
from gateway.api.openapi import document


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for member in value.values():
            yield from references(member)
    elif isinstance(value, list):
        for member in value:
            yield from references(member)


def test_every_reference_leads_somewhere() -> None:
    described = document()
    found = set(references(described))
    assert found
    for reference in found:
        target: Any = described
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]


def test_request_schema_has_every_field_and_admits_null_for_the_optional_ones() -> None:
    schema = document()["components"]["schemas"]["ChatCompletionRequest"]
    assert list(schema["properties"]) == list(FIELDS)
    assert schema["required"] == ["model", "messages"]
    assert schema["properties"]["temperature"]["anyOf"] == [{"type": "number", "minimum": 0, "maximum": 2}, {"type": "null"}]
    assert schema["properties"]["model"]["type"] == "string"


def test_errors_are_those_of_the_tree() -> None:
    responses = document()["paths"]["/v1/chat/completions"]["post"]["responses"]
    bad_request = responses["400"]["content"]["application/json"]["examples"]
    assert set(bad_request) == {"invalid_request", "context_length_exceeded"}
    assert bad_request["invalid_request"]["value"]["error"]["message"] == exceptions.InvalidRequest.default_message
    assert responses["502"]["content"]["application/json"]["examples"]["upstream_unavailable"]["value"]["error"]["message"] == (
        "The requested model alias 'general' is temporarily unavailable."
    )


def test_description_is_json() -> None:
    assert orjson.loads(orjson.dumps(document()))["openapi"] == "3.1.0"


def test_each_call_returns_a_description_of_its_own() -> None:
    first = document()
    first["paths"].clear()
    assert document()["paths"]
