"""Checks of JSON values: strict, composable, each able to say what it wants in words and as JSON Schema. Pure.

A check never converts (vLLM streams for "yes" and takes "0.5"; here both are refused) and never quotes the value, which
may be a prompt: a problem names a place and what was expected there.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import orjson

Problem = tuple[str, str]  # where, below the value looked at ("" is the value, ".url", "[3].name"); what is wrong there
Problems = Sequence[Problem]

FINE: Final[Problems] = ()
MAX_PROBLEMS: Final = 10  # a client corrects some and asks again; ten thousand wrong token ids are one mistake

INT32_MAX: Final = 2**31 - 1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

# orjson itself stops at 1024 levels; what can be said in a chat needs far less.
MAX_DEPTH: Final = 64


@dataclass(frozen=True, slots=True)
class Check:
    """find: JSON value -> problems, none for a good one. words: completes "must be ...". schema: the same as JSON Schema."""

    find: Callable[[Any], Problems]
    words: str
    schema: Mapping[str, Any]


def below(place: str, problems: Problems) -> list[Problem]:
    """The same problems seen from one level up."""
    return [(place + where, message) for where, message in problems]


def unfit(words: str) -> Problems:
    """What is wrong with a value as a whole that is not what it "must be"."""
    return (("", f"must be {words}."),)


def scalar(accepts: Callable[[Any], bool], words: str, schema: Mapping[str, Any]) -> Check:
    """A check of the value as a whole: it is accepted, or it "must be <words>". The commonest checks do it in one function."""
    wrong = unfit(words)
    return Check(lambda value: FINE if accepts(value) else wrong, words, schema)


def refined(check: Check, rule: Callable[[Any], Problems]) -> Check:
    """`check`, then `rule` on what passed it."""
    return Check(lambda value: check.find(value) or rule(value), check.words, check.schema)


# ---- numbers and booleans. `type() is`, because a bool is an int to isinstance.

_NO_BOOLEAN: Final = unfit("true or false")
BOOLEAN: Final = Check(
    lambda value: FINE if value is True or value is False else _NO_BOOLEAN, "true or false", {"type": "boolean"}
)
ONLY_TRUE: Final = scalar(lambda value: value is True, "true", {"const": True})


def integer(low: int, high: int = INT32_MAX) -> Check:
    """low..high. 1.0 is no integer; and orjson reads what exceeds 64 bits as a float, which is none either."""
    words = f"an integer between {low} and {high}"
    wrong = unfit(words)
    return Check(
        lambda value: FINE if type(value) is int and low <= value <= high else wrong,
        words,
        {"type": "integer", "minimum": low, "maximum": high},
    )


def number(low: float, high: float) -> Check:
    words = f"a number between {low:g} and {high:g}"
    wrong = unfit(words)
    return Check(
        lambda value: FINE if (type(value) is float or type(value) is int) and low <= value <= high else wrong,
        words,
        {"type": "number", "minimum": low, "maximum": high},
    )


def number_above(low: float, high: float) -> Check:
    """Greater than low, up to high."""
    words = f"a number greater than {low:g} and up to {high:g}"
    wrong = unfit(words)
    return Check(
        lambda value: FINE if (type(value) is float or type(value) is int) and low < value <= high else wrong,
        words,
        {"type": "number", "exclusiveMinimum": low, "maximum": high},
    )


# ---- strings

TEXT: Final = scalar(lambda value: type(value) is str, "a string", {"type": "string"})  # the cap on bodies bounds it


def string(max_chars: int, *, min_chars: int = 0) -> Check:
    span = f"{min_chars} to {max_chars}" if min_chars else f"at most {max_chars}"
    words = f"a string of {span} characters"
    wrong = unfit(words)
    return Check(
        lambda value: FINE if type(value) is str and min_chars <= len(value) <= max_chars else wrong,
        words,
        {"type": "string", **({"minLength": min_chars} if min_chars else {}), "maxLength": max_chars},
    )


def shallow(max_depth: int) -> Check:
    """A string that somebody may read as JSON, and would fail on what is nested too deeply. It need not be JSON."""

    def accepts(value: Any) -> bool:
        return type(value) is str and (value.count("[") + value.count("{") <= max_depth or json_depth(value) <= max_depth)

    return scalar(accepts, f"a string, JSON in it nested at most {max_depth} levels deep", {"type": "string"})


def json_depth(text: str) -> int:
    """The levels of JSON in `text`, whole or not: its brackets outside strings, added up."""
    brackets = _STRING.sub(b"", text.encode()).translate(_UP_AND_DOWN, _NO_BRACKETS)
    return max(accumulate(memoryview(brackets).cast("b"), initial=0))


_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_UP_AND_DOWN: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # as signed bytes: 1 and -1
_NO_BRACKETS: Final = bytes(set(range(256)).difference(b"[{]}"))


def label(max_chars: int, *, min_chars: int = 0) -> Check:
    """A string that we keep. Without U+0000, which PostgreSQL cannot store: the usage event would never be posted."""
    plain = string(max_chars, min_chars=min_chars)
    return scalar(
        lambda value: not plain.find(value) and "\0" not in value,
        f"{plain.words}, none of them U+0000",
        plain.schema,
    )


def matching(pattern: re.Pattern[str], words: str) -> Check:
    """A string that matches as a whole."""
    return scalar(
        lambda value: type(value) is str and pattern.fullmatch(value) is not None,
        words,
        {"type": "string", "pattern": f"^(?:{pattern.pattern})$"},
    )


def one_of(*choices: str) -> Check:
    known = frozenset(choices)
    return scalar(
        lambda value: type(value) is str and value in known,
        " or ".join(f'"{choice}"' for choice in choices),
        {"type": "string", "enum": list(choices)},
    )


# ---- containers


def list_of(item: Check, max_items: int, *, min_items: int = 0) -> Check:
    span = f"{min_items} to {max_items}" if min_items else f"at most {max_items}"
    words = f"a list of {span} items, each {item.words}"
    wrong = unfit(words)
    find_item = item.find

    def find(value: Any) -> Problems:
        if type(value) is not list or not min_items <= len(value) <= max_items:
            return wrong
        problems: list[Problem] = []
        for index, member in enumerate(value):
            found = find_item(member)
            if found:
                problems += below(f"[{index}]", found)
                if len(problems) >= MAX_PROBLEMS:
                    break
        return problems

    schema = {"type": "array", "items": item.schema, "maxItems": max_items, **({"minItems": min_items} if min_items else {})}
    return Check(find, words, schema)


def mapping_of(key: Check, value: Check, max_items: int) -> Check:
    """An object with keys of the client's choosing. Problems name the object: a key is as secret as a value."""

    def accepts(mapping: Any) -> bool:
        return (
            type(mapping) is dict
            and len(mapping) <= max_items
            and not any(key.find(name) or value.find(member) for name, member in mapping.items())
        )

    words = f"an object of at most {max_items} members, each key {key.words} and each value {value.words}"
    schema = {
        "type": "object",
        "maxProperties": max_items,
        "propertyNames": key.schema,
        "additionalProperties": value.schema,
    }
    return scalar(accepts, words, schema)


