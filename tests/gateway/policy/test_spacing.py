"""Spaces between single letters, and within Japanese, go; those between words stay."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.spacing import closed_up, may_close_up, other_endings

TEXTS = st.text("ab1 \t字かー.", max_size=16)


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        pytest.param("a l p h a", "alpha", id="letters"),
        pytest.param("a 1 b 2", "a1b2", id="digits"),
        pytest.param("機 密 コ ー ド", "機密コード", id="japanese"),
        pytest.param("機\t密", "機密", id="tab"),
        pytest.param("機    密", "機密", id="four spaces"),
        pytest.param("機     密", "機     密", id="five spaces"),
        pytest.param("to be or not", "to be or not", id="words"),
        pytest.param("a  l", "a  l", id="two spaces between letters"),
        pytest.param("such a b c and", "such abc and", id="letters among words"),
        pytest.param("plan b is", "plan b is", id="one letter among words"),
        pytest.param("機 a 密", "機 a 密", id="japanese and a letter"),
        pytest.param("機\n密", "機\n密", id="lines"),
        pytest.param(" a ", " a ", id="at the edges"),
        pytest.param("", "", id="empty"),
    ],
)
def test_spaces_go_where_nobody_writes_any(text: str, closed: str) -> None:
    text = text.replace("コ", "こ").replace("ド", "ど")
    assert closed_up(text).text == closed.replace("コ", "こ").replace("ド", "ど")


@settings(max_examples=500, deadline=None)
@given(TEXTS)
def test_all_but_spaces_stays_and_leads_back(text: str) -> None:
    close = closed_up(text)
    assert re.sub("[ \t]", "", close.text) == re.sub("[ \t]", "", text)
    for at, char in enumerate(close.text):
        assert text[close.origin(at)] == char
        assert close.end(at + 1) == close.origin(at) + 1
        assert close.position(close.origin(at)) == at
    assert close.origin(len(close.text)) == len(text)


@settings(max_examples=500, deadline=None)
@given(TEXTS, st.integers(0, 200))
def test_it_is_known_where_spaces_may_go(text: str, filler: int) -> None:
    text = "\n" * filler + text
    if closed_up(text).text != text:
        assert may_close_up(text)


@settings(max_examples=500, deadline=None)
@given(TEXTS, TEXTS)
def test_what_follows_closes_up_no_otherwise_than_foreseen(text: str, rest: str) -> None:
    """The end of a text may turn out in another way, and in no third."""
    foreseen = [closed_up(text), *other_endings(text)]
    whole = closed_up(text + rest)
    upto = whole.text[: whole.position(len(text))]
    assert upto in {close.text for close in foreseen}
    if len(foreseen) > 1:
        assert may_close_up(text)
