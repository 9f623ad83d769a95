"""The gateway's own checks are timed, and the event tells of those that were reached."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from gateway import admission
from gateway.api.chat_request import Upstream
from gateway.api.views import ChatCompletions
from gateway.call import Call, us_since
from gateway.config.documents import Alias, Deployment
from gateway.exceptions import Overloaded
from tests.gateway.policy.test_judge import ASKER
from usage.estimates import measure
from usage.events import UsageEvent


def test_time_since_is_in_microseconds() -> None:
    begun = time.perf_counter()
    time.sleep(0.01)
    spent_us = us_since(begun)
    assert type(spent_us) is int
    assert 10_000 <= spent_us < 60_000_000


def test_time_of_what_raises_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is refused, and a call that no limit has room for."""
    call = Call(client_request_id=None, max_s=30, record=lambda _held, _event: None)
    request = SimpleNamespace(META={}, call=call, method="POST", headers={})
    assert ChatCompletions().dispatch(request).status_code == 401  # type: ignore[arg-type]
    assert call.auth_us is not None
    monkeypatch.setattr(admission, "take", refuse)
    alias, reach = Alias("general", "tiny", 0), [Deployment("tiny", "tiny", ())]
    with pytest.raises(Overloaded):
        admission.admit(call, ASKER, alias, reach, Upstream({}, ()), measure(b"", messages=0), wished=False)
    assert call.admission_us is not None
    call.end(status=400, outcome="refused")


def refuse(*_: Any) -> None:
    raise Overloaded(retry_after_s=1)


def test_event_tells_what_was_timed_and_leaves_out_the_rest() -> None:
    event = UsageEvent.from_dict(
        dict.fromkeys(("error_code",))
        | {
            "request_id": "x", "created_s": 1.0, "tenant": "acme", "tenant_id": "t", "key_id": "k", "key_name": "ci",
            "alias": "a", "status": 403, "outcome": "refused", "stream": False, "prompt_tokens": 0, "cached_tokens": 0,
            "completion_tokens": 0, "usage_source": "none", "duration_ms": 3, "attempts": 0, "auth_us": 420, "policy_us": 900,
        }
    )  # fmt: skip
    told = event.to_dict()
    assert (told["auth_us"], told["policy_us"]) == (420, 900)
    assert "admission_us" not in told


def test_call_begins_without_any() -> None:
    call = Call(client_request_id=None, max_s=30, record=lambda _held, _event: None)
    assert (call.auth_us, call.policy_us, call.admission_us) == (None, None, None)
    call.end(status=400, outcome="refused")
