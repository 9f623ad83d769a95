"""The card of `up`: complete in both languages, and silent about what was told before."""

import dataclasses

import pytest

from portal import card

FACTS = card.Facts(
    api="http://127.0.0.1:8001",
    portal="http://127.0.0.1:8000",
    home="/srv/var",
    seconds=4.2,
    admin_email="admin@localhost",
    admin_password="the-password",
    key="sk-sekisho-the-key",
    demo_aliases=["general", "secure"],
)


@pytest.mark.parametrize("japanese", [True, False])
def test_the_first_card_tells_all_and_its_curl_line_holds_the_key(japanese: bool) -> None:
    text = card.render(FACTS, japanese=japanese)
    for told in (FACTS.portal, "http://127.0.0.1:8001/v1", "admin@localhost / the-password", "general, secure", "4.2"):
        assert told in text
    assert "curl http://127.0.0.1:8001/v1/chat/completions" in text
    assert "Bearer sk-sekisho-the-key" in text
    assert "$SEKISHO_API_KEY" not in text


@pytest.mark.parametrize("japanese", [True, False])
def test_a_later_card_says_how_to_get_new_ones(japanese: bool) -> None:
    text = card.render(dataclasses.replace(FACTS, admin_password=None, key=None), japanese=japanese)
    assert "manage.py changepassword admin@localhost" in text
    assert "manage.py keys create demo" in text
    assert "Bearer $SEKISHO_API_KEY" in text
    assert "None" not in text


def test_without_the_demo_no_call_is_shown() -> None:
    text = card.render(dataclasses.replace(FACTS, key=None, demo_aliases=[]), japanese=False)
    assert "curl" not in text
    assert "http://127.0.0.1:8001/v1" in text


def test_japanese_and_english_say_the_same_things() -> None:
    assert card._JA.keys() == card._EN.keys()
