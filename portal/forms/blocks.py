"""Rules of a policy as blocks of a form: one form a rule, each with the fields of its kind. What may stand there
gateway/policy/rules.py alone decides; here rules become fields and fields become rules, and nothing is lost on the way.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import yaml
from django import forms
from django.core.exceptions import BadRequest
from django.http import QueryDict
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from gateway.policy.detectors import DETECTORS
from gateway.policy.problems import Problem
from gateway.policy.rules import ACTIONS, ROLES, SIDES, SURFACES, TIMEOUT_DEFAULT_MS
from gateway.policy.scripts import SCRIPTS
from portal import wording

BLOCKS_MAX: Final = 50  # each has up to 30 fields, of the 1,000 that a request may have, and of 10 as a rule
TEXT: Final = "text"  # a rule that no block can show
_PLAIN: Final = {"spellcheck": "false", "autocomplete": "off"}
_CODE: Final = {**_PLAIN, "class": "code", "rows": 4}
_PATH: Final = re.compile(r"\[(?P<at>\d+)\](?:\.(?P<name>[^\[]+))?(?:\[(?P<inner>\d+)\])?")
_DEFAULTS: Final = {"restore": False, "on_failure": "closed", "timeout_ms": TIMEOUT_DEFAULT_MS}
_IN_ANY_ORDER: Final = ("where", "scripts", "roles", "tools")


class _Told:
    """A field of a rule. rule_from: what the rule says, None where it says nothing; shown: what the form begins with."""

    def rule_from(self, value: Any) -> Any:
        return value or None

    def shown(self, value: Any) -> Any:
        return value


class Line(_Told, forms.CharField):
    def __init__(self, label: Any, help_text: Any = "", **attrs: str) -> None:
        widget = forms.TextInput(attrs={**_PLAIN, **attrs})
        super().__init__(label=label, help_text=help_text, required=False, strip=False, widget=widget)


class Lines(_Told, forms.CharField):
    """One text a line."""

    def __init__(self, label: Any, help_text: Any = "") -> None:
        super().__init__(label=label, help_text=help_text, required=False, strip=False, widget=forms.Textarea(attrs=_CODE))

    def rule_from(self, value: Any) -> Any:
        return [line for line in str(value).replace("\r\n", "\n").split("\n") if line.strip()] or None

    def shown(self, value: Any) -> Any:
        return "\n".join(map(str, value)) if isinstance(value, list) else value


class Number(_Told, forms.CharField):
    def __init__(self, label: Any, help_text: Any = "") -> None:
        widget = forms.TextInput(attrs={"inputmode": "numeric", "autocomplete": "off"})
        super().__init__(label=label, help_text=help_text, required=False, widget=widget)

    def rule_from(self, value: Any) -> Any:
        digits = re.sub(r"[,_\s]", "", str(value))
        return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 12 else value or None


class Flag(_Told, forms.BooleanField):
    def __init__(self, label: Any, help_text: Any = "") -> None:
        super().__init__(label=label, help_text=help_text, required=False)


class One(_Told, forms.ChoiceField):
    """The engine says what may be chosen: it is asked anyway, and has the words for it."""

    def __init__(self, label: Any, choices: Sequence[tuple[str, Any]], help_text: Any = "") -> None:
        super().__init__(label=label, choices=choices, help_text=help_text, required=False)

    def validate(self, value: Any) -> None:
        """See above."""


class Some(_Told, forms.MultipleChoiceField):
    def __init__(self, label: Any, choices: Sequence[tuple[str, Any]], help_text: Any = "") -> None:
        widget = forms.CheckboxSelectMultiple
        super().__init__(label=label, choices=choices, help_text=help_text, required=False, widget=widget)

    def validate(self, value: Any) -> None:
        """As of One."""

    def shown(self, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


def _named(words: Mapping[str, Promise], names: Sequence[str]) -> list[tuple[str, Any]]:
    return [(name, words.get(name, name)) for name in names]


class Block(forms.Form):
    """One rule. Its own fields come first, then those of every rule."""

    kind: ClassVar[str]
    ends_with: ClassVar[tuple[str, ...]] = ("where", "action", "label", "restore", "name")
    use_required_attribute = False
    focus = ""

    where = Some(gettext_lazy("Where"), _named(wording.SURFACES, (*SIDES, *SURFACES)))
    action = One(gettext_lazy("What is done"), _named(wording.ACTIONS, ACTIONS))
    name = Line(gettext_lazy("Name"), gettext_lazy("What reports and records call it. Empty: its place in the list."))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.order_fields([name for name in self.fields if name not in self.ends_with] + list(self.ends_with))

    @property
    def title(self) -> Any:
        return wording.KINDS[self.kind]

    @property
    def own(self) -> list[Any]:
        """The fields that say what it looks for."""
        return [self[name] for name in self.fields if name not in self.ends_with]

    @property
    def sides(self) -> list[Any]:
        """Of `where`: all of the input, all of the answer."""
        return [choice for choice in self["where"] if str(choice.data["value"]) in SIDES]

    @property
    def parts(self) -> list[Any]:
        return [choice for choice in self["where"] if str(choice.data["value"]) not in SIDES]

    @property
    def has_parts(self) -> bool:
        """Is a part chosen?"""
        return not set(self["where"].value() or ()) <= set(SIDES)

    @property
    def rest(self) -> list[Any]:
        return [self[name] for name in ("label", "restore", "name") if name in self.fields]

    def take_focus(self, verb: str, *, is_first: bool, is_last: bool) -> None:
        """What is pressed again and again stays under the finger; what was added is filled in next."""
        self.focus = {"up": "down" if is_first else "up", "down": "up" if is_last else "down"}.get(verb, verb)
        if verb == "add":
            self.fields[self.own[0].name].widget.attrs["autofocus"] = True

    def rule(self) -> Any:
        """As it would be written. Once it is clean."""
        told = {"kind": self.kind}
        fields: Mapping[str, Any] = self.fields  # each a _Told
        for name, field in fields.items():
            value = field.rule_from(self.cleaned_data.get(name))
            if value is not None:
                told[name] = value
        return told

    @classmethod
    def values(cls, rule: Any) -> dict[str, Any]:
        """What the form begins with."""
        fields: Mapping[str, Any] = cls.base_fields
        return {name: field.shown(rule[name]) for name, field in fields.items() if name in rule}


class _Spans(Block):
    """A rule that finds spans of text, which may be masked."""

    label = Line(gettext_lazy("Name of the mask"), gettext_lazy("Such as CASE, for [CASE_1]. Empty: a name of its own."))
    restore = Flag(gettext_lazy("Show it again in the answer: the client sees what it had written, the model the mask"))


class Keywords(_Spans):
    kind = "keywords"
    words = Lines(gettext_lazy("Words"), gettext_lazy("One a line. Found in any case and width, also inside of other words."))


class Pattern(_Spans):
    kind = "pattern"
    pattern = Line(
        gettext_lazy("Pattern"),
        gettext_lazy(
            "A regular expression (RE2), capitals or not. \\b is the edge of a word; give counts an end, as in {1,64}."
        ),
        **{"class": "code"},
    )


class Detector(_Spans):
    kind = "detector"
    detector = One(gettext_lazy("What is looked for"), _named(wording.DETECTED, tuple(DETECTORS)))


class _Whole(Block):
    """A rule that finds no span: nothing could be masked."""

    action = One(gettext_lazy("What is done"), _named(wording.ACTIONS, [name for name in ACTIONS if name != "redact"]))


class Size(_Whole):
    kind = "size"
    max_characters = Number(gettext_lazy("Characters at most"))
    max_messages = Number(gettext_lazy("Messages at most"))
    max_images = Number(gettext_lazy("Images at most"))


class Script(_Whole):
    kind = "script"
    scripts = Some(
        gettext_lazy("Scripts that may be there; letters of any other are found"), _named(wording.SCRIPTS, [*SCRIPTS])
    )


class _OfInput(_Whole):
    """A rule that looks at the input alone."""

    _surfaces: ClassVar = ["input", *(name for name in SURFACES if name.startswith("input."))]
    where = Some(
        gettext_lazy("Where"), _named(wording.SURFACES, _surfaces), gettext_lazy("Nothing chosen: in all of the input.")
    )


class Roles(_OfInput):
    kind = "roles"
    roles = Some(gettext_lazy("Roles that may be there; messages of any other are found"), [(name, name) for name in ROLES])


class Tools(_OfInput):
    kind = "tools"
    tools = Lines(gettext_lazy("Tools that may be there; any other is found"), gettext_lazy("One name a line."))


class Judge(_OfInput):
    kind = "judge"
    alias = Line(gettext_lazy("Alias of the guard model"), gettext_lazy("It is asked whether the input is safe, at each call."))
    timeout_ms = Number(gettext_lazy("It has, in milliseconds"), gettext_lazy("Empty: 1,000."))
    on_failure = One(
        gettext_lazy("Without an answer in time"),
        [("closed", gettext_lazy("as if it were unsafe")), ("open", gettext_lazy("the call goes on, and it is counted"))],
    )


class Text(Block):
    """A rule as text: of a kind or with a spelling that no other block shows."""

    kind = TEXT
    ends_with = ()
    where = action = name = None  # type: ignore[assignment] # so Django takes inherited fields away
    text = Lines(gettext_lazy("Rule"), gettext_lazy("One rule, in YAML."))

    @property
    def title(self) -> Any:
        return _("Rule as text")

    def rule(self) -> Any:
        """What cannot be read is its own text, which is no rule: the engine says so."""
        written = str(self.cleaned_data["text"])
        try:
            found = yaml.safe_load(written)
        except (yaml.YAMLError, ValueError, RecursionError):
            return written
        return found if found is not None else written

    @classmethod
    def values(cls, rule: Any) -> dict[str, Any]:
        return {"text": written([rule])[2:].replace("\n  ", "\n") if isinstance(rule, dict) else str(rule)}


BLOCKS: Final[Mapping[str, type[Block]]] = {
    block.kind: block for block in (Keywords, Pattern, Detector, Size, Script, Roles, Tools, Judge, Text)
}


def blocks_of(rules: Sequence[Any]) -> list[Block]:
    """Blocks that begin with what the rules say."""
    return [_block(at, *_fitting(rule)) for at, rule in enumerate(rules)]


def blocks_sent(data: QueryDict) -> list[Block]:
    """The blocks as a form sent them, cleaned. Raises BadRequest where some are not there: to go on would drop rules."""
    count = data.get("blocks", "")
    kinds = [data.get(f"{at}-kind", "") for at in range(int(count))] if re.fullmatch("[0-9]{1,2}", count) else [""]
    if len(kinds) > BLOCKS_MAX or not set(kinds) <= BLOCKS.keys():
        raise BadRequest
    blocks = [BLOCKS[kind](data, prefix=str(at)) for at, kind in enumerate(kinds)]
    for block in blocks:
        block.full_clean()
    return blocks


def rearranged(blocks: Sequence[Block], act: str) -> list[Block]:
    """The blocks after a button: `add-KIND`, `remove-2`, `up-2`, `down-2`. One of them has the focus then."""
    state = [(block.kind, dict(block.cleaned_data)) for block in blocks]
    verb, _dash, what = act.partition("-")
    at = int(what) if what.isascii() and what.isdigit() and int(what) < len(state) else -1
    here = at
    if verb == "add" and what in BLOCKS and len(state) < BLOCKS_MAX:
        state.append((what, {"where": ["input"], "action": ACTIONS[0]}))
        here = len(state) - 1
    elif verb == "remove" and at >= 0:
        state.pop(at)
        here = min(at, len(state) - 1)
    elif verb in ("up", "down") and at >= 0:
        here = max(0, min(at + (1 if verb == "down" else -1), len(state) - 1))
        state.insert(here, state.pop(at))
    after = [_block(number, kind, values) for number, (kind, values) in enumerate(state)]
    if 0 <= here < len(after):
        after[here].take_focus(verb, is_first=here == 0, is_last=here == len(after) - 1)
    return after


def place(blocks: Sequence[Block], problems: Sequence[Problem]) -> list[str]:
    """Say what is wrong at its block and field; what belongs to none is returned."""
    elsewhere = []
    for problem in problems:
        told, path = wording.problem(problem), _PATH.fullmatch(problem.path)
        block = blocks[int(path["at"])] if path and int(path["at"]) < len(blocks) else None
        if block is None or path is None:
            elsewhere.append(told)
            continue
        name = path["name"] if path["name"] in block.fields else None
        if path["inner"] is not None:
            told = _("Number %(number)d: %(problem)s") % {"number": int(path["inner"]) + 1, "problem": told}
        if name is None and path["name"]:
            told = f"{path['name']}: {told}"
        block.add_error(name, told)
    return elsewhere


def written(rules: Sequence[Any]) -> str:
    """Rules as a person would write them."""
    told = [_in_order(rule) for rule in rules]
    return yaml.dump(told, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=120)


def each_written(rules: Sequence[Any]) -> list[str]:
    """The same, rule by rule."""
    return [written([rule]) for rule in rules]


def _block(at: int, kind: str, values: Mapping[str, Any]) -> Block:
    return BLOCKS[kind](initial=values, prefix=str(at))


def _fitting(rule: Any) -> tuple[str, dict[str, Any]]:
    """The kind of block that says just what the rule says; else that of text."""
    kind = rule.get("kind") if isinstance(rule, dict) else None
    if isinstance(kind, str) and kind in BLOCKS and kind != TEXT:
        block = BLOCKS[kind]
        values = block.values(rule)
        again = block(_as_sent(values))
        again.full_clean()
        if not again.errors and _plain(again.rule()) == _plain(rule):
            return kind, values
    return TEXT, Text.values(rule)


def _as_sent(values: Mapping[str, Any]) -> QueryDict:
    """What a browser would send for a form that begins with `values`: its line ends too."""
    data = QueryDict(mutable=True)
    for name, value in values.items():
        if isinstance(value, list):
            data.setlist(name, value)
        elif value is not False:
            data[name] = "on" if value is True else str(value).replace("\n", "\r\n")
    return data


def _plain(rule: Mapping[str, Any]) -> dict[str, Any]:
    """So that two rules are equal if they mean the same."""
    plain = {name: value for name, value in rule.items() if value is not None and _DEFAULTS.get(name, _UNKNOWN) != value}
    for name in _IN_ANY_ORDER:
        value = plain.get(name)
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            plain[name] = sorted(set(value))
    return plain


class _Short(list[Any]):
    """A list that is written on one line."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(_Short, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True))
_UNKNOWN: Final = object()
_FIRST: Final = ("name", "kind")
_LAST: Final = ("where", "action", "label", "restore")
_SHORT: Final = ("where", "scripts", "roles")


def _in_order(rule: Any) -> Any:
    """Its fields as people put them: the table keeps them in an order of its own."""
    if not isinstance(rule, dict):
        return rule
    others = sorted(str(name) for name in rule if name not in (*_FIRST, *_LAST))
    names = (*(name for name in _FIRST if name in rule), *others, *(name for name in _LAST if name in rule))
    return {name: _Short(rule[name]) if name in _SHORT and isinstance(rule[name], list) else rule[name] for name in names}
