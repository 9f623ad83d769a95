"""Prefix affinity: calls that begin alike go to one backend, whose cache then holds what they begin with. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any


def beginning(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None) -> bytes:
    """A digest of how a conversation begins, for Facts.prefix_digest: the same in each of its turns.

    messages, tools: as the backend gets them. 16 bytes, from which no text can be read back.
    """
    return b""
