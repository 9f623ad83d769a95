"""What content policies cost, in CPU: .venv/bin/python -m tests.bench.policies

Whole texts against 1,000 keywords, 50 patterns and all detectors; a rule set of 10,000 keywords and 200 patterns; and streamed
events with output rules, beside the plain relay's own cost (parsing, rewriting and metering of an event; no sockets).
"""

import random
import sys
import timeit
from collections.abc import Callable
from functools import partial
from time import process_time
from typing import Any

from gateway.policy.detectors import DETECTORS
from gateway.policy.masks import Masks
from gateway.policy.rules import Policy, parse_rules
from gateway.policy.ruleset import RuleSet
from gateway.policy.scanner import SLICE_CHARACTERS, judge_text
from gateway.policy.stream_guard import StreamGuard
from gateway.upstream.metering import Meter
from gateway.upstream.sse import EventKind, EventRewriter, EventSplitter
from tests.bench.relay import EVENTS, stream

SURFACE = "output.content"
WHERE = ["input", "output"]
JAPANESE = (
    "関所のゲートウェイは、すべてのリクエストを検査し、通してよいものだけを通します。会議は11月21日の15時から、本館の3階です。"
)
ENGLISH = "The gateway reads every request and lets pass what may pass; the meeting is on 21 November at 3 pm, third floor. "
HOSTILE = {
    "nested": "((((((((((aaaaaaaaaa@aaaaaaaaaa@" * 40_000,
    "repeated": "090-1234-567" * 100_000,
    "mixed scripts": "関所Привет αβγ ゲート café ①٠١ ｹﾞｰﾄ word " * 30_000,
    "zero-width": "a\u200bl\u200bp\u200bh\u200ba " * 100_000,
}


def rule_set(words: int, patterns: int, *, detectors: bool) -> RuleSet:
    dice = random.Random(1)
    letters = "関門番札手形旅人道街記録秘密ABCDEFGHIJ0123456789"
    rules: list[dict[str, Any]] = [
        {"kind": "keywords", "words": ["".join(dice.choices(letters, k=dice.randint(5, 9))) for _ in range(words)]},
        *({"kind": "pattern", "pattern": f"案件{chr(65 + n % 26)}[A-Z]{{2}}-{n:03d}[0-9]{{2}}"} for n in range(patterns)),
        *({"kind": "detector", "detector": name} for name in (DETECTORS if detectors else ())),
    ]
    return RuleSet([Policy("bench", 1, parse_rules([{**rule, "where": WHERE, "action": "flag"} for rule in rules]))])


def ms(run: Callable[[], object], number: int = 5) -> float:
    best_s: float = min(timeit.repeat(run, number=number, repeat=7, timer=process_time))
    return best_s / number * 1000


def judge(rules: RuleSet, text: str) -> None:
    matcher = rules.on(SURFACE)
    if matcher is not None:
        judge_text(matcher, text, Masks(), surface=SURFACE)


def relay(reads: list[bytes], rules: RuleSet | None) -> None:
    splitter, meter = EventSplitter(), Meter()
    rewriter = EventRewriter(
        completion_id="chatcmpl-0", alias="general", created_s=1, shows_usage=True, shows_running_usage=False
    )
    guard = None if rules is None else StreamGuard(rules, Masks(), 1)
    for read in reads:
        for event in splitter.feed(read):
            kind, shown = rewriter.rewrite(event)
            if kind is EventKind.CONTENT:
                meter.note_content(event)
                if guard is not None:
                    guard.take(shown)


def main() -> None:
    out = sys.stdout.write
    rules = rule_set(1_000, 50, detectors=True)
    for name, text in (("Japanese", JAPANESE), ("English", ENGLISH)):
        four_kb = (text.encode() * 100)[:4096].decode(errors="ignore")
        out(f"4 KB of {name}, 1,000 keywords, 50 patterns, all detectors: {ms(partial(judge, rules, four_kb), 20):.2f} ms\n")
    for name, text in HOSTILE.items():
        whole = text.encode()[:1_000_000].decode(errors="ignore")
        slice_ms = ms(partial(judge, rules, whole[:SLICE_CHARACTERS]), 1)
        out(f"1 MB of {name}: {ms(partial(judge, rules, whole), 1):.1f} ms in all; the first slice {slice_ms:.1f} ms\n")
    out(f"making 10,000 keywords, 200 patterns: {ms(partial(rule_set, 10_000, 200, detectors=False), 1):.0f} ms\n")
    events = stream()
    sets = {
        "no rule": None,
        "100 keywords": rule_set(100, 0, detectors=False),
        "10 patterns": rule_set(1, 10, detectors=False),
        "1,000 keywords, 50 patterns, all detectors": rules,
    }
    for name, chosen in sets.items():
        out(f"an event with {name}: {ms(partial(relay, events, chosen), 20) / EVENTS * 1000:.2f} us\n")


if __name__ == "__main__":
    main()