def record(members: Mapping[str, Check], *, required: Sequence[str] = (), closed: bool = False) -> Check:
    """An object with known members; null is as good as absent. closed: no others. Open ones go on as they came."""
    names = ", ".join(members)
    finders = {name: check.find for name, check in members.items()}

    def find(value: Any) -> Problems:
        if type(value) is not dict:
            return (("", "must be an object."),)
        problems: Problems = FINE
        for name in required:
            if value.get(name) is None:
                problems = [*problems, (f".{name}", "is required.")]
        for name, member in value.items():
            finder = finders.get(name)
            if finder is None:
                if closed:
                    return [*problems, ("", f"may hold only {names}.")]
            elif member is not None:
                found = finder(member)
                if found:
                    problems = [*problems, *below(f".{name}", found)]
        return problems

    schema: dict[str, Any] = {"type": "object", "properties": {name: check.schema for name, check in members.items()}}
    if required:
        schema["required"] = list(required)
    if closed:
        schema["additionalProperties"] = False
    return Check(find, f"an object with {names}" if closed else "an object", schema)


def by_type(checks: Mapping[type, Check]) -> Check:
    """The check of the value's own type, so that the problem told is of the form the client chose."""
    words = " or ".join(check.words for check in checks.values())
    wrong: Problems = (("", f"must be {words}."),)

    def find(value: Any) -> Problems:
        check = checks.get(type(value))
        return check.find(value) if check else wrong

    return Check(find, words, {"anyOf": [check.schema for check in checks.values()]})


def any_object(max_bytes: int) -> Check:
    """An object of any shape whose JSON is at most `max_bytes` long."""

    def accepts(value: Any) -> bool:
        if type(value) is not dict:
            return False
        try:
            return len(orjson.dumps(value)) <= max_bytes
        except orjson.JSONEncodeError:  # deeper than orjson writes
            return False

    return scalar(accepts, f"an object of at most {max_bytes} bytes as JSON", {"type": "object"})


# ---- the body as a whole


def depth_problem(value: Any, *, max_depth: int = MAX_DEPTH) -> str | None:
    """Is the value nested too deeply? Level by level, so that no depth can exhaust the stack."""
    level, depth = [value] if type(value) in _CONTAINERS else [], 0
    while level:
        depth += 1
        if depth > max_depth:
            return f"must not be nested deeper than {max_depth} levels."
        deeper = []
        for container in level:
            for member in container.values() if type(container) is dict else container:
                if type(member) in _CONTAINERS:
                    deeper.append(member)  # noqa: PERF401 - an append is quicker where almost no member is kept
        level = deeper
    return None


_CONTAINERS: Final = frozenset({dict, list})
