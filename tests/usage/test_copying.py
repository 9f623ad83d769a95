"""COPY: what is written is what is read, whatever the text."""

from typing import Any

import orjson
import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from usage.copying import NULL, array_cell, cells, copy, json_cell

text = st.text(st.characters(codec="utf-8"))
leaf = text | st.integers(-(2**53), 2**53) | st.booleans()
body_of = st.dictionaries(
    text, leaf | st.lists(leaf, max_size=3) | st.dictionaries(text, leaf, max_size=3), min_size=1, max_size=4
)


@pytest.fixture
def table(db: None) -> str:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE copied (one text, two text, body jsonb, counts int[]) ON COMMIT DROP")
    return "copied"


def read_back(table: str, *parts: str) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {table}")
        copy(table, ("one", "two", "body", "counts"), ["\t".join(parts) + "\n"])
        cursor.execute(f"SELECT one, two, body::text, counts FROM {table}")  # noqa: S608 - own name
        row = cursor.fetchone()
    assert row is not None
    return row


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(one=text, two=text)
def test_any_text_survives(table: str, one: str, two: str) -> None:
    row = read_back(table, cells(one, two), NULL, array_cell([0, 7]))
    assert row == (one.replace("\0", "\ufffd"), two.replace("\0", "\ufffd"), None, [0, 7])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=body_of)
def test_any_json_survives(table: str, body: dict[str, Any]) -> None:
    stored = orjson.loads(read_back(table, cells("", ""), json_cell(body), NULL)[2])
    assert stored == _without_nul(body)


def test_nothing_is_null() -> None:
    assert [json_cell(value) for value in (None, {}, [])] == [NULL] * 3


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {_without_nul(name): _without_nul(item) for name, item in value.items()}
    return [_without_nul(item) for item in value] if isinstance(value, list) else value
