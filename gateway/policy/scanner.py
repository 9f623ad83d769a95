"""Scanner: reads one text in pieces, as it comes, and says what of it may pass by now. Pure.

What it lets pass, all pieces together, is what it would let pass of the whole text at once. It holds back what a match may
have begun with, and nothing else: a match is judged when no text that could follow would change it.

    tail:  |-- context, gone out --|-- held back --|-- new piece --|
                                   ^ open          ^ live: where the first match may have begun that is not over

Offsets of matches and decisions are in the whole text.
"""

import re
from bisect import insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import orjson

from gateway.policy.decisions import Decision, decision
from gateway.policy.escapes import Unescaped
from gateway.policy.masks import Masks
from gateway.policy.normalize import Normalised, endings, folded, normalise, unsettled
from gateway.policy.rules import Script, Size, TextRule
from gateway.policy.ruleset import Matcher, PatternFinder, Source
from gateway.policy.scripts import find_other
from gateway.policy.spacing import closed_up, may_close_up, other_endings

SLICE_CHARACTERS: Final = 16_384
DECISIONS_MAX: Final = 1_000
_ARGUMENTS: Final = "output.tool_arguments"
_NUMBER: Final = re.compile(r"[0-9eE+.-]+")
_QUOTE_OR_ESCAPE: Final = re.compile(r'(?s)\\.|"')
_LETTERS: Final = 6  # so far back a space may stand that goes by what comes: with the letter before it and its edge
_CONTEXT: Final = 16  # what stands before decides over edges of words, spaced letters, and marks that come late


@dataclass(frozen=True, slots=True)
class Judgement:
    """text: what may pass, masked where it had to be, and up to where it is blocked. blocked: by what, None: it is not."""

    text: str
    blocked: Decision | None
    decisions: tuple[Decision, ...]


class _Match(NamedTuple):
    """source None: a mask that is to be restored."""

    start: int
    end: int
    source: Source | None

    @property
    def action(self) -> str:
        return self.source.rule.action if self.source else "restore"


