"""A text tried against policies, as it would be in a call: what is found, what would pass, how long it takes. Pure.

Tools are not looked at and judges are not asked: a text alone has none of the one, and there is no call to ask in.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from gateway.policy.decisions import Decision
from gateway.policy.masks import Masks
from gateway.policy.reading import texts
from gateway.policy.request import judge_request
from gateway.policy.rules import OUTPUT, Judge, Policy, Tools
from gateway.policy.ruleset import RuleSet, compiled
from gateway.policy.scanner import judge_text

Verdict = Literal["blocked", "masked", "flagged", "clean"]
_VERDICTS: Final[dict[str, Verdict]] = {"block": "blocked", "redact": "masked", "flag": "flagged"}  # the strictest first
_ROLES: Final = {"input.system": "system", "input.user": "user", "input.assistant": "assistant", "input.tool": "tool"}


@dataclass(frozen=True, slots=True)
class Match:
    """What a rule found. start, end: characters, from 0; line, column: of its start, from 1; None: it is of the whole text."""

    policy: str
    version: int
    rule: str
    kind: str
    action: str
    start: int | None
    end: int | None
    line: int | None
    column: int | None
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Trial:
    """passed: the text as it would go on; of a blocked one what a stream would have sent before. matches: also behind a block.

    unreadable: policies that let nothing pass because this release cannot read them. untried: rules, as `policy/rule`, that
    could not be tried here. duration_ms: of the judgement alone, as it is from the second call on, when all is compiled.
    """

    verdict: Verdict
    matches: tuple[Match, ...]
    passed: str = field(repr=False)
    duration_ms: float
    unreadable: tuple[str, ...] = ()
    untried: tuple[str, ...] = ()


def try_text(policies: Sequence[Policy], text: str, surface: str) -> Trial:
    """surface: of rules.SURFACES, where the text stands."""
    rules = compiled(tuple(policies))
    _judged(rules, text, surface)  # RE2 compiles as it goes
    began_s = time.perf_counter()
    passed, decisions = _judged(rules, text, surface)
    duration_ms = (time.perf_counter() - began_s) * 1000
    unreadable = tuple(policy.name for policy in policies if not policy.is_readable)
    actions = {decision.action for decision in decisions} | ({"block"} if unreadable else set())
    if "block" in actions:  # a call is over there; whoever tries rules wants to see the rest
        decisions = _unblocked(policies, text, surface)
    return Trial(
        verdict=next((verdict for action, verdict in _VERDICTS.items() if action in actions), "clean"),
        matches=tuple(sorted((_match(decision, text) for decision in decisions), key=lambda match: match.start or 0)),
        passed="" if unreadable else passed,
        duration_ms=duration_ms,
        unreadable=unreadable,
        untried=tuple(
            f"{source.policy}/{source.rule.name}"
            for source in rules.whole
            if surface in source.rule.where and isinstance(source.rule, Judge | Tools)
        ),
    )


def _judged(rules: RuleSet, text: str, surface: str) -> tuple[str, tuple[Decision, ...]]:
    """What passes, and why no more of it."""
    if surface in OUTPUT:
        matcher = rules.on(surface)
        if matcher is None:
            return text, ()
        answer = judge_text(matcher, text, Masks(), surface=surface)
        return answer.text, answer.decisions
    request = judge_request(rules, _request(text, surface), Masks())
    if request.blocked is not None:
        return "", request.decisions
    return "".join(found.text for found in texts(request.fields)), request.decisions


def _request(text: str, surface: str) -> dict[str, Any]:
    """One in which nothing but `text` is said."""
    if surface in _ROLES:
        return {"messages": [{"role": _ROLES[surface], "content": text}]}
    if surface == "input.documents":
        return {"messages": [], "documents": [{"text": text}]}
    return {"messages": [], "tools": [{"description": text}]}


def _unblocked(policies: Sequence[Policy], text: str, surface: str) -> tuple[Decision, ...]:
    """All that the rules find, were blocks no end."""
    blocks: set[tuple[str, int, str]] = set()
    milder: list[Policy] = []
    for policy in policies:
        blocks |= {(policy.name, policy.version, rule.name) for rule in policy.rules if rule.action == "block"}
        rules = (replace(rule, action="flag") if rule.action == "block" else rule for rule in policy.rules)
        milder.append(replace(policy, rules=tuple(rules)))
    _, decisions = _judged(RuleSet(milder), text, surface)
    return tuple(
        replace(found, action="block") if (found.policy, found.version, found.rule) in blocks else found for found in decisions
    )


def _match(found: Decision, text: str) -> Match:
    start = found.start
    return Match(
        policy=found.policy,
        version=found.version,
        rule=found.rule,
        kind=found.kind,
        action=found.action,
        start=start,
        end=found.end,
        line=None if start is None else text.count("\n", 0, start) + 1,
        column=None if start is None else start - text.rfind("\n", 0, start),
        text="" if start is None or found.end is None else text[start : found.end],
    )
