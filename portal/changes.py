"""What an audit event tells of a change: before and after, side by side, a line a value. No I/O."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from accounts.audit import MASK

_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class Change:
    """name: the path to the value, with dots; "" when all of it is one value. before, after: as text, "" when there is none."""

    name: str
    before: str
    after: str
    is_changed: bool


def changes(before: Any, after: Any) -> list[Change]:
    """Every value of both sides. Nothing is marked in what was just made or is gone: all of it would be.

    A mask on both sides is marked: a secret is told only where it changed.
    """
    old, new = dict(_leaves(before)), dict(_leaves(after))
    has_both = before is not None and after is not None
    told = []
    for name in dict.fromkeys((*old, *new)):
        was, now = old.get(name, _ABSENT), new.get(name, _ABSENT)
        told.append(Change(name, _text(was), _text(now), has_both and (was != now or now == MASK)))
    return told


def masked(values: Any, names: Collection[str]) -> Any:
    """`values` with what `names` hold hidden."""
    if not isinstance(values, Mapping):
        return values
    return {name: MASK if name in names and value is not None else value for name, value in values.items()}


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    elif name or value is not None:
        yield name, value


def _text(value: Any) -> str:
    if value is _ABSENT or value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False)
