"""The measure of detectors, keywords and patterns: how much they catch, and how often they are wrong."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final

from gateway.policy.detectors import DETECTORS
from gateway.policy.masks import Masks
from gateway.policy.rules import Policy, parse_rules
from gateway.policy.ruleset import Matcher, compiled
from gateway.policy.scanner import judge_text
from tests.gateway.policy.corpus.obfuscations import OBFUSCATIONS
from tests.gateway.policy.corpus.positives import POSITIVES, RULES

SAMPLES: Final = 100
LANGUAGES: Final = ("ja", "en")
_SURFACE: Final = "input.user"
_FRAMES: Final = (
    "{}",
    "以下の内容です：{}、よろしくお願いします。",
    "「{}」とのこと",
    "Please note {} for later.",
    "value={}, 3 items",
    "{}\n2026年",
)


@cache
def matcher(name: str) -> Matcher:
    rule: dict[str, Any] = RULES.get(name) or {"kind": "detector", "detector": name}
    rules = parse_rules([{**rule, "where": [_SURFACE], "action": "flag"}])
    found = compiled((Policy("measured", 1, rules),)).on(_SURFACE)
    if found is None:
        raise LookupError(name)
    return found


def spans(name: str, text: str) -> list[tuple[int, int]]:
    judged = judge_text(matcher(name), text, Masks(), surface=_SURFACE)
    return [(found.start, found.end) for found in judged.decisions if found.start is not None and found.end is not None]


def catch_rate(name: str, obfuscation: str) -> float | None:
    """Of 1; caught is what has all its letters and digits in what was found. None: it is written no other way than before."""
    dice = Random(f"{name} {SAMPLES}")
    tried = caught = 0
    for at in range(SAMPLES):
        plain = POSITIVES[name](dice)
        written = OBFUSCATIONS[obfuscation](plain)
        if written == plain and obfuscation != "none":
            continue
        tried += 1
        caught += _is_covered(name, *_FRAMES[at % len(_FRAMES)].split("{}"), written)
    return caught / tried if tried else None


def _is_covered(name: str, before: str, after: str, written: str) -> bool:
    found = spans(name, before + written + after)
    places = [len(before) + at for at, char in enumerate(written) if char.isalnum()]
    return all(any(start <= place < end for start, end in found) for place in places)


def clean_lines(language: str) -> list[str]:
    return Path(__file__).with_name(f"clean_{language}.txt").read_text("utf-8").splitlines()


def false_alarms(name: str, language: str) -> Iterator[str]:
    """The clean lines in which it finds something."""
    return (line for line in clean_lines(language) if spans(name, line))


NAMES: Final = (*RULES, *DETECTORS)
