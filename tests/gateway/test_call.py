"""What a call's record says of its content policies."""

from typing import Any

import pytest

from gateway.call import DECISIONS_MAX, Call, decisions_told
from gateway.policy.decisions import Decision
from gateway.principal import Principal
from tests.gateway.policy.test_judge import ASKER
from usage.events import UsageEvent


def decision(action: str, rule: str = "1") -> Decision:
    return Decision("no-secrets", 2, rule, "keywords", action, "input.user", 3, 9)


def ended(*decisions: Decision, principal: Principal = ASKER, **end: Any) -> UsageEvent:
    events: list[UsageEvent] = []
    call = Call(client_request_id=None, max_s=30, record=lambda _held, event: events.append(event))
    call.principal, call.is_metered = principal, True
    call.decisions += decisions
    call.end(**({"status": 200, "outcome": "completed"} | end))
    return events[0]


def test_decisions_are_told_in_their_order() -> None:
    assert ended().policy is None
    told = ended(decision("flag", "1"), decision("redact", "2")).policy
    assert told is not None
    assert [(one["rule"], one["action"]) for one in told] == [("1", "flag"), ("2", "redact")]


def test_of_very_many_the_strictest_are_kept_and_the_rest_counted() -> None:
    told = decisions_told([*[decision("flag")] * DECISIONS_MAX, decision("redact"), decision("block")])
    assert [one.get("action") for one in told] == ["block", "redact", *["flag"] * (DECISIONS_MAX - 2), None]
    assert told[-1] == {"more": 2}


@pytest.mark.parametrize(("action", "code"), [("block", "content_blocked"), ("redact", None), ("flag", None)])
def test_an_answer_that_was_blocked_counts_as_blocked(action: str, code: str | None) -> None:
    """In a stream it ends properly, with status 200."""
    assert ended(decision(action)).error_code == code


def test_a_failure_keeps_its_own_code() -> None:
    failed = ended(decision("block"), status=200, outcome="failed", error_code="upstream_cut")
    assert (failed.outcome, failed.error_code) == ("failed", "upstream_cut")
