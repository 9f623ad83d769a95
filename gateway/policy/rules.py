"""The rules of a content policy: what they are, and how they are read from a file, a form or a document. Pure.

    {kind: keywords, words: [...]}                       where, action, name: of every kind
    {kind: pattern, pattern: RE2}
    {kind: detector, detector: email | jp_phone | ...}
    {kind: size, max_characters, max_messages, max_images}
    {kind: script, scripts: [han, hiragana, ...]}        those allowed
    {kind: roles, roles: [...]}                          those allowed
    {kind: tools, tools: [...]}                          those allowed
    {kind: judge, alias, timeout_ms, on_failure: open | closed}

Keywords, patterns and detectors may also redact: {action: redact, label: NAME, restore: true}.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, get_args

from gateway.policy.detectors import DETECTORS
from gateway.policy.patterns import PATTERN_MAX_CHARACTERS, PatternRefused, check_pattern
from gateway.policy.problems import Problem
from gateway.policy.scripts import SCRIPTS

Action = Literal["block", "redact", "flag"]
ACTIONS: Final[tuple[str, ...]] = get_args(Action)
Holder = Literal["tenant", "platform"]
HOLDERS: Final[tuple[str, ...]] = get_args(Holder)
Surface = Literal[
    "input.system",
    "input.user",
    "input.assistant",
    "input.tool",
    "input.documents",
    "input.tool_definitions",
    "output.content",
    "output.reasoning",
    "output.tool_arguments",
]
SURFACES: Final[tuple[str, ...]] = get_args(Surface)
INPUT: Final = frozenset(name for name in SURFACES if name.startswith("input."))
OUTPUT: Final = frozenset(SURFACES) - INPUT
SIDES: Final[Mapping[str, frozenset[str]]] = {"input": INPUT, "output": OUTPUT}
ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")

RULES_MAX: Final = 1_000
WORDS_MAX: Final = 50_000
WORD_MAX_CHARACTERS: Final = 200
NAMES_MAX: Final = 1_000
TIMEOUT_MAX_MS: Final = 10_000
TIMEOUT_DEFAULT_MS: Final = 1_000
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_LABEL: Final = re.compile(r"[A-Z][A-Z0-9_]{0,30}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What every rule has. name: unique in its policy; where it was not given, its place there, counted from 1."""

    kind: ClassVar[str]
    name: str
    where: frozenset[str]
    action: Action


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRule(Rule):
    """A rule that finds spans of text. label: what masks are called. restore: the answer shows again what was masked."""

    label: str
    restore: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Keywords(TextRule):
    kind = "keywords"
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern(TextRule):
    kind = "pattern"
    pattern: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector(TextRule):
    kind = "detector"
    detector: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Size(Rule):
    """Of all texts of its surfaces together; None: no bound. In an answer characters alone, of each text by itself."""

    kind = "size"
    max_characters: int | None = None
    max_messages: int | None = None
    max_images: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Script(Rule):
    """Letters of any other script are what it finds."""

    kind = "script"
    scripts: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles(Rule):
    kind = "roles"
    roles: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools(Rule):
    kind = "tools"
    tools: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge(Rule):
    """A guard model that is asked through the gateway. is_open_on_failure: without its answer in time the call goes on."""

    kind = "judge"
    alias: str
    timeout_ms: int = TIMEOUT_DEFAULT_MS
    is_open_on_failure: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """One published version. is_everywhere: it applies to all calls of its tenant, or of the platform, without being named.

    is_readable False: what it says is not known here, so that no call may pass; it has no rules then. holder: whose it is, as
    tenant and platform may each have one of the same name.
    """

    name: str
    version: int
    rules: tuple[Rule, ...]
    is_everywhere: bool = False
    is_readable: bool = True
    holder: Holder = "tenant"


class RulesRefused(ValueError):
    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"rules{problem.path}: {problem.text}" for problem in problems))
        self.problems = tuple(problems)


