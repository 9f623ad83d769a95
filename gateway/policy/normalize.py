"""One spelling for texts that read alike, so that rules find them however they are written. Pure.

NFKC, case folded, katakana as hiragana, all digits as ASCII, dashes as "-", letters without accents, Cyrillic and Greek
letters that look Latin as those; what nobody sees is gone. `offsets` leads back to the original.
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import re2

# Default_Ignorable_Code_Point of Unicode 15, and the accents: these come off, but for the voicing marks of kana no others.
# Those beyond the basic plane are looked for by themselves: a class that reaches there takes 100 times as long.
_UNSEEN_BASIC: Final = (
    "\u00ad\u0300-\u036f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
)
_UNSEEN_BEYOND: Final = "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
_UNSEEN_RANGES: Final = _UNSEEN_BASIC + _UNSEEN_BEYOND
_UNSEEN: Final = re.compile(f"[{_UNSEEN_BASIC}]+")
_ALL_UNSEEN: Final = re.compile(f"[{_UNSEEN_RANGES}]+")
_HAS_BEYOND: Final = re.compile(rb"[\xf0-\xf4]")
_LOOK_LATIN: Final = dict(
    zip(
        "авгеіјкмнорѕстухьԁһԛԝαβεικνορτυχϲɑɡıⅼ",
        "abreijkmhopsctyxbdhqwabeiknoptuxcagil",
        strict=True,
    )
)
del _LOOK_LATIN["в"], _LOOK_LATIN["г"], _LOOK_LATIN["к"], _LOOK_LATIN["м"], _LOOK_LATIN["н"], _LOOK_LATIN["т"]
_DASHES: Final = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2043\ufe58"
# Voicing marks that stand by themselves are spaces and marks to NFKC.
_MARKS: Final = str.maketrans({"\u309b": "\u3099", "\u309c": "\u309a"})
_SHORT: Final = 64
_KINDS_MAX: Final = 300
_PIECE: Final = 256
_LAST: Final = 32  # characters at the end of a text that may change by what follows, with all that is unseen


def _folds() -> dict[str, str]:
    folds = {chr(code): chr(code - 0x60) for code in (*range(0x30A1, 0x30F7), 0x30FD, 0x30FE)}
    for code in range(0x80, 0x1F00 + 0x100):
        char = chr(code)
        decomposed = unicodedata.normalize("NFD", char)
        if decomposed[1:] and all("\u0300" <= mark <= "\u036f" for mark in decomposed[1:]):
            folds[char] = decomposed[0]
    digits = (chr(code) for code in range(0x660, 0x1FC00) if unicodedata.category(chr(code)) == "Nd")
    folds |= {char: str(unicodedata.decimal(char)) for char in digits}
    folds |= _LOOK_LATIN | dict.fromkeys(_DASHES, "-")
    # What folds into what folds again, like a letter without its accent: to the end at once.
    folds = {char: folds.get(image.casefold(), image.casefold()) for char, image in folds.items()}
    return {char: image for char, image in folds.items() if unicodedata.normalize("NFKC", char).casefold() == char}


FOLDS: Final = _folds()
_TABLE: Final = str.maketrans(FOLDS)
_ENCODED: Final = {char.encode(): image.encode() for char, image in FOLDS.items()}
_KANA: Final = [pair for pair in FOLDS.items() if "\u30a1" <= pair[0] <= "\u30fe"]


def _finder(ranges: str) -> Any:
    """Over UTF-8, 2 ns a byte; Python's own takes 80 ns a character for classes of this size."""
    options = re2.Options()
    options.log_errors = False
    return re2.compile(f"[{ranges}]".encode(), options)


_HAS_UNSEEN: Final = _finder(_UNSEEN_RANGES)
_HAS_KANA: Final = _finder("\u30a1-\u30fe")
_HAS_OTHERS: Final = _finder("".join(re.escape(char) for char in FOLDS if not "\u30a1" <= char <= "\u30fe"))


def _marks() -> str:
    """What may become one with the character before it, but for accents: marks of scripts, and parts of Hangul."""
    codes = (*range(0x0900, 0x1160), *range(0x1200, 0x1D00), *range(0xA800, 0xAC00))
    marks = [chr(code) for code in codes if unicodedata.category(chr(code)).startswith("M")]
    return "".join(marks) + "\u0653-\u0655\u1161-\u11ff\ud7b0-\ud7ff\u3099\u309a\u309b\u309c\uff9e\uff9f"


