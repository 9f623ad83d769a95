"""The gateway's own checks are timed, and the event tells of those that were reached."""

import time
from contextlib import suppress

from gateway.call import Call, Timed
from usage.events import UsageEvent


def test_what_a_call_does_is_timed_also_when_it_raises() -> None:
    call = Call(client_request_id=None, max_s=30, record=lambda _held, _event: None)
    with suppress(ValueError), Timed(call, "auth_us"):
        time.sleep(0.01)
        raise ValueError
    assert call.auth_us is not None
    assert 10_000 <= call.auth_us < 60_000_000
    call.end(status=400, outcome="refused")


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
