"""A set of policies, compiled: for each surface the automata that find what its rules look for. Pure.

Keywords are one Aho-Corasick automaton. Patterns and detectors are RE2: one program for all of them tells that there is
nothing, which is what it is asked most of the time.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import ahocorasick
import re2

from gateway.policy import patterns
from gateway.policy.detectors import DETECTORS
from gateway.policy.masks import MASK_PATTERN
from gateway.policy.normalize import endings, folded, unsettled
from gateway.policy.rules import OUTPUT, SURFACES, Detector, Holder, Keywords, Pattern, Policy, Rule, Script, Size, TextRule
from gateway.policy.spacing import closed_up

_MEMORY_MAX_BYTES: Final = 256 * 1024 * 1024  # of an automaton of all patterns together; it takes what it needs
_KEPT: Final = 256


@dataclass(frozen=True, slots=True)
class Source:
    """A rule, and the version of the policy that it is part of."""

    policy: str
    version: int
    rule: Rule
    holder: Holder = "tenant"


@dataclass(frozen=True, slots=True)
class Finder:
    """One pattern. check: is what it found, as it was written, what it looks for? source None: it finds masks to restore."""

    finds: Any
    check: Callable[[str], bool] | None
    source: Source | None


class KeywordFinder:
    """words: normalised and closed up -> whose they are."""

    __slots__ = ("_automaton", "_kept_prefixes", "_words", "longest")

    def __init__(self, words: Mapping[str, tuple[Source, ...]]) -> None:
        self._words = words
        self._kept_prefixes: frozenset[str] | None = None
        self.longest = max(map(len, words))
        self._automaton = ahocorasick.Automaton()
        for word, sources in words.items():
            self._automaton.add_word(word, (len(word), sources))
        self._automaton.make_automaton()

    @property
    def _prefixes(self) -> frozenset[str]:
        """Made when they are first asked for, by a stream or a long text."""
        if self._kept_prefixes is None:
            self._kept_prefixes = frozenset(word[:end] for word in self._words for end in range(1, len(word)))
        return self._kept_prefixes

    def find(self, text: str, start: int) -> Iterator[tuple[int, int, tuple[Source, ...]]]:
        """Each occurrence from `start` on, by its end."""
        for last, (length, sources) in self._automaton.iter(text, start):
            yield last + 1 - length, last + 1, sources

    def finds_any(self, text: str, start: int) -> bool:
        return next(self._automaton.iter(text, start), None) is not None

    def begun(self, text: str, start: int, *, or_whole: bool = False) -> int:
        """Where the longest beginning of a word stands that `text` ends with, from `start` on; its length, if there is none."""
        prefixes = self._prefixes if self._kept_prefixes is None else self._kept_prefixes
        end = len(text)
        for at in range(max(start, end - self.longest), end):
            rest = text[at:]
            if rest in prefixes or (or_whole and rest in self._words):
                return at
        return end


class PatternFinder:
    __slots__ = ("_all", "_begun", "_begun_or_whole", "_either", "_whole", "finders")

    def __init__(self, finders: Sequence[Finder], sources: Sequence[patterns.Prepared]) -> None:
        self.finders = finders
        whole = "|".join(f"(?:{source.finds})" for source in sources)
        begun = "|".join(source.begins for source in sources if source.begins is not None) or "(?:)"
        self._whole = _compiled(whole)
        self._begun = _compiled(f"(?:{begun})\\z")
        self._begun_or_whole = _compiled(f"(?:{begun}|{whole})\\z")
        self._either = _compiled(f"{whole}|(?:{begun})\\z")
        self._all = re2.Set.SearchSet(_options())
        for source in sources:
            self._all.Add(source.finds)
        self._all.Compile()

    def begun_alone(self, encoded: bytes, start: int) -> int | None:
        """As `begun` where nothing whole is there from `start` on; None where something is."""
        match = self._either.search(encoded, start)
        if match is None or match.start() == len(encoded):
            return len(encoded)
        return self.begun(encoded, start) if self._whole.search(encoded, start) is None else None

    def begun(self, encoded: bytes, start: int, *, or_whole: bool = False) -> int:
        """Where the first begins that `encoded` ends in; its length, if there is none."""
        match = (self._begun_or_whole if or_whole else self._begun).search(encoded, start)
        return len(encoded) if match is None else match.start()

    def present(self, encoded: bytes, start: int) -> Iterable[Finder]:
        """Those that find anything; where the set cannot tell, for want of memory, it may be any of them."""
        if self._whole.search(encoded, start) is None:
            return ()
        told = self._all.Match(encoded)
        return [self.finders[at] for at in sorted(told)] if told else self.finders


class Spans:
    """What the rules that find spans look for. sees_kana: voicing marks may matter to it."""

    __slots__ = ("_begins", "_firsts", "_known_begins", "_never_begins", "keywords", "patterns", "sees_kana")

    def __init__(self, sources: Sequence[Source], *, restores: bool) -> None:
        words: dict[str, tuple[Source, ...]] = {}
        finders: list[Finder] = []
        prepared: list[patterns.Prepared] = []

        def add(pattern: str, check: Callable[[str], bool] | None, source: Source | None) -> None:
            prepared.append(patterns.prepare(pattern))
            finders.append(Finder(_compiled(prepared[-1].finds), check, source))

        for source in sources:
            match source.rule:
                case Keywords(words=texts):
                    for word in dict.fromkeys(closed_up(folded(text)).text.strip() for text in texts):
                        if word:
                            words[word] = (*words.get(word, ()), source)
                case Pattern(pattern=pattern):
                    add(pattern, None, source)
                case Detector(detector=name):
                    for shape in DETECTORS[name].shapes:
                        add(shape.pattern, shape.check, source)
        if restores:
            add(MASK_PATTERN, None, None)
        self.keywords = KeywordFinder(words) if words else None
        self.patterns = PatternFinder(finders, prepared) if finders else None
        self.sees_kana = not all(text.isascii() for text in (*words, *(pattern.finds for pattern in prepared)))
        self._firsts = frozenset(word[0] for word in words)
        self._begins = _compiled("|".join(pattern.first for pattern in prepared)) if prepared else None
        self._known_begins: set[str] = set()  # characters, as they are written, that were asked for
        self._never_begins: set[str] = set()

    def may_begin_in(self, text: str) -> bool:
        """Has `text` a character that anything looked for may begin with, by itself or with a mark that follows?"""
        if not self._known_begins.isdisjoint(text):
            return True
        if not self._never_begins.issuperset(text):
            for char in set(text):
                (self._known_begins if self._may_begin_with(char) else self._never_begins).add(char)
            return not self._known_begins.isdisjoint(text)
        return False

    def _may_begin_with(self, char: str) -> bool:
        if unsettled(char):
            return True
        for image in (folded(char), *map(folded, endings(char))):
            if not self._firsts.isdisjoint(image) or (self._begins is not None and self._begins.search(image.encode())):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Matcher:
    """What is looked for on one surface. sizes, scripts: rules that look at no spans; of an answer, whose text grows."""

    spans: Spans
    keywords: KeywordFinder | None
    patterns: PatternFinder | None
    sees_kana: bool
    sizes: tuple[Source, ...] = ()
    scripts: tuple[Source, ...] = ()


class RuleSet:
    """whole: rules that judge a request as a whole, or by more than its spans; in order."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.sources = tuple(
            Source(policy.name, policy.version, rule, policy.holder) for policy in policies for rule in policy.rules
        )
        self.whole = tuple(source for source in self.sources if not isinstance(source.rule, TextRule))
        self._restores = any(isinstance(source.rule, TextRule) and source.rule.restore for source in self.sources)
        self._spans: dict[tuple[bool, tuple[Source, ...]], Spans] = {}  # most surfaces have the same
        self._surfaces = {surface: self._matcher(surface) for surface in SURFACES}

    def on(self, surface: str) -> Matcher | None:
        """None: nothing looks there."""
        return self._surfaces[surface]

    @property
    def looks_at_output(self) -> bool:
        return any(self._surfaces[surface] is not None for surface in OUTPUT)

    def _matcher(self, surface: str) -> Matcher | None:
        sources = [source for source in self.sources if surface in source.rule.where]
        spans = tuple(source for source in sources if isinstance(source.rule, TextRule))
        is_output = surface in OUTPUT
        sizes = tuple(source for source in sources if is_output and isinstance(source.rule, Size))
        scripts = tuple(source for source in sources if is_output and isinstance(source.rule, Script))
        key = is_output and self._restores, spans
        if not any((spans, sizes, scripts, key[0])):
            return None
        if key not in self._spans:
            self._spans[key] = Spans(spans, restores=key[0])
        found = self._spans[key]
        return Matcher(found, found.keywords, found.patterns, found.sees_kana, sizes, scripts)