def parse_rules(data: object, *, is_published: bool = False) -> tuple[Rule, ...]:
    """Rules as they are written, from decoded YAML or JSON. Raises RulesRefused, with all that is wrong.

    is_published: they were read before, so that patterns are not tried again, which takes half a millisecond each.
    """
    if not isinstance(data, list):
        raise RulesRefused([Problem("", "not_a_list")])
    if len(data) > RULES_MAX:
        raise RulesRefused([Problem("", "too_many_rules", {"most": RULES_MAX})])
    problems: list[Problem] = []
    read = ((at, _rule(_Reader(entry, at, problems, is_published))) for at, entry in enumerate(data))
    rules = {at: rule for at, rule in read if rule is not None}
    names: set[str] = set()
    for at, rule in rules.items():
        if rule.name in names:
            problems.append(Problem(f"[{at}].name", "name_taken", {"name": rule.name}))
        names.add(rule.name)
    if problems:
        raise RulesRefused(problems)
    return tuple(rules.values())


class _Reader:
    """One rule as it is written. Each verb reads a field, and files what is wrong with it."""

    def __init__(self, entry: object, at: int, problems: list[Problem], is_published: bool) -> None:
        self.at = at
        self.is_published = is_published
        self._entry: Mapping[str, Any] = entry if isinstance(entry, dict) else {}
        self._problems = problems
        self._known = set[str]()
        self._before = len(problems)
        if not isinstance(entry, dict):
            self.refuse("", "not_a_mapping")

    @property
    def is_sound(self) -> bool:
        return len(self._problems) == self._before

    def refuse(self, name: str, code: str, **facts: str | int) -> None:
        self._problems.append(Problem(f"[{self.at}]" + (f".{name}" if name else ""), code, facts))

    def get(self, name: str) -> Any:
        self._known.add(name)
        return self._entry.get(name)

    def choice(self, name: str, choices: Sequence[str], default: str | None = None) -> str:
        value = self.get(name)
        if value is None and default is not None:
            return default
        if value not in choices:
            self.refuse(name, "not_one_of", choices=", ".join(choices))
            return choices[0]
        return str(value)

    def flag(self, name: str) -> bool:
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            self.refuse(name, "not_a_flag")
        return value is True

    def number(self, name: str, most: int) -> int | None:
        value = self.get(name)
        if value is None or (type(value) is int and 1 <= value <= most):
            return value
        self.refuse(name, "not_a_number", most=most)
        return None

    def text(self, name: str, most: int) -> str:
        value = self.get(name)
        if not isinstance(value, str) or not value or len(value) > most:
            self.refuse(name, "not_a_text", most=most)
            return ""
        return value

    def matching(self, name: str, form: re.Pattern[str], default: str, code: str) -> str:
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, str) or form.fullmatch(value) is None:
            self.refuse(name, code)
            return default
        return value

    def texts(self, name: str, most: int, length: int = WORD_MAX_CHARACTERS) -> tuple[str, ...]:
        value = self.get(name)
        if not isinstance(value, list) or not 1 <= len(value) <= most:
            self.refuse(name, "not_texts", most=most)
            return ()
        for at, text in enumerate(value):
            if not isinstance(text, str) or not text.strip() or len(text) > length:
                self.refuse(f"{name}[{at}]", "not_a_text", most=length)
        return tuple(text for text in value if isinstance(text, str))

    def some_of(self, name: str, choices: Sequence[str]) -> frozenset[str]:
        found = self.texts(name, len(choices))
        for at, text in enumerate(found):
            if text not in choices:
                self.refuse(f"{name}[{at}]", "not_one_of", choices=", ".join(choices))
        return frozenset(found)

    def where(self, allowed: frozenset[str]) -> frozenset[str]:
        value = self.get("where")
        if value is None and allowed <= INPUT:
            return allowed
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not value:
            self.refuse("where", "where_not_a_list", choices=", ".join((*SIDES, *SURFACES)))
            return frozenset()
        found: set[str] = set()
        for at, name in enumerate(value):
            surfaces = SIDES.get(name) or frozenset({name}) if isinstance(name, str) else frozenset()
            if not surfaces or not surfaces <= frozenset(SURFACES):
                self.refuse(f"where[{at}]", "not_one_of", choices=", ".join((*SIDES, *SURFACES)))
            elif not surfaces & allowed:
                self.refuse(f"where[{at}]", "where_not_looked_at", choices=", ".join(sorted(allowed)))
            found |= surfaces & allowed
        return frozenset(found)

    def refuse_unknown(self) -> None:
        for name in self._entry:
            if name not in self._known:
                self.refuse(str(name), "no_such_field", choices=", ".join(sorted(self._known)))