class Scanner:
    """One text. feed() its pieces, then end(); nothing passes any more once it is blocked."""

    __slots__ = (
        "_base", "_is_bare", "_is_in_string", "_judged", "_masked", "_masks", "_matcher", "_next", "_open", "_reads_escapes",
        "_size", "_spans", "_surface", "_tail", "_told", "blocked", "decisions",
    )  # fmt: skip

    def __init__(self, matcher: Matcher, masks: Masks, surface: str) -> None:
        self._matcher = matcher
        self._reads_escapes = surface == _ARGUMENTS
        self._is_in_string = False
        self._is_bare = not matcher.sizes and not matcher.scripts
        self._masks = masks
        self._surface = surface
        self._tail = ""
        self._base = 0  # where the tail begins
        self._open = 0  # in the tail: what stands before has passed
        self._judged = 0  # up to here every match that begins is known
        self._next: dict[int, int] = {}  # finder -> where its next match may begin, where that is later
        self._spans: list[_Match] = []  # to mask or restore, behind what has passed
        self._masked: list[tuple[int, int]] = []
        self._size = 0
        self._told: set[Source] = set()  # rules that speak once
        self.blocked: Decision | None = None
        self.decisions: list[Decision] = []

    @property
    def held(self) -> int:
        """Characters that are held back."""
        return len(self._tail) - self._open

    @property
    def size(self) -> int:
        """Characters that have come."""
        return self._size

    @property
    def passed(self) -> int:
        """Characters that have passed, as they came."""
        return self._base + self._open

    def masked(self, start: int, end: int) -> bool:
        """Is any of these characters masked?"""
        return any(first < end and start < last for first, last in self._masked)

    def feed(self, text: str) -> str:
        """What may pass now."""
        if self.blocked is not None or not text:
            return ""
        if self._is_bare and not self._spans and not (self._reads_escapes and "\\" in self._tail + text):
            if self._open == len(self._tail) and not self._matcher.spans.may_begin_in(text):
                return self._passed_on(self._tail + text, len(self._tail) + len(text), len(text))
            tail = self._tail + text
            if tail.isascii() and (live := self._clear_to(tail.lower(), self._open)) is not None:
                return self._passed_on(tail, live, len(text))
        return self._scan(text, is_last=False)

    def end(self, text: str = "") -> str:
        """What may pass of the rest. text: the last piece."""
        return self._scan(text, is_last=True) if self.blocked is None else ""

    def _passed_on(self, tail: str, live: int, added: int) -> str:
        """What passes where nothing is to be masked: the short way of _pass."""
        shown = tail[self._open : live]
        self._follow(shown)
        self._size += added
        self._judged = self._base + live
        dropped = live - _CONTEXT
        if dropped > 0:
            self._tail = tail[dropped:]
            self._base += dropped
            self._open = _CONTEXT
        else:
            self._tail = tail
            self._open = live
        return shown

    def _scan(self, text: str, *, is_last: bool) -> str:
        broken_off: tuple[Source, int, int | None] | None = None
        if self._matcher.sizes or self._matcher.scripts:
            broken_off = self._judge_piece(text)
            if broken_off is not None:
                text, is_last = text[: broken_off[1] - self._size], True
        self._size += len(text)
        tail = self._tail = self._tail + text
        seen = Unescaped(tail) if self._reads_escapes and "\\" in tail else normalise(tail)
        live = None if self._spans else self._clear(tail, seen)
        if live is None:
            encoded = seen.text.encode()
            live = len(tail) if is_last else max(self._open, self._live(tail, seen, encoded))
            self._judge(self._found(seen, encoded, live), live)
        elif is_last:
            live = len(tail)
        if broken_off is not None and self.blocked is None:
            self._decide(*broken_off)
        self._judged = max(self._judged, self._base + live)
        return self._pass(live, seen)

    def _clear(self, tail: str, seen: Normalised) -> int | None:
        """Where what may have begun stands, if there is nothing else, and no doubt; most of the time it is so."""
        if isinstance(seen, Unescaped):
            return None
        if not tail.isascii() and (unsettled(tail) or (self._matcher.sees_kana and endings(tail))):
            return None
        # What was passed already may be looked at again: where it stands exactly is dear to find out.
        start = self._open if seen.is_in_place else max(0, len(folded(tail[: self._open])) - 1)
        live = self._clear_to(seen.text, start)
        if live is None or seen.is_in_place:
            return live
        return len(tail) if live == len(seen.text) else None

    def _clear_to(self, text: str, start: int) -> int | None:
        """In normalised text from `start` on; None where more must be known."""
        matcher = self._matcher
        live = len(text)
        if matcher.keywords is not None:
            if may_close_up(text[max(0, start - _LETTERS) :]) or matcher.keywords.finds_any(text, start):
                return None
            live = matcher.keywords.begun(text, start)
        if matcher.patterns is not None:
            encoded = text.encode()
            begun = matcher.patterns.begun_alone(encoded, _byte(encoded, text, start))
            if begun is None:
                return None
            if begun < len(encoded):
                live = min(live, _character(encoded, text, begun))
        return live

    def _live(self, tail: str, seen: Normalised, encoded: bytes) -> int:
        """Where in the tail what is still open to change begins."""
        if isinstance(seen, Unescaped):
            whole = seen if seen.unfinished == len(tail) else Unescaped(tail[: seen.unfinished])
            return min(self._begun(whole, whole.text.encode()), seen.unfinished, self._settled(whole))
        live = self._begun(seen, encoded)
        if unsettled(tail):
            live = min(live, len(tail) - 1)
        if self._matcher.sees_kana and (others := endings(tail)):
            live = min(live, self._begun(seen, encoded, or_whole=True))
            for other in others:
                changed = normalise(other)
                live = min(live, self._begun(changed, changed.text.encode(), or_whole=True))
        return live

    def _settled(self, seen: Unescaped) -> int:
        """Where the last character stands, if what follows may change it: it is held then, whatever it may become."""
        read = seen.read
        return seen.origin(len(seen.text) - 1) if seen.text and (unsettled(read) or endings(read)) else len(self._tail)

    def _begun(self, seen: Normalised, encoded: bytes, *, or_whole: bool = False) -> int:
        matcher, text = self._matcher, seen.text
        at, found = seen.position(self._open), len(text)
        if matcher.patterns is not None:
            found = _character(encoded, text, matcher.patterns.begun(encoded, _byte(encoded, text, at), or_whole=or_whole))
        if matcher.keywords is not None:
            variants = other_endings(text)
            for close in (closed_up(text), *variants):
                begun = matcher.keywords.begun(close.text, close.position(at), or_whole=or_whole or bool(variants))
                if begun < len(close.text):
                    found = min(found, close.origin(begun))
        return min(seen.origin(found), len(self._tail))

    def _found(self, seen: Normalised, encoded: bytes, live: int) -> list[_Match]:
        """The matches that begin before `live` and were not known yet, in order."""
        start = max(self._open, self._judged - self._base)
        if start >= live:
            return []
        found = [*self._keywords_found(seen, start, live)]
        if self._matcher.patterns is not None:
            found += self._patterns_found(self._matcher.patterns, seen, encoded, start, live)
        return sorted(found, key=lambda match: (match.start, -match.end))

    def _keywords_found(self, seen: Normalised, start: int, live: int) -> Iterator[_Match]:
        keywords = self._matcher.keywords
        if keywords is None:
            return
        close = closed_up(seen.text)
        for first, last, sources in keywords.find(close.text, close.position(seen.position(start))):
            begins = seen.origin(close.origin(first))
            if start <= begins < live:
                ends = seen.end(close.end(last))
                yield from (_Match(self._base + begins, self._base + ends, source) for source in sources)

    def _patterns_found(
        self, patterns: PatternFinder, seen: Normalised, encoded: bytes, start: int, live: int
    ) -> Iterator[_Match]:
        first = _byte(encoded, seen.text, seen.position(start))
        for finder in patterns.present(encoded, first):
            at = first
            if (later := self._next.pop(id(finder), 0) - self._base) > start:
                at = _byte(encoded, seen.text, seen.position(later))
            known_bytes = known = 0  # characters up to a byte, counted on from the last match
            while (match := finder.finds.search(encoded, at)) is not None:
                at = match.end()
                begins_at = known + _count(encoded, seen.text, known_bytes, match.start())
                ends_at = begins_at + _count(encoded, seen.text, match.start(), at)
                known_bytes, known = at, ends_at
                begins, ends = seen.origin(begins_at), seen.end(ends_at)
                if begins >= live:
                    break
                if ends > live:
                    self._next[id(finder)] = self._base + ends
                if begins >= start and (finder.check is None or finder.check(self._tail[begins:ends])):
                    yield _Match(self._base + begins, self._base + ends, finder.source)

    def _judge(self, matches: list[_Match], live: int) -> None:
        for match in matches:
            if match.source is None:
                if self._masks.original(folded(self._text(match))) is not None:
                    insort(self._spans, match, key=_order)
                continue
            self._decide(match.source, match.start, match.end)
            if match.action == "redact":
                insort(self._spans, match, key=_order)
            elif match.action == "block":
                self._block(match.start)
                return

    def _judge_piece(self, text: str) -> tuple[Source, int, int | None] | None:
        """Rules that look at no spans: how long it grows, and which letters it has. The first that blocks, with its offsets."""
        found: list[tuple[Source, int, int | None]] = []
        for source in self._matcher.sizes:
            most = source.rule.max_characters if isinstance(source.rule, Size) else None
            if most is not None and self._size + len(text) > most:
                found.append((source, most, None))
        for source in self._matcher.scripts:
            other = find_other(text, source.rule.scripts) if isinstance(source.rule, Script) else None
            if other is not None:
                at = self._size + other[0]
                found.append((source, at, at + 1))
        first = min((one for one in found if one[0].rule.action == "block"), key=lambda one: one[1], default=None)
        for one in found:
            if one[0].rule.action == "flag" and one[0] not in self._told and (first is None or one[1] < first[1]):
                self._told.add(one[0])
                self._decide(*one)
        return first

    def _decide(self, source: Source, start: int, end: int | None) -> None:
        made = decision(source, self._surface, start, end)
        if len(self.decisions) < DECISIONS_MAX or made.action == "block":  # a record may lack flags, never why it ended
            self.decisions.append(made)
        if made.action == "block" and self.blocked is None:
            self.blocked = made
            self.decisions = [one for one in self.decisions if (one.start or 0) <= start]  # nobody reads further

    def _block(self, at: int) -> None:
        """Nothing from `at` on ever passes, and nothing of a span that reaches there."""
        self._tail = self._tail[: max(0, at - self._base)]

    def _pass(self, live: int, seen: Normalised) -> str:
        """What of the tail may go out, with its spans masked; the rest is held."""
        tail = self._tail
        limit = min(live, len(tail))
        out: list[str] = []
        at = self._open
        while self._spans and self._spans[0].start - self._base < limit:
            first = self._spans[0]
            start, end, count = first.start - self._base, first.end - self._base, 1
            while count < len(self._spans) and self._spans[count].start - self._base < end:
                end = max(end, self._spans[count].end - self._base)
                count += 1
            if end > limit:  # what overlaps it may not have begun yet; or it reaches into what is blocked
                limit = start
                break
            self._follow(tail[at:start])
            shown = self._shown(self._spans[:count], tail[start:end])
            self._follow(tail[start:end])
            del self._spans[:count]
            out += [tail[at:start], shown]
            self._masked.append((first.start, self._base + end))
            at = end
        out.append(tail[at:limit])
        self._follow(tail[at:limit])
        dropped = max(0, limit - _CONTEXT)
        if isinstance(seen, Unescaped):  # half an escape would be read as something else
            dropped = seen.boundary(dropped)
        self._tail, self._base, self._open = tail[dropped:], self._base + dropped, limit - dropped
        return "".join(out)

    def _follow(self, text: str) -> None:
        """Where in a JSON text what comes next stands: in a string, or outside of any, as numbers do."""
        if self._reads_escapes and '"' in text:
            quotes = _QUOTE_OR_ESCAPE.findall(text).count('"')
            self._is_in_string ^= quotes % 2 == 1

    def _shown(self, spans: list[_Match], original: str) -> str:
        redacted = [span.source.rule for span in spans if span.source is not None]
        if not redacted:
            restored = self._masks.original(folded(original)) or original
            return _in_json(restored) if self._reads_escapes else restored
        rule = redacted[0]
        if not isinstance(rule, TextRule):
            raise TypeError(rule.kind)
        mask = self._masks.mask(rule.label, original, alike=folded(original), restore=rule.restore)
        is_number = self._reads_escapes and not self._is_in_string and _NUMBER.fullmatch(original) is not None
        return f'"{mask}"' if is_number else mask

    def _text(self, match: _Match) -> str:
        return self._tail[match.start - self._base : match.end - self._base]


