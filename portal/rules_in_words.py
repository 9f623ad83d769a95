"""Rules of a policy as a list to read: what each looks for, where, and what is done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.utils.translation import gettext as _

from portal import wording

SHOWN_MOST: Final = 12  # words of a rule; the others are counted


@dataclass(frozen=True, slots=True)
class Told:
    """name: what records call it. what: texts that are looked for, or that may be there; more: how many others there are."""

    name: str
    kind: str
    what: list[str]
    more: int
    where: list[str]
    action: str


def told(rules: Sequence[Any]) -> list[Told]:
    return [_told(number, rule if isinstance(rule, dict) else {}) for number, rule in enumerate(rules, start=1)]


def _told(number: int, rule: Mapping[str, Any]) -> Told:
    what = _what(rule)
    where = rule.get("where") or ["input"]  # left out where a rule knows the input alone
    surfaces = [where] if isinstance(where, str) else where
    return Told(
        name=str(rule.get("name") or number),
        kind=str(rule.get("kind", "")),
        what=what[:SHOWN_MOST],
        more=max(0, len(what) - SHOWN_MOST),
        where=[str(wording.SURFACES.get(surface, surface)) for surface in surfaces],
        action=str(rule.get("action", "")),
    )


def _what(rule: Mapping[str, Any]) -> list[str]:
    bounds = {
        "max_characters": _("%(most)s characters at most"),
        "max_messages": _("%(most)s messages at most"),
        "max_images": _("%(most)s images at most"),
    }
    for name in ("words", "scripts", "roles", "tools"):
        if isinstance(rule.get(name), list):
            return [str(wording.SCRIPTS.get(item, item)) if name == "scripts" else str(item) for item in rule[name]]
    if "detector" in rule:
        return [str(wording.DETECTED.get(rule["detector"], rule["detector"]))]
    found = [str(rule[name]) for name in ("pattern", "alias") if name in rule]
    return found + [text % {"most": f"{rule[name]:,}"} for name, text in bounds.items() if isinstance(rule.get(name), int)]
