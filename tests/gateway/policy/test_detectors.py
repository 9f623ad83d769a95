"""Detectors find what they name, in every form it is written in, and nothing that only looks like it."""

import re
from functools import cache
from random import Random

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.check_digits import IBAN_LENGTHS, is_card, is_iban, is_my_number, my_number_check_digit
from gateway.policy.detectors import DETECTORS
from gateway.policy.masks import Masks
from gateway.policy.rules import Policy, parse_rules
from gateway.policy.ruleset import Matcher, compiled
from gateway.policy.scanner import judge_text
from tests.gateway.policy.corpus.positives import POSITIVES

FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}


@cache
def matcher(name: str) -> Matcher:
    rules = parse_rules([{"kind": "detector", "detector": name, "where": ["input"], "action": "redact"}])
    found = compiled((Policy("p", 1, rules),)).on("input.user")
    assert found is not None
    return found


def masked(name: str, text: str) -> str:
    return judge_text(matcher(name), text, Masks(), surface="input.user").text


def finds(name: str, text: str) -> bool:
    return masked(name, text) != text


def luhn(body: str) -> str:
    """Written out by the table, not as the code under test has it."""
    total = sum((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)[int(d)] if at % 2 == 0 else int(d) for at, d in enumerate(reversed(body)))
    return body + str(-total % 10)


@pytest.mark.parametrize("name", DETECTORS)
def test_patterns_are_of_re2_and_capture_nothing(name: str) -> None:
    options = re2.Options()
    options.log_errors = False
    for shape in DETECTORS[name].shapes:
        assert re2.compile(shape.pattern, options).groups == 0
        assert re2.compile(shape.pattern, options).search("") is None


@pytest.mark.parametrize("name", [name for name in DETECTORS if name not in {"secret", "email"}])
def test_every_match_but_of_secrets_and_addresses_has_a_bound(name: str) -> None:
    for shape in DETECTORS[name].shapes:
        outside_classes = re.sub(r"\[[^]]*\]|\\.", "x", shape.pattern)
        assert re.search(r"[*+]|,\}", outside_classes) is None


@pytest.mark.parametrize(
    ("name", "text", "passed"),
    [
        ("email", "連絡先：taro.yamada+x@example.co.jpまで。", "連絡先：[EMAIL_1]まで。"),
        ("email", "ｔａｒｏ＠ｅｘａｍｐｌｅ．ｃｏｍ", "[EMAIL_1]"),
        ("email", "mail taro [at] example [dot] com now", "mail [EMAIL_1] now"),
        ("jp_phone", "携帯は090-1234-5678です", "携帯は[PHONE_1]です"),
        ("jp_phone", "０９０ー１２３４ー５６７８", "[PHONE_1]"),
        ("jp_phone", "電話 (03) 1234-5678、FAX 03(1234)5679", "電話 [PHONE_1]、FAX [PHONE_2]"),
        ("jp_phone", "(045-123-4567)", "([PHONE_1])"),
        ("jp_phone", "+81 90 1234 5678 / +81-(0)3-1234-5678", "[PHONE_1] / [PHONE_2]"),
        ("jp_phone", "0120-123-456と0800-123-4567と01267-2-3456", "[PHONE_1]と[PHONE_2]と[PHONE_3]"),
        ("jp_phone", "08012345678 0312345678", "[PHONE_1] [PHONE_2]"),
        ("phone", "call +1 (415) 555-2671 or 0044 20 7946 0958", "call [PHONE_1] or [PHONE_2]"),
        ("phone", "電話+442079460958。", "電話[PHONE_1]。"),
        ("jp_postal_code", "〒100-0001 東京都、150-0002", "[POSTAL_CODE_1] 東京都、[POSTAL_CODE_2]"),
        ("jp_postal_code", "〒1000001、郵便番号：100 0001", "[POSTAL_CODE_1]、[POSTAL_CODE_2]"),
        ("my_number", "番号は123456789018、1234-5678-9018", "番号は[MY_NUMBER_1]、[MY_NUMBER_1]"),
        ("credit_card", "4111 1111 1111 1111 123", "[CREDIT_CARD_1] 123"),
        ("credit_card", "378282246310005と3782-822463-10005", "[CREDIT_CARD_1]と[CREDIT_CARD_1]"),
        ("credit_card", "3530111333300000, 30569309025904", "[CREDIT_CARD_1], [CREDIT_CARD_2]"),
        ("credit_card", "6011111111111117/5555555555554444", "[CREDIT_CARD_1]/[CREDIT_CARD_2]"),
        ("iban", "DE89 3704 0044 0532 0130 00 bitte, be68539007547034 bank", "[IBAN_1] bitte, [IBAN_2] bank"),
        ("ip_address", "192.168.10.4, 8.8.8.80", "[IP_ADDRESS_1], [IP_ADDRESS_2]"),
        ("ip_address", "2001:db8::1 fe80::1:2", "[IP_ADDRESS_1] [IP_ADDRESS_2]"),
        ("secret", 'password = "tR7!kfm2Qz"; redis://:s3cr4t77@cache', "[SECRET_1]; redis[SECRET_2]cache"),
    ],
)  # fmt: skip
def test_what_is_found_is_masked_and_nothing_around_it(name: str, text: str, passed: str) -> None:
    assert masked(name, text) == passed


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("email", "@taro icon@2x.png git@github.com:a/b lodash@4.17.21 user@localhost"),
        ("jp_phone", "2024-03-12 10:30 0123456789 0.0312345678 1090-1234-5678 090-1234-56789 03-123-4567"),
        ("phone", "+10000000円 1000+20000000 +0900 0012345678901 +1 015 555 2671"),
        ("jp_postal_code", "045-123-4567 123-4567-8901 100-2000円 000-1234 1000001 100-00011"),
        ("my_number", "123456789012 1234567890180 0.123456789018 000000000000 202601020300 4111 1111 1111 1111"),
        ("credit_card", "4111111111111112 1111111111111117 4901234567894 4111-1111-1111-11111"),
        ("iban", "DE89370400440532013001 DE8937040044053201300 ZZ89370400440532013000"),
        ("ip_address", "1.2.3.4 256.1.1.1 1.2.3.4.5 v10.2.30.4 127.0.0.1 255.255.255.0 10:30:45 ace::bad feed::bead ::1"),
        ("secret", "sk-learn-is-a-package-of-many-names sk-xxxxxxxxxxxxxxxxxxxxxxxx AKIAXXXXXXXX password = 'changeme123!A'"),
        ("secret", "-----BEGIN PRIVATE KEY----- is how such a file begins and that is all there is to it"),
        ("secret", "postgres://user:password@host password: str = Field(min_length=8)"),
    ],
)
def test_what_only_looks_like_it_passes(name: str, text: str) -> None:
    assert masked(name, text) == text


