"""The text of a key: its form and checksum, how it is found, and which peppers verify it."""

import hmac
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts import keys

NEW = keys.Pepper("p2", b"new pepper")
OLD = keys.Pepper("p1", b"old pepper")
IMPORTED = "sk-lemon-0123456789abcdef"
MINTED = "sk-sekisho-" + "0" * 44 + "2z9JDh"  # the example of accounts/README.md

minted = st.text(keys.ALPHABET, min_size=44, max_size=44).map(lambda s: keys.PREFIX + s).map(lambda b: b + keys._checksum(b))


def test_minted_key_has_the_published_form() -> None:
    text = keys.mint()
    assert keys.PATTERN.fullmatch(text)
    assert keys.is_minted(text)
    assert keys.is_importable(text)


def test_checksum_is_the_one_published() -> None:
    """Scanners rely on it: it must not drift."""
    assert keys.is_minted(MINTED)


def test_two_minted_keys_differ_in_lookup_id_and_secret() -> None:
    one, other = keys.mint(), keys.mint()
    assert keys.lookup_id(one, NEW) != keys.lookup_id(other, NEW)
    assert one[-38:] != other[-38:]


@given(minted, st.integers(0, 60), st.characters(exclude_categories=["Cs"]))
def test_one_changed_character_is_always_refused(text: str, place: int, character: str) -> None:
    changed = text[:place] + character + text[place + 1 :]
    assert keys.is_minted(changed) == (changed == text)


@given(minted, st.integers(0, 59))
def test_two_swapped_characters_are_always_refused(text: str, place: int) -> None:
    swapped = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    assert keys.is_minted(swapped) == (swapped == text)


@given(st.text() | st.text(string.printable).map(lambda s: keys.PREFIX + s))
def test_junk_is_refused_without_an_error(junk: str) -> None:
    assert not keys.is_minted(junk)


@pytest.mark.parametrize("end", ["\n", " ", "\x00", "٣"])
def test_what_follows_a_key_makes_it_junk(end: str) -> None:
    assert not keys.is_minted(keys.mint() + end)
    assert not keys.is_minted(keys.mint()[:-1] + end)


@pytest.mark.parametrize("text", ["k" * 19, "k" * 513, "k" * 20 + " ", "k" * 20 + "\n", "ключ" * 6, keys.PREFIX + "0" * 50])
def test_what_is_no_key_cannot_be_imported(text: str) -> None:
    assert not keys.is_importable(text)


@pytest.mark.parametrize("text", ["k" * 20, "k" * 512, IMPORTED])
def test_keys_from_elsewhere_can_be_imported(text: str) -> None:
    assert keys.is_importable(text)
    assert not keys.is_minted(text)


def test_imported_key_is_found_by_an_hmac_of_its_text() -> None:
    found = keys.lookup_id(IMPORTED, NEW)
    assert found == keys.lookup_id(IMPORTED, NEW)
    assert found != keys.lookup_id(IMPORTED, OLD)
    assert found != keys.lookup_id(IMPORTED + "0", NEW)
    assert IMPORTED not in found
    assert not keys.digest(IMPORTED, NEW).startswith(found[1:])


def test_minted_and_imported_lookup_ids_cannot_meet() -> None:
    assert len(keys.lookup_id(keys.mint(), NEW)) == keys.LOOKUP_LENGTH < len(keys.lookup_id(IMPORTED, NEW))


@pytest.mark.parametrize("pepper", [NEW, OLD])
@pytest.mark.parametrize("text", [MINTED, IMPORTED])
def test_every_pepper_of_the_ring_verifies(text: str, pepper: keys.Pepper) -> None:
    stored = keys.digest(text, pepper)
    assert keys.matches(text, stored_digest=stored, pepper_id=pepper.id, ring=(NEW, OLD))
    assert not keys.matches(keys.mint(), stored_digest=stored, pepper_id=pepper.id, ring=(NEW, OLD))


def test_retired_pepper_verifies_nothing() -> None:
    text = keys.mint()
    assert not keys.matches(text, stored_digest=keys.digest(text, OLD), pepper_id="p1", ring=(NEW,))
    assert not keys.matches(text, stored_digest=keys.digest(text, OLD), pepper_id="p1", ring=(keys.Pepper("p1", b"other"),))


def test_digests_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[str, str]] = []

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return original(one, other)

    original = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare)
    text = keys.mint()
    assert keys.matches(text, stored_digest=keys.digest(text, NEW), pepper_id="p2", ring=(NEW,))
    assert compared == [(keys.digest(text, NEW),) * 2]


def test_peppers_of_the_settings_come_in_order() -> None:
    assert keys.peppers([("a", "one"), ("b", "two")]) == (keys.Pepper("a", b"one"), keys.Pepper("b", b"two"))


def test_secret_of_a_pepper_is_not_in_its_repr() -> None:
    assert "new pepper" not in repr(NEW)


def test_hint_shows_the_start_and_the_last_four() -> None:
    text = keys.mint()
    assert keys.hint(text) == f"{text[:15]}…{text[-4:]}"
    assert keys.hint(IMPORTED) == "…cdef"