def judge_text(
    matcher: Matcher, text: str, masks: Masks, *, surface: str, pause: Callable[[], None] = lambda: None
) -> Judgement:
    """A whole text. pause: called between slices of a long one, so that others get their turn."""
    scanner = Scanner(matcher, masks, surface)
    passed, at = [], 0
    # What is held back is read again with each slice: these grow with it, so that no text is read more than a few times.
    while len(text) - at > (length := max(SLICE_CHARACTERS, scanner.held)):
        passed.append(scanner.feed(text[at : at + length]))
        at += length
        pause()
    passed.append(scanner.end(text[at:]))
    return Judgement("".join(passed), scanner.blocked, tuple(scanner.decisions))


def _in_json(text: str) -> str:
    return orjson.dumps(text).decode()[1:-1]


def _order(match: _Match) -> tuple[int, int]:
    return match.start, -match.end


def _byte(encoded: bytes, text: str, at: int) -> int:
    return at if len(encoded) == len(text) else len(text[:at].encode())


def _character(encoded: bytes, text: str, at: int) -> int:
    return at if len(encoded) == len(text) else len(encoded[:at].decode())


def _count(encoded: bytes, text: str, start: int, end: int) -> int:
    """Characters between two bytes."""
    return end - start if len(encoded) == len(text) else len(encoded[start:end].decode())
