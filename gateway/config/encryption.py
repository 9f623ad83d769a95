"""Encryption of backend credentials: Fernet under the keys of settings.FIELD_KEYS; a ciphertext begins with its key's id.

    k1:gAAAAABm...

The first key encrypts, all of them decrypt, so a key is changed by putting a new one in front of the old.
"""

import base64
import binascii
from functools import cache

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


def encrypt(text: str) -> str:
    """`text` under the current key."""
    key_id, _ = settings.FIELD_KEYS[0]
    return f"{key_id}:{_fernets(settings.FIELD_KEYS)[key_id].encrypt(text.encode()).decode()}"


def decrypt(ciphertext: str) -> str:
    """What encrypt() was given. Raises ValueError when its key is not in the settings, or the ciphertext is damaged."""
    key_id, _, token = ciphertext.partition(":")
    fernet = _fernets(settings.FIELD_KEYS).get(key_id)
    if fernet is None:
        raise ValueError(f"A credential is encrypted under the field key {key_id!r}, which SEKISHO_FIELD_KEYS does not hold.")
    try:
        return fernet.decrypt(token.encode()).decode()
    except InvalidToken:
        raise ValueError(f"A credential cannot be decrypted with the field key {key_id!r}: it is damaged.") from None


@cache
def _fernets(ring: tuple[tuple[str, str], ...]) -> dict[str, Fernet]:
    return {key_id: Fernet(_urlsafe(key_id, text)) for key_id, text in ring}


def _urlsafe(key_id: str, text: str) -> bytes:
    """A Fernet key as the library wants it; plain base64, and base64 without its padding, are accepted."""
    try:
        key = base64.urlsafe_b64decode(text.translate(str.maketrans("+/", "-_")) + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 32:
        raise ImproperlyConfigured(f"SEKISHO_FIELD_KEYS: {key_id} must be 32 bytes in base64.")
    return base64.urlsafe_b64encode(key)
