"""Where deployments hand calls on to: that every way ends, and that a longer context is one. Pure but for translation."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from django.utils.translation import gettext as _

Field = Literal["fallback", "context_fallback"]
FIELDS: Final[tuple[Field, ...]] = ("fallback", "context_fallback")


@dataclass(frozen=True, slots=True)
class Ways:
    """By name, where one deployment's calls go; None: nowhere. max_model_len: tokens; None: not stated."""

    fallback: str | None
    context_fallback: str | None
    max_model_len: int | None


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one field of one deployment, for people."""

    deployment: str
    field: Field
    message: str


def problems(ways: Mapping[str, Ways]) -> Iterator[Problem]:
    """All that is wrong. ways: of every deployment, by name.

    Both kinds count for a circle: a call may be handed on for the one reason first, and for the other then.
    """
    for name, held in ways.items():
        for field in FIELDS:
            target = getattr(held, field)
            if target is not None and (rest := _way(ways, target, name)):
                text = _("Calls would go in a circle: %(circle)s. Leave one of these out.")
                yield Problem(name, field, text % {"circle": " -> ".join((name, *rest))})
        longer = ways.get(held.context_fallback or "")
        if longer and held.max_model_len and longer.max_model_len and longer.max_model_len <= held.max_model_len:
            facts = {"name": held.context_fallback, "theirs": longer.max_model_len, "own": held.max_model_len}
            text = _("“%(name)s” takes %(theirs)d tokens, no more than the %(own)d of this one: name one that takes more.")
            yield Problem(name, "context_fallback", text % facts)


def users_first(ways: Mapping[str, Ways]) -> list[str]:
    """All names, none before those that hand calls on to it: without a circle, who uses another reaches more than that one."""
    return sorted(ways, key=lambda name: (-len(_reached(ways, name)), name))


def _way(ways: Mapping[str, Ways], start: str, end: str) -> tuple[str, ...]:
    """The names from `start` to `end`, both included; () when none leads there."""
    came_from = _reached(ways, start)
    names: list[str] = []
    step = end if end in came_from else None
    while step is not None:
        names.append(step)
        step = came_from[step]
    return tuple(reversed(names))


def _reached(ways: Mapping[str, Ways], start: str) -> dict[str, str | None]:
    """All that a call may come to from `start`, each with the one before it; None before the start itself."""
    came_from: dict[str, str | None] = {start: None}
    waiting = [start]
    for name in waiting:
        for target in (ways[name].fallback, ways[name].context_fallback):
            if target is not None and target not in came_from:
                came_from[target] = name
                waiting.append(target)
    return came_from
