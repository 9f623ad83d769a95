"""The text of an API key: how it is made, recognised, looked up and compared. Pure: no Django, no I/O.

    sk-sekisho-AAAAAAAAAAAASSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSCCCCCC
               lookup id   secret                          CRC-32 of all before it, base 62

The CRC lets a gateway, and a secret scanner, refuse junk without asking anyone. A key that was imported from elsewhere
has no such form; it is found by an HMAC of its whole text instead.
"""

import hmac
import re
import secrets
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

PREFIX: Final = "sk-sekisho-"
LOOKUP_LENGTH: Final = 12
SECRET_LENGTH: Final = 32  # base 62: 190 bits
CHECKSUM_LENGTH: Final = 6  # 62 ** 6 > 2 ** 32
ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

# Published for secret scanners (accounts/README.md): what matches and whose CRC is right is a Sekisho key.
PATTERN: Final = re.compile(r"sk-sekisho-[0-9A-Za-z]{50}", re.ASCII)
_IMPORTED: Final = re.compile(r"[\x21-\x7e]{20,512}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Pepper:
    """A secret of the installation, kept outside the database; `id` is stored beside each digest made with it."""

    id: str
    secret: bytes = field(repr=False)


def peppers(ring: Iterable[tuple[str, str]]) -> tuple[Pepper, ...]:
    """The keyring of the settings (`id`, text) as peppers; the first is the current one."""
    return tuple(Pepper(pepper_id, text.encode()) for pepper_id, text in ring)


def mint() -> str:
    """A new key text, from the system's randomness."""
    body = PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(LOOKUP_LENGTH + SECRET_LENGTH))
    return body + _checksum(body)


def is_minted(text: str) -> bool:
    """Has `text` the published form and a right CRC? False for junk, and for keys imported from elsewhere."""
    if PATTERN.fullmatch(text) is None:
        return False
    return text[-CHECKSUM_LENGTH:] == _checksum(text[:-CHECKSUM_LENGTH])


def is_importable(text: str) -> bool:
    """May `text` be taken over as a key? Visible ASCII of 20 to 512 characters; with our prefix, only with a right CRC."""
    if text.startswith(PREFIX):
        return is_minted(text)
    return _IMPORTED.fullmatch(text) is not None


def hint(text: str) -> str:
    """Enough to recognise a key by, and no help in guessing it: the start of a minted one, and the last four characters."""
    start = text[: len(PREFIX) + 4] if is_minted(text) else ""
    return f"{start}…{text[-4:]}"


def lookup_id(text: str, pepper: Pepper) -> str:
    """The public name under which a key is found: part of a minted key, an HMAC of an imported one."""
    if text.startswith(PREFIX):
        return text[len(PREFIX) : len(PREFIX) + LOOKUP_LENGTH]
    return "x" + _hmac(pepper, "lookup:" + text)[:24]


def digest(text: str, pepper: Pepper) -> str:
    """What is kept of a key: HMAC-SHA-256 under a pepper, as 64 hex digits.

    Not argon2: a key has 190 bits, so that guessing is hopeless, and a slow hash on each call would be a way to
    stop the gateway. The pepper makes a stolen table useless and an inserted row powerless.
    """
    return _hmac(pepper, text)


def matches(text: str, *, stored_digest: str, pepper_id: str, ring: Sequence[Pepper]) -> bool:
    """Is `stored_digest` that of `text`? Compared in constant time; False when the pepper has left the ring."""
    for pepper in ring:
        if pepper.id == pepper_id:
            return hmac.compare_digest(digest(text, pepper), stored_digest)
    return False


def _hmac(pepper: Pepper, text: str) -> str:
    return hmac.digest(pepper.secret, text.encode("utf-8", "surrogatepass"), "sha256").hex()


def _checksum(body: str) -> str:
    value = zlib.crc32(body.encode("ascii"))
    digits = ""
    for _ in range(CHECKSUM_LENGTH):
        value, rest = divmod(value, 62)
        digits = ALPHABET[rest] + digits
    return digits
