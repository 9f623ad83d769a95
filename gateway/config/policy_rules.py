"""Rules of content policies as people write them, in the file or a form: checked, and ready for a table."""

import json
import re
from typing import Any, Final

import yaml

from gateway.config.source import Place, Refused
from gateway.policy.problems import Problem
from gateway.policy.rules import RulesRefused, parse_rules

_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # as JSON spells it


def checked(rules: object) -> list[Any]:
    """The rules as they come back from the database's JSON. Raises RulesRefused, with all that is wrong."""
    try:
        text = json.dumps(rules, allow_nan=False, ensure_ascii=False)
        text.encode()  # no half of a surrogate pair
    except (TypeError, ValueError, RecursionError):
        raise RulesRefused([Problem("", "not_json")]) from None
    if _NUL.search(text):
        raise RulesRefused([Problem("", "holds_nul")])
    written: list[Any] = json.loads(text)
    parse_rules(written)  # refuses what is no list, too
    return written


def rules(place: Place) -> list[Any]:
    """The rules that a file gives there. What is wrong is told where it stands."""
    try:
        return checked(place.value())
    except RulesRefused as error:
        for problem in error.problems:
            _inside(place, problem.path).refuse(problem.text)
        raise Refused from None


def _inside(place: Place, path: str) -> Place:
    """Where `path` stands; what holds it, under its path, where the file does not name it."""
    while path:
        inner: dict[str, Place] = {}
        if isinstance(place.node, yaml.MappingNode):
            inner = {f".{name}": field for name, field in place.fields().items()}
        elif isinstance(place.node, yaml.SequenceNode):
            inner = {f"[{number}]": item for number, item in enumerate(place.items())}
        steps = [step for step in inner if path.startswith(step) and path[len(step) :][:1] in ("", ".", "[")]
        if not steps:
            return place.inside(path, place.node, place.node)
        step = max(steps, key=len)
        place, path = inner[step], path[len(step) :]
    return place
