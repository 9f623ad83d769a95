"""Prefix affinity: calls that begin alike go to one backend, whose cache then holds what they begin with. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from math import log
from typing import Any, Final

import orjson

# Calls that share so much, 128 tokens or so, share blocks of a prefix cache, whatever follows: a system prompt, say.
BEGINNING_MAX_CHARS: Final = 512
_DIGEST_BYTES: Final = 16


def beginning(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None) -> bytes:
    """A digest of how a conversation begins: its tools, and what it says up to the end of its first user message.

    So it is the same in each of its turns; of long ones the first BEGINNING_MAX_CHARS count, so that many may share it.
    messages, tools: as the backend gets them. 16 bytes, from which no text can be read back.
    """
    words = "".join(_words(messages)).encode(errors="surrogatepass")
    return blake2b(orjson.dumps(tools) + words if tools else words, digest_size=_DIGEST_BYTES).digest()


def _words(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """What of them counts: roles and texts, told apart by what comes before them."""
    words = []
    left = BEGINNING_MAX_CHARS
    for message in messages:
        role, content = str(message.get("role")), message.get("content")
        words.append("\0\0" + role)
        for text in (content,) if type(content) is str else _texts(content):
            words.append("\0" + text[:left])
            left -= len(text)
            if left <= 0:
                return words
        if role == "user":
            break
    return words


def draw(tenant_id: str, prefix_digest: bytes, backend: str) -> float:
    """The lot of a backend for a beginning, between 0 and 1: everywhere the same, and of other backends independent.

    By the tenant too: no cache is shared between tenants.
    """
    key = b"\0".join((tenant_id.encode(), backend.encode(), prefix_digest))
    return (int.from_bytes(blake2b(key, digest_size=8).digest(), "big") + 0.5) / 2**64


def place(lot: float, weight: int) -> float:
    """Of backends with these, each has the lowest place with a chance of its weight (weighted rendezvous hashing)."""
    return -log(lot) / weight


def _texts(content: Any) -> Iterator[str]:
    """The words of a message, and where its images and sounds are, or these themselves."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, str):
                yield part
                continue
            yield from (value for value in part.values() if isinstance(value, str))
            yield from (text for value in part.values() if isinstance(value, dict) for text in _texts([value]))
