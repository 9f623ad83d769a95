"""What the simulated model says: a few sentences in English and Japanese, cycled to the length that was asked for. Pure.

Which sentences, and how many, follows from prompt and seed alone, so that the same call has the same answer everywhere.
"""

import re
import zlib
from functools import lru_cache
from typing import Final

from gateway.simulator import tokens

_JAPANESE: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uff66-\uff9f]")
NATURAL_MIN_TOKENS: Final = 40
NATURAL_MAX_TOKENS: Final = 120

_OPENING: Final = {
    "en": "Thank you for your message.",
    "ja": "お問い合わせありがとうございます。",
}
_SENTENCES: Final = {
    "en": (
        " I am a simulated model, so please read this answer as a sample of how a real one would arrive.",
        " Each word reaches you as soon as it is generated, so you can start reading at once.",
        " A gateway checks every request at the door, much like a barrier station on an old highway.",
        " Your key decides which models you may use and how much you may use them.",
        " The tokens of your question and of this answer are counted and shown in the portal.",
        " If you need a shorter answer, set a limit on the number of output tokens.",
        " You can also send the whole conversation again, and it will be continued from there.",
        " When a server is busy, your request waits in a queue or is sent to another one.",
        " Nothing you write here is kept in a log.",
        " Please feel free to ask another question whenever you like.",
    ),
    "ja": (
        "これはシミュレーターによる応答の見本です。",
        "文章は生成された順に、少しずつ届きます。",
        "ゲートウェイは関所のように、すべてのリクエストを入口で確認します。",
        "利用できるモデルと利用量は、お使いのキーごとに決まっています。",
        "質問と回答のトークン数は、管理画面でいつでも確認できます。",
        "短い回答が必要な場合は、出力トークン数の上限を指定してください。",
        "会話の履歴をそのまま送ると、続きから回答します。",
        "サーバーが混み合っているときは、順番待ちになるか、別のサーバーに送られます。",
        "入力した内容がログに残ることはありません。",
        "ほかにも知りたいことがあれば、お気軽にお尋ねください。",
    ),
}


def language(prompt: str) -> str:
    return "ja" if _JAPANESE.search(prompt) else "en"


def dice(prompt: str, seed: int) -> int:
    """A number that looks thrown and is the same for the same prompt and seed."""
    return zlib.crc32(f"{seed}\0{prompt}".encode())


def natural(prompt: str, seed: int) -> tuple[str, ...]:
    """An answer of whole sentences, about 40 to 120 tokens, that ends of its own accord."""
    thrown = dice(prompt, seed)
    target = NATURAL_MIN_TOKENS + thrown % (NATURAL_MAX_TOKENS - NATURAL_MIN_TOKENS - 30)
    return _whole_sentences(language(prompt), thrown >> 8, target)


def exactly(prompt: str, seed: int, length_tokens: int) -> tuple[str, ...]:
    """An answer of `length_tokens` tokens, in the middle of a sentence if need be."""
    return _cycled(language(prompt), (dice(prompt, seed) >> 8) % 10, length_tokens)


@lru_cache(4096)
def _whole_sentences(tongue: str, start: int, target_tokens: int) -> tuple[str, ...]:
    sentences = _SENTENCES[tongue]
    pieces = tokens.split(_OPENING[tongue])
    while len(pieces) < target_tokens:
        pieces += tokens.split(sentences[start % len(sentences)])
        start += 1
    return tuple(pieces)


@lru_cache(256)
def _cycled(tongue: str, start: int, length_tokens: int) -> tuple[str, ...]:
    sentences = _SENTENCES[tongue]
    cycle = tokens.split("".join(sentences[start:] + sentences[:start]))
    pieces = tokens.split(_OPENING[tongue]) + cycle * (length_tokens // len(cycle) + 1)
    return tuple(pieces[:length_tokens])
