"""What a call's record says of its content policies."""

from dataclasses import fields
from typing import Any

import orjson
import pytest

from gateway import call_log
from gateway.call import DECISIONS_MAX, Call, decisions_told
from gateway.config.documents import Price
from gateway.policy.decisions import Decision
from gateway.principal import Principal
from gateway.upstream.metering import Usage
from tests.gateway.policy.test_judge import ASKER
from usage.events import COUNTED, EndedCall, UsageEvent, limits_of
from usage.limits import Bound, BoundLimit, Limit
from usage.reservation import OF_THE_END, LimitStates, skeleton


def decision(action: str, rule: str = "1") -> Decision:
    return Decision("no-secrets", 2, rule, "keywords", action, "input.user", 3, 9)


def read(event: EndedCall) -> UsageEvent:
    return UsageEvent.from_dict(orjson.loads(event.json()))


def ended(*decisions: Decision, principal: Principal = ASKER, **end: Any) -> UsageEvent:
    events: list[UsageEvent] = []
    call = Call(client_request_id=None, max_s=30, record=lambda _held, event: events.append(read(event)))
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


def test_what_a_call_writes_is_an_event_in_every_field() -> None:
    """The gateway writes JSON at once: it must be what a UsageEvent of it would be written as."""
    limits = Bound(
        [BoundLimit("key", "100%d", Limit("tokens_per_day", 90)), BoundLimit("alias", "a", Limit("requests_per_minute", 5))]
    )
    written: list[EndedCall] = []
    call = Call(client_request_id="theirs", max_s=30, record=lambda _held, event: written.append(event))
    call.principal, call.is_metered, call.alias, call.deployment, call.backend = ASKER, True, "general", "d", "gpu-1"
    call.metadata, call.end_user, call.first_token_ms, call.price = {"team": "search"}, "u1", 12, Price(1, 2, 3)
    call.auth_us, call.policy_us, call.admission_us = 1, 2, 3
    call.decisions.append(decision("flag"))
    call.limit_states = LimitStates(limits, [7, 1], [3, 0], [0, 0], 0)
    skeleton_ = call.skeleton()
    call.end(status=200, outcome="completed", usage=Usage(10, 4, 20, "backend"), error_code="odd")
    event = read(written[0])
    raw = orjson.loads(written[0].json())
    limits_told = limits_of(raw.pop("limit_columns"))
    assert event.to_dict() == raw | {"limits": limits_told}
    assert set(event.to_dict()) == {one.name for one in fields(UsageEvent)}
    assert event.limits == [
        {"subject": "key", "name": "100%d", "limit": "tokens_per_day", "used": 7, "reserved": 3, "max": 90, "mode": "enforce"},
        {
            "subject": "alias",
            "name": "a",
            "limit": "requests_per_minute",
            "used": 1,
            "reserved": 0,
            "max": 5,
            "mode": "enforce",
        },
    ]
    uncounted = orjson.loads(written[0].uncounted)
    assert uncounted.pop("limit_columns") is not None
    assert uncounted | {"limits": event.limits} == orjson.loads(event.uncounted)
    asked = ("request_id", "tenant_id", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_nano", "usage_source")
    assert [getattr(written[0], name) for name in asked] == [getattr(event, name) for name in asked]
    assert written[0].has_limits == event.has_limits
    told = orjson.loads(skeleton_)
    assert set(told) == set(orjson.loads(skeleton(event))) - {"error_code", "limits"} | {"limit_columns"}


OPTIONAL: dict[str, Any] = {
    "client_request_id": "theirs", "end_user": "u1", "metadata": {"team": "search"}, "deployment": "d", "backend": "gpu-1",
    "first_token_ms": 0, "price": Price(1, 2, 3), "auth_us": 0, "policy_us": 2, "admission_us": 3, "retry_count": "0",
}  # fmt: skip
IN_THE_LINE = {"client_request_id", "deployment", "backend", "first_token_ms", "retry_count"}


@pytest.mark.parametrize("names", [(), tuple(OPTIONAL), *((name,) for name in OPTIONAL)], ids="+".join)
def test_what_is_none_is_left_out_of_event_and_line_and_nothing_else(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = set(names)
    written: list[EndedCall] = []
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(call_log, "note", lines.append)
    call = Call(client_request_id=None, max_s=30, record=lambda _held, event: written.append(event))
    call.principal, call.is_metered = ASKER, True
    for name in there:
        setattr(call, name, OPTIONAL[name])
    skeleton_ = orjson.loads(call.skeleton())
    call.end(status=200, outcome="completed")
    told, (line,) = orjson.loads(written[0].json()), lines
    always = {one.name for one in fields(UsageEvent)} - set(OPTIONAL) - {"limits", "policy", "error_code"}
    assert set(told) == always | there - {"retry_count"}
    assert set(skeleton_) == set(told) - COUNTED - OF_THE_END
    assert {name: told[name] for name in skeleton_} == skeleton_
    in_the_line = set(LINE) | {"client_retry" if name == "retry_count" else name for name in there & IN_THE_LINE}
    assert set(line) == in_the_line
    assert all(value is not None for value in (*told.values(), *line.values()))


LINE = (
    "request_id", "endpoint", "status", "outcome", "duration_ms", "tenant", "key_id", "key_name", "alias", "stream", "attempts",
    "prompt_tokens", "cached_tokens", "completion_tokens", "usage_source", "queue_ms",
)  # fmt: skip


def test_line_of_a_call_that_is_not_metered_tells_who_and_how_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(call_log, "note", lines.append)
    for principal in (None, ASKER):
        call = Call(client_request_id=None, max_s=30, record=lambda _held, _event: None)
        call.principal = principal
        call.end(status=401, outcome="refused", error_code="invalid_api_key")
    stranger, known = lines
    assert set(stranger) == {"request_id", "endpoint", "status", "outcome", "error_code", "duration_ms"}
    assert set(known) == set(stranger) | {"tenant", "key_id", "key_name"}
