"""The rates that gateway/policy/README.md tells are at least these."""

import pytest

from gateway.policy.detectors import DETECTORS
from tests.gateway.policy.corpus.measure import LANGUAGES, NAMES, catch_rate, clean_lines, false_alarms

UNSEEN = ("none", "full width", "zero-width", "soft hyphens")
# Per 1,000 clean lines. Twelve digits have a right check digit one time in eleven; ranges of pages read like postal codes.
ALARMS_MOST = {"jp_postal_code": 20, "my_number": 8, "credit_card": 2.5}


@pytest.mark.parametrize("obfuscation", UNSEEN)
@pytest.mark.parametrize("name", NAMES)
def test_what_reads_the_same_is_always_caught(name: str, obfuscation: str) -> None:
    assert catch_rate(name, obfuscation) in {1.0, None}


@pytest.mark.parametrize("obfuscation", ["half-width kana", "kana switched", "mixed case", "decomposed (NFD)"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "secret"])
def test_other_spellings_of_the_same_letters_are_always_caught(name: str, obfuscation: str) -> None:
    assert catch_rate(name, obfuscation) in {1.0, None}


@pytest.mark.parametrize("name", ["email", "jp_phone", "phone", "jp_postal_code", "my_number", "credit_card", "ip_address"])
def test_digits_that_look_alike_are_always_caught(name: str) -> None:
    assert catch_rate(name, "look-alikes") == 1.0


@pytest.mark.parametrize(
    ("name", "obfuscation", "least"),
    [("credit_card", "spaces between", 0.9), ("iban", "spaces between", 0.95), ("iban", "line broken", 0.95)],
)
def test_numbers_with_check_digits_are_caught_taken_apart(name: str, obfuscation: str, least: float) -> None:
    assert (catch_rate(name, obfuscation) or 0) >= least


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", DETECTORS)
def test_clean_lines_pass(name: str, language: str) -> None:
    lines = clean_lines(language)
    assert len(lines) >= 400
    assert len(list(false_alarms(name, language))) <= ALARMS_MOST.get(name, 0) * len(lines) / 1_000
