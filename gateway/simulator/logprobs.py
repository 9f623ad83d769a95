"""Log probabilities in OpenAI's shape: made up, but the same for the same token, and never above 0. Pure."""

import zlib
from collections.abc import Sequence
from typing import Any

from gateway.simulator import tokens


def of(pieces: Sequence[str], top: int, *, as_ids: bool) -> dict[str, Any]:
    """The `logprobs` member for generated tokens. top: alternatives of each; the first of them is the token itself."""
    return {"content": [_token(piece, top, as_ids=as_ids) for piece in pieces]}


def _token(piece: str, top: int, *, as_ids: bool) -> dict[str, Any]:
    chance = -(zlib.crc32(piece.encode()) % 3000 + 1) / 1024
    others = [(chr(97 + (zlib.crc32(piece.encode()) + k) % 26), chance - k / 2) for k in range(1, top)]
    alternatives = [(piece, chance), *others][:top]
    entry = _entry(piece, chance, as_ids=as_ids)
    entry["bytes"] = list(piece.encode())  # of the text, though the token is shown as an id (recorded)
    return entry | {"top_logprobs": [_entry(p, value, as_ids=as_ids) for p, value in alternatives]}


def _entry(piece: str, chance: float, *, as_ids: bool) -> dict[str, Any]:
    shown = f"token_id:{tokens.token_id(piece)}" if as_ids else piece
    return {"token": shown, "logprob": chance, "bytes": list(shown.encode())}
