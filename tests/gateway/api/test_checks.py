"""The checks by themselves: strict about types, exact about places, and saying the same in words and as JSON Schema."""

from typing import Any

import pytest

from gateway.api.checks import (
    BOOLEAN,
    FINE,
    Check,
    any_object,
    by_type,
    depth_problem,
    integer,
    json_depth,
    label,
    list_of,
    mapping_of,
    number,
    number_above,
    one_of,
    record,
    shallow,
    string,
)

NAME = string(3, min_chars=1)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (BOOLEAN, [True, False], [0, 1, "true", None]),
        (integer(0, 5), [0, 5], [-1, 6, 1.0, True, "1", None]),
        (number(0, 2), [0, 2, 0.5], [-0.1, 2.1, True, "1", float("nan"), float("inf")]),
        (number_above(0, 1), [1, 0.1], [0, 0.0, 1.1, False]),
        (NAME, ["a", "abc", "日本語"], ["", "abcd", 1, ["a"], b"a"]),
        (label(3), ["", "abc"], ["a\0", "abcd", 1]),
        (one_of("a", "b"), ["a"], ["c", "", ["a"], {}, 1]),
        (mapping_of(NAME, integer(0), 2), [{}, {"a": 1}], [[], {"": 1}, {"a": -1}, {"a": 1, "b": 1, "c": 1}]),
        (shallow(2), ["", "no JSON", '{"a":[1]}', "[[" + "]]", '{"a":"[[["}', "[],[],[]"], ["[[[", '{"a":[{', None, {}]),
        (any_object(10), [{}, {"a": 1}], [[], "x", {"a": "x" * 10}, {"a": 2**64}]),
    ],
)
def test_whole_value_is_accepted_or_must_be_what_the_words_say(check: Check, good: list[Any], bad: list[Any]) -> None:
    assert all(check.find(value) == FINE for value in good)
    assert all(check.find(value) == (("", f"must be {check.words}."),) for value in bad)


def test_object_too_deep_to_be_written_is_refused() -> None:
    value: dict[str, Any] = {}
    for _ in range(1_000):
        value = {"a": value}
    assert any_object(1_000_000).find(value)


def test_problems_are_found_where_they_are() -> None:
    check = record({"items": list_of(record({"name": NAME}, required=("name",)), 5)}, required=("items", "id"))
    assert check.find({"items": [{"name": "a"}, {}, {"name": ""}, 5]}) == [
        (".id", "is required."),
        (".items[1].name", "is required."),
        (".items[2].name", "must be a string of 1 to 3 characters."),
        (".items[3]", "must be an object."),
    ]


def test_null_member_is_an_absent_member() -> None:
    assert record({"name": NAME}).find({"name": None}) == FINE
    assert record({"name": NAME}, required=("name",)).find({"name": None}) == [(".name", "is required.")]


def test_open_record_takes_strangers_and_a_closed_one_does_not_name_them() -> None:
    assert record({"name": NAME}).find({"other": 1}) == FINE
    assert record({"name": NAME, "b": BOOLEAN}, closed=True).find({"secret": 1}) == [("", "may hold only name, b.")]


def test_check_of_the_type_at_hand_tells_what_is_wrong() -> None:
    check = by_type({str: NAME, list: list_of(NAME, 2)})
    assert check.find("abcd") == (("", "must be a string of 1 to 3 characters."),)
    assert check.find(["a", ""]) == [("[1]", "must be a string of 1 to 3 characters.")]
    assert check.find(5) == (("", f"must be {check.words}."),)


def test_schema_says_the_same() -> None:
    assert list_of(number_above(0, 1), 3, min_items=1).schema == {
        "type": "array",
        "items": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "minItems": 1,
        "maxItems": 3,
    }
    assert record({"name": NAME}, required=("name",), closed=True).schema == {
        "type": "object",
        "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 3}},
        "required": ["name"],
        "additionalProperties": False,
    }


def test_depth_is_bounded() -> None:
    assert depth_problem({"a": [{"b": 1}]}, max_depth=3) is None
    assert depth_problem({"a": [{"b": [1]}]}, max_depth=3) == "must not be nested deeper than 3 levels."
    assert depth_problem("a text", max_depth=0) is None


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        ("", 0),
        ("7", 0),
        ('{"a":[1,{"b":[]}],"c":[]}', 4),
        ("[" * 5_000, 5_000),
        (r'["a \"[[[[ b", "\\", [2]]', 2),
        ('["[[[[ unended', 1),
        ('["\n[[[[\n"]', 1),
        ('["日本[[語", ["本"]]', 2),
        ("]]][[", 0),
    ],
    ids=[
        "empty",
        "number",
        "whole",
        "unended",
        "escapes",
        "unended string",
        "lines in a string",
        "not ASCII",
        "no JSON at all",
    ],
)
def test_depth_of_json_in_a_text_is_told(text: str, depth: int) -> None:
    assert json_depth(text) == depth
