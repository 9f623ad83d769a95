"""A YAML file as places: each knows its path and its line, and files what is wrong with it. Knows nothing of the format."""

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final

import yaml
from yaml.constructor import ConstructorError, SafeConstructor

KNOWN_SHOWN: Final = 8


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong at one place of the file. path: as `tenants[0].aliases[1].deployment`, "" for the whole file."""

    path: str
    message: str
    line: int
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}{self.message} (line {self.line})" + (f"; {self.hint}" if self.hint else "")


class InvalidFile(Exception):
    """The file cannot be applied; `problems` are all that were found, by line."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        super().__init__("\n".join(map(str, self.problems)))


class Refused(Exception):
    """A value was refused; its problem is on file already."""


@dataclass(frozen=True, slots=True)
class Place:
    """A value in the file. line: where its name stands, if it has one. `problems` is one list for the whole file."""

    path: str
    node: yaml.Node = field(repr=False)
    line: int
    problems: list[Problem] = field(repr=False)

    def refuse(self, message: str, hint: str = "") -> Refused:
        """File a problem of this place; the result is for the caller to raise, or not."""
        self.problems.append(Problem(self.path, message, self.line, hint))
        return Refused()

    def fields(self) -> dict[str, "Place"]:
        """What a mapping holds. Raises Refused for anything else."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.refuse("must be a mapping, such as {name: value}")
        return {key.value: self.inside(f".{key.value}", value, key) for key, value in self.node.value}

    def items(self) -> list["Place"]:
        """What a list holds. Raises Refused for anything else."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.refuse("must be a list")
        return [self.inside(f"[{number}]", value, value) for number, value in enumerate(self.node.value)]

    def value(self) -> Any:
        """As plain Python: text, numbers, booleans, None, dates, lists, dicts. Raises Refused for what YAML cannot read."""
        try:
            return SafeConstructor().construct_document(self.node)
        except (ConstructorError, ValueError, RecursionError) as error:
            raise self.refuse("cannot be read as a value") from error

    def scalar(self) -> str:
        """A single value as it is written: 0.10 stays 0.10. "" for a list or a mapping."""
        return self.node.value if isinstance(self.node, yaml.ScalarNode) else ""

    def inside(self, step: str, node: yaml.Node, mark: yaml.Node) -> "Place":
        """A part of this value, named where `mark` stands."""
        return Place((self.path + step).removeprefix("."), node, mark.start_mark.line + 1, self.problems)


def load(text: str) -> Place:
    """The whole of a YAML file. Raises InvalidFile when it is no YAML, or names something twice in one mapping."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InvalidFile([Problem("", error.problem or "is no YAML", mark.line + 1 if mark else 1)]) from None
    except yaml.YAMLError:
        raise InvalidFile([Problem("", "holds a character that YAML does not allow", 1)]) from None
    if node is None:
        raise InvalidFile([Problem("", "The file is empty.", 1)])
    place = Place("", node, node.start_mark.line + 1, [])
    _check_names(place, set())
    if place.problems:
        raise InvalidFile(place.problems)
    return place


def near(name: str, known: Any) -> str:
    """A hint at what may have been meant instead of `name`."""
    names = sorted(known)
    if close := get_close_matches(name, names, n=1):
        return f'did you mean "{close[0]}"?'
    return known_names(names)


def known_names(known: Any) -> str:
    """All the names there are, when they are few."""
    names = sorted(known)
    if not names:
        return "there are none"
    rest = f" and {len(names) - KNOWN_SHOWN} more" if len(names) > KNOWN_SHOWN else ""
    return f"known: {', '.join(names[:KNOWN_SHOWN])}{rest}"


def _check_names(place: Place, seen: set[int]) -> None:
    """Every name once in its mapping, and text: PyYAML itself would let the last one win. seen: an anchor is walked once."""
    if id(place.node) in seen:
        return
    seen.add(id(place.node))
    if isinstance(place.node, yaml.SequenceNode):
        for item in place.items():
            _check_names(item, seen)
    elif isinstance(place.node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in place.node.value:
            if not isinstance(key, yaml.ScalarNode):
                place.inside("", value, key).refuse("a name must be text")
                continue
            inside = place.inside(f".{key.value}", value, key)
            if key.value in lines:
                inside.refuse(f"is here twice, first in line {lines[key.value]}")
            lines.setdefault(key.value, inside.line)
            _check_names(inside, seen)
