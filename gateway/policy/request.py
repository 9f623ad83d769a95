"""The verdict on a chat request: what of it may go to a model, masked, or the decision that keeps it here. Pure.

Where a rule would redact a name, which cannot be masked (reading.py), it blocks.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

from gateway.policy.decisions import Decision, decision
from gateway.policy.masks import Masks
from gateway.policy.reading import SLICE_CHARACTERS, Pause, Text, images, roles, texts, tools, with_texts
from gateway.policy.rules import INPUT, Pattern, Roles, Script, Size, Surface, Tools
from gateway.policy.ruleset import Matcher, RuleSet, Source
from gateway.policy.scanner import Judgement, judge_text
from gateway.policy.scripts import find_other

_SHORT_CHARACTERS: Final = 256
_BATCH_CHARACTERS: Final = 4_096
# No detector goes on over this, nor does `.`: what it finds in the next text stays to be found there.
_SEPARATOR: Final = "\n\ue000\n"
_ANCHOR: Final = re.compile(r"(?<!\[)\^|\$|\\[Az]")


@dataclass(frozen=True, slots=True)
class RequestJudgement:
    """fields: as they may go upstream. blocked: the decision that keeps them here. decisions: all of them, that one too."""

    fields: dict[str, Any] = field(repr=False)
    blocked: Decision | None
    decisions: tuple[Decision, ...]


def judge_request(rules: RuleSet, fields: dict[str, Any], masks: Masks, *, pause: Pause = lambda: None) -> RequestJudgement:
    """Roles, tools, sizes and scripts, then what stands in the texts; it ends at the first block. Judges are not asked here.

    fields: as for_alias made them; they stay as they are. pause: called now and then, so that other calls get their turn.
    """
    found = texts(fields, pause=pause)
    decisions: list[Decision] = []
    for decided in _of_the_whole(rules, fields, found, pause):
        decisions.append(decided)
        if decided.action == "block":
            return RequestJudgement(fields, decided, tuple(decisions))
    passed, blocked = _judge_texts(rules, found, masks, decisions, pause)
    if blocked is None and any(new != text.text for new, text in zip(passed, found, strict=True)):
        fields = with_texts(fields, passed, pause=pause)
    return RequestJudgement(fields, blocked, tuple(decisions))


# ---- rules for the request as a whole


def _of_the_whole(rules: RuleSet, fields: Mapping[str, Any], found: Sequence[Text], pause: Pause) -> Iterator[Decision]:
    sources = [source for source in rules.whole if source.rule.where & INPUT]
    for source in sources:
        if isinstance(source.rule, Roles):
            yield from _strangers(source, roles(fields), source.rule.roles)
    for source in sources:
        if isinstance(source.rule, Tools):
            yield from _strangers(source, tools(fields), source.rule.tools)
    for source in sources:
        if isinstance(source.rule, Size):
            yield from _too_large(source, source.rule, fields, found)
    for source in sources:
        if isinstance(source.rule, Script):
            yield from _other_scripts(source, source.rule, found, pause)


def _strangers(source: Source, named: Iterable[tuple[Surface, str]], allowed: frozenset[str]) -> Iterator[Decision]:
    surfaces = {surface for surface, name in named if surface in source.rule.where and name not in allowed}
    return (decision(source, surface) for surface in sorted(surfaces))


def _too_large(source: Source, rule: Size, fields: Mapping[str, Any], found: Sequence[Text]) -> Iterator[Decision]:
    """One decision a bound, on the surface that has most of it."""
    characters: Counter[Surface] = Counter()
    for text in found:
        characters[text.surface] += len(text.text)
    measured: tuple[tuple[int | None, Counter[Surface]], ...] = (
        (rule.max_characters, characters),
        (rule.max_messages, Counter(surface for surface, _ in roles(fields))),
        (rule.max_images, images(fields)),
    )
    for most, counted in measured:
        here = Counter({surface: count for surface, count in counted.items() if surface in rule.where})
        if most is not None and here.total() > most:
            yield decision(source, here.most_common(1)[0][0])


def _other_scripts(source: Source, rule: Script, found: Sequence[Text], pause: Pause) -> Iterator[Decision]:
    """The first letters of another script on each surface. Of prose alone: ids and keys are Latin everywhere."""
    seen: set[Surface] = set()
    for text in found:
        if text.kind != "prose" or text.surface not in rule.where or text.surface in seen:
            continue
        for at in range(0, len(text.text), SLICE_CHARACTERS):
            if at:
                pause()
            if span := find_other(text.text[at : at + SLICE_CHARACTERS], rule.scripts):
                seen.add(text.surface)
                yield decision(source, text.surface, at + span[0], at + span[1])
                break


# ---- rules for spans of text


def _judge_texts(
    rules: RuleSet, found: Sequence[Text], masks: Masks, decisions: list[Decision], pause: Pause
) -> tuple[list[str], Decision | None]:
    """The texts as they may pass, and what blocks them. What is said again is not judged again."""
    known: dict[tuple[Surface, bool, str], str] = {}
    passed: list[str] = []
    for batch in _batches(found, joins=_may_join(rules)):
        matcher = rules.on(batch[0].surface)
        if matcher is None or (len(batch) > 1 and _is_clean(matcher, batch)):
            passed += [text.text for text in batch]
            pause()
            continue
        for text in batch:
            key = text.surface, text.kind == "name", text.text
            if key not in known:
                judgement = judge_text(matcher, text.text, masks, surface=text.surface, pause=pause)
                decisions += judgement.decisions
                if (blocked := _block_of(text, judgement)) is not None:
                    if blocked not in decisions:
                        decisions.append(blocked)
                    return [], blocked
                known[key] = judgement.text
            passed.append(known[key])
        pause()
    return passed, None


def _block_of(text: Text, judgement: Judgement) -> Decision | None:
    if judgement.blocked is None and text.kind == "name" and judgement.text != text.text:
        return replace(next(one for one in judgement.decisions if one.action == "redact"), action="block")
    return judgement.blocked


def _batches(found: Sequence[Text], *, joins: bool) -> Iterator[Sequence[Text]]:
    """Neighbours of one surface. Short ones come together: tools have thousands, in which there is nearly always nothing."""
    batch: list[Text] = []
    left = 0
    for text in found:
        length = len(text.text) if joins else _BATCH_CHARACTERS
        if batch and (length > min(left, _SHORT_CHARACTERS) or text.surface != batch[0].surface):
            yield batch
            batch = []
        left = (left if batch else _BATCH_CHARACTERS) - length
        batch.append(text)
    if batch:
        yield batch


def _is_clean(matcher: Matcher, batch: Sequence[Text]) -> bool:
    """Is there nothing in any of these texts? They are asked all at once: what spans two of them makes it False, no more."""
    judgement = judge_text(matcher, _SEPARATOR.join(text.text for text in batch), Masks(), surface=batch[0].surface)
    return not judgement.decisions


@lru_cache(maxsize=256)
def _may_join(rules: RuleSet) -> bool:
    """A pattern that asks where a text begins or ends finds less in joined ones."""
    patterns = (source.rule.pattern for source in rules.sources if isinstance(source.rule, Pattern))
    return not any(_ANCHOR.search(pattern) for pattern in patterns)
