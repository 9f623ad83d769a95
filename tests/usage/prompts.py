"""Made-up prompts as organisations send them, and a tokenizer that counts them about as real vocabularies do."""

import argparse
import base64
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from zlib import crc32

import orjson

WORDS = re.findall(
    r"\w+",
    """the of and to in a is that for it with as was on be by this are from or have an they which one you were all her she
    there would their we him been has when who will no more if out so what up said about than into them can only other
    system request quarterly revenue specification however understanding implementation customers approximately results
    between government configuration temperature management particularly international analysis summary paragraph""",
)
JAPANESE = re.findall(
    r"\S+",
    """です ます こと これ それ ため よる について および または の は を に が で と も から まで した する され ている
    ください 会議 資料 要約 顧客 契約 売上 報告書 以下 文章 日本語 翻訳 設定 環境 計算 研究 開発 利用者 管理 東京
    大学 情報 処理 確認 データ モデル システム サーバー ユーザー プロジェクト 、 、 。""",
)
CODE = Path(argparse.__file__).read_text().splitlines()


def english(dice: random.Random, words: int) -> str:
    text = []
    for at in range(words):
        word = dice.choice(WORDS)
        text.append(word.capitalize() if at % 14 == 0 else word)
        if at % 14 == 13:
            text[-1] += "."
        if dice.random() < 0.01:
            text.append(str(dice.randrange(10_000)))
    return " ".join(text)


def japanese(dice: random.Random, words: int) -> str:
    return "".join(dice.choice(JAPANESE) for _ in range(words))


def mixed(dice: random.Random, words: int) -> str:
    """Japanese with product names and figures in it."""
    return "".join(
        f" {dice.choice(WORDS)} {dice.randrange(1000)} " if dice.random() < 0.15 else dice.choice(JAPANESE)
        for _ in range(words)
    )


def code(dice: random.Random, words: int) -> str:
    """Lines of a real module."""
    count = words // 6 + 1
    first = dice.randrange(max(1, len(CODE) - count))
    return "\n".join(CODE[first : first + count])


def blob(dice: random.Random, words: int) -> str:
    return base64.b64encode(dice.randbytes(words * 4)).decode()


TEXTS: dict[str, Callable[[random.Random, int], str]] = {
    "english": english,
    "japanese": japanese,
    "mixed": mixed,
    "code": code,
    "base64": blob,
}


@dataclass(frozen=True)
class Asked:
    kind: str
    body: bytes
    messages: list[dict[str, str]]


def ask(dice: random.Random, kind: str | None = None, *, words: int | None = None) -> Asked:
    """A conversation of one to nine messages; lengths as in use: many short ones, few of many thousand words."""
    kind = kind or dice.choices(list(TEXTS), (40, 35, 10, 10, 5))[0]
    length = words or int(min(8_000, dice.lognormvariate(5, 1.3))) + 1
    count = dice.choice((1, 2, 2, 3, 5, 9))
    messages = [
        {"role": "user" if at % 2 else "system", "content": TEXTS[kind](dice, max(1, length // count))} for at in range(count)
    ]
    return Asked(kind, orjson.dumps({"model": "general", "messages": messages, "temperature": 0.2, "stream": True}), messages)


@dataclass(frozen=True)
class Tokenizer:
    """kana, kanji: tokens a character. digits: how many make one token. template: what it adds to every prompt."""

    kana: float
    kanji: float
    digits: int
    template: int

    _PIECES = re.compile(r" ?[A-Za-z]+|\d+|[぀-ヿ、。]+|[一-龥]+| ?[^\sA-Za-z\d]{1,2}|\s+")

    def count(self, messages: list[dict[str, str]]) -> int:
        return self.template + sum(4 + self.tokens(message["content"]) for message in messages)

    def tokens(self, text: str) -> int:
        return sum(self._piece(piece) for piece in self._PIECES.findall(text))

    def _piece(self, piece: str) -> int:
        word = piece.strip()
        if word.isascii() and word.isalpha():
            if not (word.islower() or word.isupper() or word.istitle()):
                return ceil(len(word) / 2)
            return 1 + (len(word) > 6 and crc32(word.encode()) % 2)
        if word.isdigit():
            return ceil(len(word) / self.digits)
        if not word or word.isascii():
            return 1
        rate = self.kana if word[0] < "一" else self.kanji
        return ceil(len(word) * rate)


# Two ends of what is in use: a western vocabulary of 128k entries, and one made with Japanese in mind.
WESTERN = Tokenizer(kana=0.9, kanji=1.3, digits=3, template=36)
JAPANESE_AWARE = Tokenizer(kana=0.55, kanji=0.75, digits=1, template=10)
