"""Credentials at rest."""

import base64
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

from gateway.config.encryption import decrypt, encrypt

KEY = b"0123456789abcdef0123456789\xff\xfe\xfd\xfc\xfb\xfa"


def test_ciphertext_names_its_key_and_hides_the_text(settings: Any) -> None:
    settings.FIELD_KEYS = (("k2", Fernet.generate_key().decode()),)
    ciphertext = encrypt("backend-credential")
    assert ciphertext.startswith("k2:gAAAA")
    assert "backend-credential" not in ciphertext
    assert decrypt(ciphertext) == "backend-credential"
    assert encrypt("backend-credential") != ciphertext


def test_older_key_still_decrypts_and_the_first_encrypts(settings: Any) -> None:
    old, new = (("k1", Fernet.generate_key().decode()),), (("k2", Fernet.generate_key().decode()),)
    settings.FIELD_KEYS = old
    ciphertext = encrypt("秘密")
    settings.FIELD_KEYS = new + old
    assert decrypt(ciphertext) == "秘密"
    assert encrypt("秘密").startswith("k2:")
    settings.FIELD_KEYS = new
    with pytest.raises(ValueError, match="'k1'"):
        decrypt(ciphertext)


def test_damaged_ciphertext_is_refused(settings: Any) -> None:
    ciphertext = encrypt("backend-credential")
    other = "B" if ciphertext[30] == "A" else "A"
    for damaged in (ciphertext[:30] + other + ciphertext[31:], ciphertext.partition(":")[2], "", "t1:", "t1:短"):
        with pytest.raises(ValueError, match="credential"):
            decrypt(damaged)


@pytest.mark.parametrize(
    "spelling",
    [
        base64.urlsafe_b64encode(KEY),
        base64.b64encode(KEY),
        base64.b64encode(KEY).rstrip(b"="),
        base64.urlsafe_b64encode(KEY)[:-1],
    ],
)
def test_any_base64_of_the_key_is_the_same_key(settings: Any, spelling: bytes) -> None:
    settings.FIELD_KEYS = (("k1", base64.urlsafe_b64encode(KEY).decode()),)
    ciphertext = encrypt("text")
    settings.FIELD_KEYS = (("k1", spelling.decode()),)
    assert decrypt(ciphertext) == "text"


@pytest.mark.parametrize("wrong", ["short", "A" * 60, "!" * 44, "日本"])
def test_wrong_key_is_told_without_its_value(settings: Any, wrong: str) -> None:
    settings.FIELD_KEYS = (("k1", wrong),)
    with pytest.raises(ImproperlyConfigured) as caught:
        encrypt("text")
    assert "k1" in str(caught.value)
    assert wrong not in str(caught.value)
