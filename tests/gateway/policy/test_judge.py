"""What judges decide: by their first word, within their time, each as a call of its own."""

import threading
import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from gateway.api.chat_request import ChatRequest
from gateway.call import Call
from gateway.config.documents import Key, Tenant
from gateway.exceptions import ModelNotFound, UpstreamTimeout
from gateway.policy.judge import ask_judges
from gateway.policy.reading import Text
from gateway.policy.rules import Policy, parse_rules
from gateway.policy.ruleset import Source
from gateway.principal import Principal
from usage.events import UsageEvent

PATIENCE_S = 30.0
ASKER = Principal(
    Tenant(
        id="0198c0de-0000-7000-8000-000000000001", slug="acme", name="Acme", is_active=True, error_dialect="openai",
        unknown_fields="drop", time_zone="Asia/Tokyo",
    ),
    Key(
        id="0198c0de-0000-7000-8000-000000000002", lookup_id="k", tenant_id="0198c0de-0000-7000-8000-000000000001", name="ci",
        pepper_id="p", digest="", is_active=True, expires_at_s=None, scopes=frozenset({"chat"}),
        aliases=frozenset({"general"}), networks=(), error_dialect=None,
    ),
)  # fmt: skip
SAID = (Text("input.system", "Be kind."), Text("input.user", "How is it done?"))


def source(**changes: Any) -> Source:
    rule = {"kind": "judge", "alias": "guard", "where": ["input.user"], "action": "block", "timeout_ms": 5000} | changes
    return Source("house", 4, Policy("house", 4, parse_rules([rule])).rules[0])


def call(record: Callable[..., None] = lambda *_: None) -> Call:
    made = Call(client_request_id=None, max_s=PATIENCE_S, record=record)
    made.principal = ASKER
    return made


def answering(text: str | None) -> Callable[[Call, Principal, ChatRequest], bytes]:
    def complete(asked: Call, _principal: Principal, _request: ChatRequest) -> bytes:
        asked.end(status=200, outcome="completed")
        return orjson.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})

    return complete


@pytest.mark.parametrize(
    "text", ["unsafe", "\n\nunsafe\nS1", "Unsafe.", "BLOCK", "yes", "Safety: Unsafe\nCategories: Violent", "**unsafe**"]
)
def test_a_verdict_against_it_is_the_rules_action(text: str) -> None:
    [decision] = ask_judges(call(), ASKER, [source()], SAID, complete=answering(text))
    assert (decision.policy, decision.version, decision.rule, decision.kind) == ("house", 4, "1", "judge")
    assert (decision.action, decision.surface, decision.start, decision.is_failure) == ("block", "input.user", None, False)
    [flagged] = ask_judges(call(), ASKER, [source(action="flag")], SAID, complete=answering(text))
    assert flagged.action == "flag"


@pytest.mark.parametrize("text", ["safe", "\n\nsafe", "Safe.", "no", "allow", "Safety: Safe"])
def test_a_verdict_for_it_decides_nothing(text: str) -> None:
    assert ask_judges(call(), ASKER, [source()], SAID, complete=answering(text)) == ()


@pytest.mark.parametrize("text", [None, "", "...", "I cannot say that this is safe.", "unsafely", "安全"])
def test_what_is_no_verdict_is_a_failure(text: str | None) -> None:
    [decision] = ask_judges(call(), ASKER, [source(on_failure="closed")], SAID, complete=answering(text))
    assert (decision.action, decision.is_failure) == ("block", True)
    [decision] = ask_judges(call(), ASKER, [source(on_failure="open")], SAID, complete=answering(text))
    assert (decision.action, decision.is_failure) == ("flag", True)


def test_a_rule_that_only_flags_never_blocks() -> None:
    [decision] = ask_judges(call(), ASKER, [source(action="flag", on_failure="closed")], SAID, complete=answering(None))
    assert (decision.action, decision.is_failure) == ("flag", True)


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [(ModelNotFound("guard"), 404, "refused"), (UpstreamTimeout("guard"), 504, "timeout"), (ValueError("odd"), 500, "failed")],
)
def test_any_failure_ends_its_call_and_is_told(error: Exception, status: int, outcome: str) -> None:
    events: list[UsageEvent] = []

    def complete(*_: object) -> bytes:
        raise error

    asking = call(lambda _held, event: events.append(UsageEvent.from_dict(orjson.loads(event.json()))))
    [decision] = ask_judges(asking, ASKER, [source(on_failure="open")], SAID, complete=complete)
    assert (decision.action, decision.is_failure) == ("flag", True)
    assert [(event.status, event.outcome, event.client_request_id) for event in events] == [
        (status, outcome, asking.request_id)
    ]


def test_it_is_asked_for_one_word_about_the_texts_of_its_surfaces() -> None:
    asked: list[ChatRequest] = []

    def complete(_call: Call, principal: Principal, request: ChatRequest) -> bytes:
        asked.append(request)
        assert principal.key.aliases is None
        return answering("safe")(_call, principal, request)

    ask_judges(call(), ASKER, [source()], SAID, complete=complete)
    ask_judges(call(), ASKER, [source(where=["input"])], SAID, complete=complete)
    assert {request.model for request in asked} == {"guard"}
    assert all(request.forwarded["temperature"] == 0 and request.max_tokens == 16 for request in asked)
    lines = [request.forwarded["messages"][1]["content"].split("\n") for request in asked]
    assert [between[1:-1] for between in lines] == [["How is it done?"], ["Be kind.", "How is it done?"]]
    assert all(between[0] == between[-1] for between in lines)
    assert lines[0][0] != lines[1][0]


def test_a_call_that_says_nothing_there_is_not_judged() -> None:
    def complete(*_: object) -> bytes:
        raise AssertionError("asked")

    assert ask_judges(call(), ASKER, [source(where=["input.documents"])], SAID, complete=complete) == ()


def test_several_are_asked_side_by_side() -> None:
    together = threading.Barrier(3, timeout=PATIENCE_S)

    def complete(asked: Call, principal: Principal, request: ChatRequest) -> bytes:
        together.wait()
        return answering("unsafe" if request.model == "b" else "safe")(asked, principal, request)

    sources = [source(alias=name, name=name) for name in "abc"]
    [decision] = ask_judges(call(), ASKER, sources, SAID, complete=complete)
    assert decision.rule == "b"


def test_one_that_never_answers_is_left_when_its_time_is_over() -> None:
    let_go = threading.Event()

    def complete(asked: Call, *_: object) -> bytes:
        assert asked.deadline - time.monotonic() < 0.2
        let_go.wait(PATIENCE_S)
        return b""

    asking = call()
    [decision] = ask_judges(asking, ASKER, [source(timeout_ms=100, on_failure="closed")], SAID, complete=complete)
    let_go.set()
    assert (decision.action, decision.is_failure) == ("block", True)


def test_a_client_that_leaves_ends_the_questions_of_its_call() -> None:
    asking = call()
    left = threading.Event()

    class Place:
        queue_ms = 0

        def abandon(self) -> None:
            left.set()

        def release(self) -> None: ...

    def complete(asked: Call, *_: object) -> bytes:
        asked.hold(Place(), lambda: None)
        asking.abandon()
        assert left.wait(PATIENCE_S)
        raise UpstreamTimeout("guard")

    ask_judges(asking, ASKER, [source()], SAID, complete=complete)
    assert left.is_set()