@given(st.from_regex(r"\A4[0-9]{14}\Z"), st.integers(0, 15), st.integers(1, 9))
def test_cards_are_found_and_those_with_one_wrong_digit_are_not(body: str, at: int, by: int) -> None:
    card = luhn(body)
    wrong = card[:at] + str((int(card[at]) + by) % 10) + card[at + 1 :]
    assert is_card(card)
    assert finds("credit_card", f"番号{card}です")
    assert not is_card(wrong)


def test_the_check_digit_of_the_ordinance() -> None:
    assert my_number_check_digit("12345678901") == 8


@given(st.from_regex(r"\A[1-9][0-9]{10}\Z"), st.integers(0, 10), st.integers(1, 9))
def test_my_numbers_are_found_and_those_with_one_wrong_digit_hardly_ever(body: str, at: int, by: int) -> None:
    """The remainders 0 and 1 share a check digit: that is the one error it does not see."""
    weights = (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)
    rest = sum(int(digit) * weight for digit, weight in zip(body, weights, strict=True)) % 11
    number = body + str(0 if rest <= 1 else 11 - rest)
    assert is_my_number(number)
    assert finds("my_number", f"{number[:4]}-{number[4:8]}-{number[8:]}")
    changed = (int(body[at]) + by) % 10
    wrong_rest = (rest + (changed - int(body[at])) * weights[at]) % 11
    wrong = body[:at] + str(changed) + number[at + 1 :]
    assert is_my_number(wrong) is (wrong_rest == rest or {wrong_rest, rest} == {0, 1})


@given(st.randoms(use_true_random=False), st.data())
def test_ibans_are_found_and_those_with_one_wrong_digit_are_not(dice: Random, data: st.DataObject) -> None:
    iban = POSITIVES["iban"](dice)
    plain = iban.replace(" ", "")
    assert len(plain) == IBAN_LENGTHS[plain[:2]]
    assert masked("iban", f"to {iban} please") == "to [IBAN_1] please"
    at = data.draw(st.sampled_from([at for at, char in enumerate(plain) if char.isdigit()]))
    by = data.draw(st.integers(1, 9))
    assert not is_iban(plain[:at] + str((int(plain[at]) + by) % 10) + plain[at + 1 :])


@pytest.mark.parametrize("name", DETECTORS)
@given(dice=st.randoms(use_true_random=False))
def test_what_is_made_up_is_found_in_half_and_in_full_width(name: str, dice: Random) -> None:
    text = POSITIVES[name](dice)
    assert finds(name, text)
    assert finds(name, f"前{text.translate(FULL_WIDTH)}後")


def test_our_own_key_with_a_wrong_checksum_is_none() -> None:
    dice = Random(1)
    key = next(text for text in (POSITIVES["secret"](dice) for _ in range(1_000)) if text.startswith("sk-sekisho-"))
    assert masked("secret", key) == "[SECRET_1]"
    assert not finds("secret", key[:-1] + ("A" if key[-1] != "A" else "B"))


def test_a_whole_private_key_is_masked_also_where_its_end_is_missing() -> None:
    lines = "\n".join("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"[:64] for _ in range(50))
    key = f"-----BEGIN RSA PRIVATE KEY-----\n{lines}"
    assert masked("secret", f"a\n{key}\n-----END RSA PRIVATE KEY-----\nb") == "a\n[SECRET_1]\nb"
    assert masked("secret", f"「{key}」") == "「[SECRET_1]」"