_latest: OrderedDict[tuple[int, ...], tuple[tuple[Policy, ...], RuleSet]] = OrderedDict()


def kept(policies: tuple[Policy, ...]) -> RuleSet | None:
    """What `compiled` would return at once."""
    found = _latest.get(tuple(map(id, policies)))
    return None if found is None else found[1]


def compiled(policies: tuple[Policy, ...]) -> RuleSet:
    """Takes tenths of a second for thousands of words. Raises PatternRefused.

    Kept for objects that are asked for again: to compare all their words would cost more than most calls.
    """
    key = tuple(map(id, policies))
    found = _latest.get(key)
    if found is None:
        found = _latest[key] = policies, _of_equal(policies)
        while len(_latest) > _KEPT:
            _latest.popitem(last=False)
    return found[1]


@lru_cache(maxsize=_KEPT)
def _of_equal(policies: tuple[Policy, ...]) -> RuleSet:
    """A tenant whose limits change comes with new objects for its old policies."""
    return RuleSet(policies)


def _options() -> Any:
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.case_sensitive = False
    options.max_mem = _MEMORY_MAX_BYTES
    return options


def _compiled(pattern: str) -> Any:
    try:
        return re2.compile(pattern.encode(), _options())
    except re2.error as error:
        raise patterns.PatternRefused("patterns_too_large") from error
