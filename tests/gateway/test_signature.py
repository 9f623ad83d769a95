"""Who signed what, and when."""

import pytest

from gateway.signature import LIFETIME_S, is_signed, sign

NOW_S = 1_795_000_000.0
BODY = b'{"report":"usage"}'


@pytest.mark.parametrize("age_s", [-LIFETIME_S, 0, LIFETIME_S])
def test_signature_holds_for_its_lifetime(age_s: float) -> None:
    assert is_signed(BODY, sign(BODY, now_s=NOW_S - age_s), now_s=NOW_S)


@pytest.mark.parametrize("age_s", [-LIFETIME_S - 2, LIFETIME_S + 2])
def test_signature_ends_with_its_lifetime(age_s: float) -> None:
    assert not is_signed(BODY, sign(BODY, now_s=NOW_S - age_s), now_s=NOW_S)


def test_no_byte_of_what_was_signed_can_change() -> None:
    signed = sign(BODY, now_s=NOW_S)
    for at in range(len(BODY)):
        assert not is_signed(BODY[:at] + b"~" + BODY[at + 1 :], signed, now_s=NOW_S)
    for at in range(len(signed)):
        changed = signed[:at] + ("0" if signed[at] != "0" else "1") + signed[at + 1 :]
        assert not is_signed(BODY, changed, now_s=NOW_S)


def test_digits_do_not_pass_from_moment_to_body() -> None:
    moment, _, mac = sign(b"1", now_s=NOW_S).partition(":")
    assert not is_signed(moment[-1:].encode() + b":1", f"{moment[:-1]}:{mac}", now_s=NOW_S)


@pytest.mark.parametrize("text", ["", ":", "now:abc", "１７９５００００００:" + "0" * 64, "-1:" + "0" * 64, "é", "\ud800"])
def test_junk_is_no_signature(text: str) -> None:
    assert not is_signed(BODY, text, now_s=NOW_S)