_COMPOSING_BASIC: Final = _marks()
_COMPOSING: Final = (
    f"{_COMPOSING_BASIC}\U000110ba\U00011127\U0001133e\U00011357\U000114b0\U000114ba\U000114bd\U000115af\U00011930"
)
_HAS_COMPOSING: Final = _finder(_COMPOSING)
_APART: Final = re.compile(f"[{_UNSEEN_BASIC}{_COMPOSING_BASIC}]+")
_ALL_APART: Final = re.compile(f"[{_UNSEEN_RANGES}{_COMPOSING}]+")
_HAS_COMPOSING_CHAR: Final = re.compile(f"[{_COMPOSING}]")
# A letter that a mark may follow, of these scripts.
_UNSETTLED: Final = re.compile(
    "[\u0627\u0648\u064a\u06c1\u06d2\u06d5\u0900-\u1cff\ua800-\uabff\uac00-\ud7ff\U00011080-\U0001193f]\\Z"
)
_VOICEABLE: Final = re.compile(
    f"[うかきくけこさしすせそたちつてとはひふへほゝウカキクケコサシスセソタチツテトハヒフヘホワヰヱヲヽｳｶ-ﾄﾊ-ﾎﾜｦ][{_UNSEEN_RANGES}]*\\Z"
)


class Normalised:
    """A text, and where its characters come from. Most stand where they stood; else that is found out once it is asked for.

    runs: of characters that stand side by side in both texts, or that one became: where they begin in either, how many there
    are here, and how many they come from.
    """

    __slots__ = ("_length", "_original", "_pieces", "_runs", "_sources", "_starts", "text")

    def __init__(self, text: str, original: str | None = None, runs: "Sequence[Run] | None" = None) -> None:
        self.text = text
        self._original = original
        self._length = len(text) if original is None else len(original)
        self._runs: Sequence[Run] | None = None
        self._pieces: list[Normalised] = []  # of a long text: only those that are asked for are looked into
        if runs is not None:
            self._take(runs)

    def origin(self, at: int) -> int:
        """Where the character `at` comes from, or the end does."""
        if self.is_in_place:
            return at
        if at >= len(self.text):
            return self._length
        runs = self._known()
        if self._pieces:
            piece = bisect_right(self._starts, at) - 1
            return self._sources[piece] + self._pieces[piece].origin(at - self._starts[piece])
        run = runs[bisect_right(self._starts, at) - 1]
        return run.source + (at - run.start if run.is_even else 0)

    def end(self, at: int) -> int:
        """Where in the original what ends before `at` does: behind the whole of a character that became several."""
        if self.is_in_place:
            return at
        runs = self._known()
        if self._pieces:
            piece = bisect_right(self._starts, at - 1) - 1
            return self._sources[piece] + self._pieces[piece].end(at - self._starts[piece])
        run = runs[bisect_right(self._starts, at - 1) - 1]
        return run.source + (at - run.start if run.is_even else run.came_from)

    def position(self, origin: int) -> int:
        """The first character that comes from `origin` or from behind it."""
        if self.is_in_place:
            return origin
        runs = self._known()
        at = bisect_right(self._sources, origin) - 1
        if at < 0:
            return 0
        if self._pieces:
            return self._starts[at] + self._pieces[at].position(origin - self._sources[at])
        run = runs[at]
        if run.is_even:
            return run.start + min(origin - run.source, run.length)
        return run.start if origin == run.source else run.start + run.length

    def without_last(self) -> "Normalised":
        """Less its last character, which stands by itself in the original."""
        cut = Normalised(self.text[:-1], self._original)
        cut._length = self._length - 1
        cut._take(self._known())
        return cut

    @property
    def is_in_place(self) -> bool:
        """Does each character stand where it stood?"""
        return self._original is None and self._runs is None

    def _known(self) -> "Sequence[Run]":
        if self._runs is None:
            original = self._original or ""
            if len(original) > 2 * _PIECE:
                self._take_pieces(original)
            else:
                self._take(list(_runs(original)))
        return self._runs or ()

    def _take_pieces(self, original: str) -> None:
        self._runs, self._starts, self._sources = (), [], []
        start = at = 0
        while at < len(original):
            apart = _ALL_APART.match(original, min(at + _PIECE, len(original)))
            ends = apart.end() if apart else min(at + _PIECE, len(original))
            part = original[at:ends]
            is_long = len(part) > 2 * _PIECE  # a run of marks, or of what nobody sees: it cannot be cut
            piece = Normalised(folded(part), part, list(_runs(part))) if is_long else normalise(part)
            self._starts.append(start)
            self._sources.append(at)
            self._pieces.append(piece)
            start, at = start + len(piece.text), ends

    def _take(self, runs: "Sequence[Run]") -> None:
        self._runs = runs
        self._starts = [run.start for run in runs]
        self._sources = [run.source for run in runs]


