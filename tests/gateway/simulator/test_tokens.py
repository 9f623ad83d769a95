"""Text and tokens are the same thing, there and back."""

import pytest

from gateway.simulator import tokens

TEXTS = ["", "Hello, world", "a  b\n\tc", "日本語のテスト", "🌍 émigré \u0000 end", "<|im_start|>user"]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_and_ids_read_back_as_the_text(text: str) -> None:
    pieces = tokens.split(text)
    assert "".join(pieces) == text
    assert tokens.decode(tokens.token_id(p) for p in pieces) == text
    assert tokens.count(text) == len(pieces)


def test_a_token_is_at_most_four_bytes() -> None:
    assert max(len(p.encode()) for p in tokens.split("incomprehensibilities 日本 12345678")) == 4


def test_unknown_ids_become_the_replacement_character() -> None:
    assert tokens.decode([0xFF + 3, -5]) == "\ufffd\x00"


def test_a_conversation_ends_where_the_answer_begins() -> None:
    prompt = tokens.chat_prompt([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}])
    assert prompt == "<|im_start|>user\na\nb<|im_end|>\n<|im_start|>assistant\n"
