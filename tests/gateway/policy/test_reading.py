"""Every text of a request is found where it stands, and can be put back there."""

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.fields import CHECK, FIELDS, FORWARD, PRIVILEGED
from gateway.policy.reading import FREE_OF_TEXT, SCANNED, texts, with_texts
from tests.gateway.policy.test_request import IMAGE, called, tool, user


def test_every_field_that_goes_upstream_is_scanned_or_free_of_text() -> None:
    forwarded = {row.name for row in FIELDS.values() if row.kind in (FORWARD, CHECK, PRIVILEGED)}
    assert set(SCANNED) | FREE_OF_TEXT == forwarded
    assert not set(SCANNED) & FREE_OF_TEXT


def test_media_are_nobodys_words() -> None:
    assert [text.text for text in texts(user([IMAGE, {"type": "text", "text": "What is it?"}]))] == ["What is it?"]


def test_constants_of_the_protocol_are_nobodys_words() -> None:
    fields = tool(parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
    assert {text.text for text in texts(fields | {"tool_choice": "auto"})} == {"note", "city"}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"{\u0041", "{A"),
        (r"{\\u0041", "{\\A"),
        ('{"\\"\n\u0000', '{"\\"\n\u0000'),
        (r"{\u00zz \u004", r"{\u00zz \u004"),
        (r"{\ud83d\ude00 \ud800", "{\U0001f600 \ufffd"),
        ("{" + r"\u3042" * 40_000 + "\\", "{" + "あ" * 40_000 + "\\"),
        ("{" + "x" * 65_532 + r"\u3042", "{" + "x" * 65_532 + "あ"),
    ],
)
def test_escapes_are_read_where_json_is_none(written: str, read: str) -> None:
    assert texts(called(written))[-1].text == read


# ---- any JSON at all

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=4), children, max_size=3),
    max_leaves=12,
)


@given(arguments=st.text(max_size=30) | JSON.map(lambda value: orjson.dumps(value).decode()), schema=JSON, content=JSON)
def test_texts_put_back_are_the_same_request(arguments: str, schema: Any, content: Any) -> None:
    fields = {
        "messages": [*called(arguments)["messages"], {"role": "user", "content": content}],
        "tools": [{"function": {"name": "f", "parameters": schema}}],
        "other": schema,
    }
    before = copy.deepcopy(fields)
    found = texts(fields)
    assert with_texts(fields, [text.text for text in found]) is fields
    changed = with_texts(fields, [text.text + "!" for text in found])
    assert fields == before
    assert len(texts(changed)) == len(found)
    if any(text.kind != "name" for text in found):
        assert changed != fields