class Run(NamedTuple):
    start: int
    source: int
    length: int
    came_from: int

    @property
    def is_even(self) -> bool:
        return self.length == self.came_from


def folded(text: str) -> str:
    return text.lower() if text.isascii() else _steps(text)[-1]


def normalise(text: str) -> Normalised:
    if text.isascii():
        return Normalised(text.lower())
    seen, composed, whole = _steps(text)
    # Nothing vanished, and nothing was composed: characters can only have become more, and they have not.
    if len(whole) == len(text) == len(seen) and (composed == text or not _HAS_COMPOSING.search(text.encode())):
        return Normalised(whole)
    return Normalised(whole, text)


def _steps(text: str) -> tuple[str, str, str]:
    is_long = len(text) > _SHORT
    unseen = _ALL_UNSEEN if _HAS_BEYOND.search(text.encode()) else _UNSEEN
    seen = unseen.sub("", text) if not is_long or _HAS_UNSEEN.search(text.encode()) else text
    if "\u309b" in seen or "\u309c" in seen:
        seen = seen.translate(_MARKS)
    composed = unicodedata.normalize("NFKC", seen)
    cased = composed.casefold()
    # What has come apart may have left an accent: capital I with a dot, say.
    if len(cased) != len(seen) or (composed != seen and _HAS_COMPOSING.search(seen.encode())):
        cased = _UNSEEN.sub("", cased)
    return seen, composed, _fold(cased) if is_long else cased.translate(_TABLE)


def unsettled(text: str) -> bool:
    """May what follows change the last character, in a way that `endings` does not tell?"""
    return _UNSETTLED.search(text[-1:]) is not None


def endings(text: str) -> tuple[str, ...]:
    """How else `text` may turn out to end: a voicing mark may follow, and change its last character."""
    if text.isascii() or (last := _VOICEABLE.search(text[-_LAST:])) is None:
        return ()
    voiced = text + "\u3099"
    return (voiced, text + "\u309a") if last[0][0] in "はひふへほハヒフヘホﾊﾋﾌﾍﾎ" else (voiced,)


def _fold(text: str) -> str:
    """As translate does, which takes 0.18 us a character; replacing all of one kind after the other is quicker."""
    encoded = text.encode()
    if _HAS_KANA.search(encoded):
        for char, image in _KANA:
            text = text.replace(char, image)
        encoded = text.encode()
    at = kinds = 0
    while (match := _HAS_OTHERS.search(encoded, at)) is not None:
        if kinds == _KINDS_MAX:
            return text.translate(_TABLE)
        kinds += 1
        at = match.start()
        encoded = encoded.replace(match[0], _ENCODED[match[0]])
    return encoded.decode() if kinds else text


def _runs(text: str) -> Iterator[Run]:
    """What is unseen is in no run; what may be composed is taken character by character."""
    start = at = 0
    for match in (_ALL_APART if _HAS_BEYOND.search(text.encode()) else _APART).finditer(text):
        has_composing = _HAS_COMPOSING_CHAR.search(match[0]) is not None
        begins = max(at, match.start() - has_composing)
        for run in _even(text, at, begins, start):
            yield run
            start = run.start + run.length
        if has_composing:
            for run in _composed(text, begins, match.end(), start):
                yield run
                start = run.start + run.length
        at = match.end()
    yield from _even(text, at, len(text), start)


def _even(text: str, begins: int, ends: int, start: int) -> Iterator[Run]:
    """Of characters that each become one or more."""
    if begins == ends:
        return
    count = len(folded(text[begins:ends]))
    if count == ends - begins or ends - begins == 1:
        yield Run(start, begins, count, ends - begins)
        return
    middle = (begins + ends) // 2
    for run in (*_even(text, begins, middle, start),):
        yield run
        start = run.start + run.length
    yield from _even(text, middle, ends, start)


def _composed(text: str, begins: int, ends: int, start: int) -> Iterator[Run]:
    source, image, last = begins, folded(text[begins]), begins + 1
    for at in range(begins + 1, ends):
        alone = folded(text[at])
        joined = folded(text[source : at + 1])
        if joined != image + alone:
            image, last = joined, at + 1
        elif alone:
            if image:
                yield Run(start, source, len(image), last - source)
            start, source, image, last = start + len(image), at, alone, at + 1
    if image:
        yield Run(start, source, len(image), last - source)
