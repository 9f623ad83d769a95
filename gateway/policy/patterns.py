"""Patterns as people write them, made ready for normalised text; and, for streams, what could still become a match. Pure.

A pattern is taken apart as far as its structure goes: what matches one character stays as it is written. From that two
patterns are made. One finds what the pattern finds, in normalised text. The other finds, at the end of a text, what a match
may begin with: of `AB+C` the texts A, AB, ABB, but not ABBC, which is done. Syntax: github.com/google/re2/wiki/Syntax.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import re2

from gateway.policy.normalize import FOLDS, folded
from gateway.policy.problems import sentence

PATTERN_MAX_CHARACTERS: Final = 2_000
PROGRAM_MAX: Final = 50_000  # instructions; a counted repetition holds its part as often as it counts
_DEPTH_MAX: Final = 100
_RANGE_MAX: Final = 3_000  # characters of a range that are folded one by one; of longer ones those that are known to fold
_EMPTY: Final = "(?:)"


class PatternRefused(ValueError):
    """For whoever wrote the pattern: a code of problems.SENTENCES, its facts, and as text the sentence."""

    def __init__(self, code: str, **facts: str | int) -> None:
        super().__init__(sentence(code, facts))
        self.code = code
        self.facts = facts


class Prepared(NamedTuple):
    """finds: RE2 for normalised text. begins: what a match may begin with, but is none yet; None: nothing is. first: a
    character that a match may begin with.
    """

    finds: str
    begins: str | None
    first: str


def compiled(pattern: str) -> Any:
    """For bytes. Raises re2.error."""
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.case_sensitive = False
    return re2.compile(pattern.encode(), options)


def check_pattern(pattern: str) -> None:
    """Raises PatternRefused for what cannot be used, with the reason."""
    try:
        found = compiled(pattern)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error.args[0])
        raise PatternRefused("pattern_refused", reason=reason) from None
    prepared = prepare(pattern)
    try:
        sizes = [found.programsize, *(compiled(part).programsize for part in prepared if part is not None)]
    except re2.error:
        sizes = [PROGRAM_MAX + 1]
    if max(sizes) > PROGRAM_MAX:
        raise PatternRefused("pattern_too_large")


def prepare(pattern: str) -> Prepared:
    """Raises PatternRefused."""
    node = _Parser(pattern).whole()
    first = node.first()
    if first.is_optional:
        raise PatternRefused("pattern_matches_nothing")
    return Prepared(node.source(), node.begins(), f"(?:{'|'.join(dict.fromkeys(first.sources))})")


class _First(NamedTuple):
    """What one character a match may begin with; is_optional: it may also be empty."""

    sources: tuple[str, ...]
    is_optional: bool


@dataclass(frozen=True, slots=True)
class _One:
    """Matches one character, or several that one became."""

    text: str

    def source(self) -> str:
        return self.text

    def first(self) -> _First:
        return _First((self.text,), is_optional=False)

    def begins(self) -> str | None:
        return _EMPTY


@dataclass(frozen=True, slots=True)
class _Several:
    """The characters that one became, each of which may be the last of what is there."""

    chars: tuple[str, ...]

    def source(self) -> str:
        return "".join(map(_literal, self.chars))

    def first(self) -> _First:
        return _First((_literal(self.chars[0]),), is_optional=False)

    def begins(self) -> str | None:
        return _sequence_begins([_One(_literal(char)) for char in self.chars])


@dataclass(frozen=True, slots=True)
class _Edge:
    """Matches between characters. What comes next decides, unless it looks back."""

    text: str
    looks_ahead: bool

    def source(self) -> str:
        return self.text

    def first(self) -> _First:
        return _First((), is_optional=True)

    def begins(self) -> str | None:
        return _EMPTY if self.looks_ahead else None


@dataclass(frozen=True, slots=True)
class _Sequence:
    parts: Sequence["_Node"]

    def source(self) -> str:
        return "".join(part.source() for part in self.parts)

    def first(self) -> _First:
        sources: list[str] = []
        for part in self.parts:
            first = part.first()
            sources += first.sources
            if not first.is_optional:
                return _First(tuple(sources), is_optional=False)
        return _First(tuple(sources), is_optional=True)

    def begins(self) -> str | None:
        return _sequence_begins(self.parts)


@dataclass(frozen=True, slots=True)
class _Choice:
    parts: Sequence["_Node"]

    def source(self) -> str:
        return f"(?:{'|'.join(part.source() for part in self.parts)})"

    def first(self) -> _First:
        firsts = [part.first() for part in self.parts]
        sources = [source for first in firsts for source in first.sources]
        return _First(tuple(sources), any(first.is_optional for first in firsts))

    def begins(self) -> str | None:
        return _any([part.begins() for part in self.parts])


@dataclass(frozen=True, slots=True)
class _Repeat:
    part: "_Node"
    least: int
    most: int | None
    suffix: str

    def source(self) -> str:
        return f"(?:{self.part.source()}){_count(self.least, self.most)}{self.suffix}"

    def first(self) -> _First:
        first = self.part.first()
        return _First(first.sources, first.is_optional or self.least == 0)

    def begins(self) -> str | None:
        begun = self.part.begins()
        if begun is None or self.most == 0:
            return None
        before = None if self.most is None else self.most - 1
        return f"(?:{self.part.source()}){_count(0, before)}{begun}" if before != 0 else begun


_Node = _One | _Several | _Edge | _Sequence | _Choice | _Repeat


def _sequence_begins(parts: Sequence["_Node"]) -> str | None:
    """Of ABC what A begins with, or A and what B begins with, or A, B and what C begins with: each part stands twice."""
    begun: str | None = None
    for part in reversed(parts):
        begun = _any([part.begins(), None if begun is None else part.source() + begun])
    return begun


def _any(choices: Sequence[str | None]) -> str | None:
    found = [choice for choice in choices if choice is not None]
    return f"(?:{'|'.join(found)})" if found else None


def _count(least: int, most: int | None) -> str:
    return f"{{{least},{'' if most is None else most}}}"


def _literal(char: str) -> str:
    return char if char.isalnum() or ord(char) > 0x7F else f"\\x{{{ord(char):x}}}"


class _Flags(NamedTuple):
    """As RE2 has them. i is always set."""

    m: bool = False
    s: bool = False
    U: bool = False

    def wrap(self, text: str) -> str:
        names = "".join(name for name in "ms" if getattr(self, name))
        return f"(?{names}:{text})" if names else text


_QUANTIFIER: Final = re.compile(r"(?:(?P<sign>[*+?])|\{(?P<least>\d{1,4})(?P<comma>,(?P<most>\d{1,4})?)?\})(?P<lazy>\??)")
_GROUP: Final = re.compile(r"\((?:\?(?:P?<[^>]+>|(?P<flags>[imsU]*(?:-[imsU]+)?)(?P<end>[:)])))?")
_CLASS_ESCAPE: Final = re.compile(r"\\(?:[dDsSwW]|[pP](?:\{\^?\w+\}|\w))")
_CODE: Final = re.compile(r"\\(?:x\{([0-9A-Fa-f]{1,6})\}|x([0-9A-Fa-f]{2})|([0-7]{1,3}))")
_POSIX: Final = re.compile(r"\[:\^?\w+:\]")
_CONTROL: Final = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}
_EDGES: Final = {"\\A": False, "\\z": True, "\\b": True, "\\B": True}


class _Parser:
    """Of what RE2 has accepted: what is not understood here is refused, never guessed."""

    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._at = 0
        self._depth = 0

    def whole(self) -> "_Node":
        node = self._choice(_Flags())
        if self._at != len(self._text):
            raise self._refused()
        return node

    def _refused(self) -> PatternRefused:
        return PatternRefused("pattern_not_understood", place=self._at + 1)

    def _next_is(self, text: str) -> bool:
        return self._text.startswith(text, self._at)

    def _take(self, form: re.Pattern[str]) -> re.Match[str] | None:
        match = form.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
        return match

    def _choice(self, flags: _Flags) -> "_Node":
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise PatternRefused("pattern_too_deep")
        parts: list[_Node] = []
        sequence: list[_Node] = []
        while self._at < len(self._text) and not self._next_is(")"):
            if self._next_is("|"):
                self._at += 1
                parts.append(_Sequence(tuple(sequence)))
                sequence = []
                continue
            flags = self._item(sequence, flags)
        parts.append(_Sequence(tuple(sequence)))
        self._depth -= 1
        return parts[0] if len(parts) == 1 else _Choice(tuple(parts))

    def _item(self, sequence: list["_Node"], flags: _Flags) -> _Flags:
        """Append what comes next; the flags from there on."""
        if self._next_is("\\Q"):
            self._quoted(sequence)
        elif self._next_is("("):
            group = self._take(_GROUP)
            if group is None:
                raise self._refused()
            inner = _changed(flags, group["flags"] or "")
            if group["end"] == ")":
                return inner
            node = self._choice(inner)
            if not self._next_is(")"):
                raise self._refused()
            self._at += 1
            sequence.append(node)
        else:
            sequence.append(self._atom(flags))
        self._repeats(sequence, flags)
        return flags

    def _quoted(self, sequence: list["_Node"]) -> None:
        end = self._text.find("\\E", self._at)
        quoted = self._text[self._at + 2 : None if end < 0 else end]
        sequence += [_char(char) for char in quoted]
        self._at = len(self._text) if end < 0 else end + 2

    def _repeats(self, sequence: list["_Node"], flags: _Flags) -> None:
        while sequence and (found := self._take(_QUANTIFIER)) is not None:
            if found["sign"]:
                least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[found["sign"]]
            else:
                least = int(found["least"])
                most = least if not found["comma"] else int(found["most"]) if found["most"] else None
            is_lazy = bool(found["lazy"]) != flags.U
            sequence.append(_Repeat(sequence.pop(), least, most, "?" if is_lazy else ""))

    def _atom(self, flags: _Flags) -> "_Node":
        char = self._text[self._at]
        if char == "[":
            return self._class()
        if char == "\\":
            return self._escape(flags)
        self._at += 1
        if char == ".":
            return _One(flags.wrap("."))
        if char in "^$":
            return _Edge(flags.wrap(char), looks_ahead=char == "$")
        return _char(char)

    def _escape(self, flags: _Flags) -> "_Node":
        for text, looks_ahead in _EDGES.items():
            if self._next_is(text):
                self._at += len(text)
                return _Edge(text, looks_ahead=looks_ahead)
        if (known := self._take(_CLASS_ESCAPE)) is not None:
            return _One(f"[{_class_source(known[0])}]")
        return _char(self._escaped_char())

    def _escaped_char(self) -> str:
        if (code := self._take(_CODE)) is not None:
            hexadecimal, octal = code[1] or code[2], code[3]
            return chr(int(hexadecimal, 16) if hexadecimal else int(octal, 8))
        char = self._text[self._at + 1 : self._at + 2]
        if char in _CONTROL:
            self._at += 2
            return _CONTROL[char]
        if not char or (char.isalnum() and char.isascii()):  # \C, a byte, is among them
            raise self._refused()
        self._at += 2
        return char

    def _class(self) -> "_Node":
        """A class, and what the characters in it become. Those that become several stay what they are."""
        self._at += 1
        is_negated = self._next_is("^")
        self._at += is_negated
        items: list[str] = []
        images: set[str] = set()
        is_first = True
        while is_first or not self._next_is("]"):
            is_first = False
            if self._at >= len(self._text):
                raise self._refused()
            if (known := self._take(_CLASS_ESCAPE) or self._take(_POSIX)) is not None:
                items.append(_class_source(known[0]))
                continue
            first = last = self._class_char()
            if self._next_is("-") and not self._next_is("-]"):
                self._at += 1
                last = self._class_char()
            items.append(_in_class(first) if first == last else f"{_in_class(first)}-{_in_class(last)}")
            images.update(_images(first, last))
        self._at += 1
        items += map(_in_class, sorted(images))
        return _One(f"[{'^' if is_negated else ''}{''.join(items)}]")

    def _class_char(self) -> str:
        if self._next_is("\\"):
            return self._escaped_char()
        char = self._text[self._at]
        self._at += 1
        return char


def _changed(flags: _Flags, told: str) -> _Flags:
    on, _, off = told.partition("-")
    return flags._replace(**{name: True for name in on if name in "msU"}, **{name: False for name in off if name in "msU"})


def _char(char: str) -> "_Node":
    image = folded(char) or char
    return _One(_literal(image)) if len(image) == 1 else _Several(tuple(image))


def _class_source(text: str) -> str:
    """Of classes by name those that hold what normalised text has instead: hiragana for katakana, small letters."""
    if text in {"\\p{Katakana}", "\\p{Hiragana}"}:
        return "\\p{Hiragana}\\p{Katakana}"
    return "\\p{Lu}\\p{Ll}" if text in {"\\p{Lu}", "\\p{Lt}"} else text


def _in_class(char: str) -> str:
    return f"\\x{{{ord(char):x}}}"


def _images(first: str, last: str) -> Iterator[str]:
    if ord(last) - ord(first) < _RANGE_MAX:
        chars: Any = map(chr, range(ord(first), ord(last) + 1))
    else:
        chars = (char for char in FOLDS if first <= char <= last)
    for char in chars:
        image = folded(char)
        if len(image) == 1 and image != char:
            yield image