def _rule(reader: _Reader) -> Rule | None:
    if not reader.is_sound:
        return None
    kind = reader.choice("kind", tuple(_KINDS))
    if not reader.is_sound:
        return None
    rule = _KINDS[kind](reader)
    reader.refuse_unknown()
    return rule if reader.is_sound else None


def _common(reader: _Reader, *, allowed: frozenset[str] = INPUT | OUTPUT, redacts: bool = False) -> dict[str, Any]:
    action = reader.choice("action", ACTIONS)
    if action == "redact" and not redacts:
        reader.refuse("action", "no_span_to_redact")
    return {
        "name": reader.matching("name", _NAME, str(reader.at + 1), "bad_name"),
        "where": reader.where(allowed),
        "action": action,
    }


def _spans(reader: _Reader, label: str) -> dict[str, Any]:
    common = _common(reader, redacts=True)
    restore = reader.flag("restore")
    if restore and (common["action"] != "redact" or not common["where"] & INPUT):
        reader.refuse("restore", "nothing_to_restore")
    return {**common, "label": reader.matching("label", _LABEL, label, "bad_label"), "restore": restore}


def _keywords(reader: _Reader) -> Rule:
    return Keywords(words=reader.texts("words", WORDS_MAX), **_spans(reader, "REDACTED"))


def _pattern(reader: _Reader) -> Rule:
    pattern = reader.text("pattern", PATTERN_MAX_CHARACTERS)
    if pattern and not reader.is_published:
        try:
            check_pattern(pattern)
        except PatternRefused as error:
            reader.refuse("pattern", error.code, **error.facts)
    return Pattern(pattern=pattern, **_spans(reader, "REDACTED"))


def _detector(reader: _Reader) -> Rule:
    detector = reader.choice("detector", tuple(DETECTORS))
    return Detector(detector=detector, **_spans(reader, DETECTORS[detector].label))


def _size(reader: _Reader) -> Rule:
    names = ("max_characters", "max_messages", "max_images")
    bounds: dict[str, Any] = {name: reader.number(name, 1_000_000_000) for name in names}
    if reader.is_sound and not any(bounds.values()):
        reader.refuse("", "no_bound")
    common = _common(reader)
    if bounds["max_characters"] is None and not common["where"] & INPUT:
        reader.refuse("where", "answer_has_characters_alone")
    return Size(**bounds, **common)


def _script(reader: _Reader) -> Rule:
    return Script(scripts=reader.some_of("scripts", tuple(SCRIPTS)), **_common(reader))


def _roles(reader: _Reader) -> Rule:
    return Roles(roles=reader.some_of("roles", ROLES), **_common(reader, allowed=INPUT))


def _tools(reader: _Reader) -> Rule:
    return Tools(tools=frozenset(reader.texts("tools", NAMES_MAX)), **_common(reader, allowed=INPUT))


def _judge(reader: _Reader) -> Rule:
    return Judge(
        alias=reader.text("alias", 128),
        timeout_ms=reader.number("timeout_ms", TIMEOUT_MAX_MS) or TIMEOUT_DEFAULT_MS,
        is_open_on_failure=reader.choice("on_failure", ("open", "closed"), "closed") == "open",
        **_common(reader, allowed=INPUT),
    )


_KINDS: Final[Mapping[str, Callable[[_Reader], Rule]]] = {
    "keywords": _keywords,
    "pattern": _pattern,
    "detector": _detector,
    "size": _size,
    "script": _script,
    "roles": _roles,
    "tools": _tools,
    "judge": _judge,
}
KINDS: Final = tuple(_KINDS)
