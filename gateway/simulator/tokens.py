"""The stand-in's tokenizer and chat template: a token is at most four UTF-8 bytes, and its id is those bytes. Pure.

No table is needed to go from ids back to text, and every count (usage, /tokenize, the length of a stream) is the same one.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

START: Final = "<|im_start|>"
END: Final = "<|im_end|>"
# Also in a user's own text, as Hugging Face tokenizers do.
_PIECE = re.compile(r"<\|im_start\|>|<\|im_end\|>| [A-Za-z0-9]{1,3}|[A-Za-z0-9]{1,4}|.", re.DOTALL)
_SPECIAL_IDS: Final = {START: 1, END: 2}
_SPECIAL_PIECES: Final = {token_id: piece for piece, token_id in _SPECIAL_IDS.items()}
_FIRST_ID: Final = 3


def split(text: str) -> list[str]:
    """The tokens of `text`; joined, they are `text` again."""
    return _PIECE.findall(text)


def count(text: str) -> int:
    return len(_PIECE.findall(text))


def token_id(piece: str) -> int:
    return _SPECIAL_IDS.get(piece) or _FIRST_ID + int.from_bytes(piece.encode()[:4], "big")


def decode(ids: Iterable[int]) -> str:
    """Ids back to text. Ids that no text has become the replacement character, as in vLLM."""
    return "".join(_SPECIAL_PIECES.get(i) or _piece(i) for i in ids)


def _piece(number: int) -> str:
    value = max(0, number - _FIRST_ID)
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big").decode("utf-8", "replace")


def shown(piece: str) -> str:
    """A token as `return_token_strs` shows it: byte-level BPE writes a space as Ġ and a line end as Ċ."""
    return piece.replace(" ", "Ġ").replace("\n", "Ċ")


def content_text(content: object) -> str:
    """A message's content, be it a string, a list of parts or null, as one text."""
    if isinstance(content, list):
        return "\n".join(str(p.get("text", "")) if isinstance(p, Mapping) else str(p) for p in content)
    return content if isinstance(content, str) else ""


def chat_prompt(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> str:
    """The conversation as the model sees it (the ChatML template of the recordings), ready for the answer."""
    parts = [f"{START}system\n{orjson.dumps(tools).decode()}{END}\n"] if tools else []
    for message in messages:
        calls = message.get("tool_calls")
        called = orjson.dumps(calls).decode() if calls else ""
        parts.append(f"{START}{message.get('role')}\n{content_text(message.get('content'))}{called}{END}\n")
    parts.append(f"{START}assistant\n")
    return "".join(parts)
