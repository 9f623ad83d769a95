"""Calls for the quota's tests: their limits, their events, and a quota whose counters are whole."""

from typing import Any, Final

import redis

from tests.usage.quota_model import PRICE, cost_nano
from usage.events import UsageEvent
from usage.limits import BoundLimit, Limit
from usage.partitions import PARTITIONS
from usage.quota import Quota, Reservation
from usage.reservation import Refusal, skeleton

ACME: Final = "0198c0de-0000-7000-8000-000000000001"
KEY: Final = "0198c0de-0000-7000-8000-00000000000a"
TOKYO: Final = "Asia/Tokyo"
NOW_S: Final = 1_790_000_000.25  # 2026-09-21T13:33:20.25Z, 20.25 s into a minute


def whole_quota(client: redis.Redis) -> Quota:
    """As after the first restoring: there is nothing to restore."""
    quota = Quota(client)
    for number in range(PARTITIONS):
        assert quota.mark_alive(number, journal_end=quota.journal_end(number), now_s=NOW_S)
    return quota


def limit(name: str, maximum: int, *, subject: str = "key", subject_id: str = KEY, **more: Any) -> BoundLimit:
    return BoundLimit(subject, subject_id, Limit(name, maximum, **more))


def event(request_id: str, prompt: int = 0, completion: int = 0, **changes: Any) -> UsageEvent:
    """A completed call of this usage, or, without any, a refused one; or as `changes` say."""
    values: dict[str, Any] = {
        "request_id": request_id,
        "created_s": NOW_S,
        "tenant": "acme",
        "tenant_id": ACME,
        "key_id": KEY,
        "key_name": "ci",
        "alias": "general",
        "deployment": "small",
        "backend": "gpu-1",
        "status": 200,
        "outcome": "completed" if prompt else "refused",
        "error_code": None,
        "stream": True,
        "prompt_tokens": prompt,
        "cached_tokens": 0,
        "completion_tokens": completion,
        "usage_source": "backend" if prompt else "none",
        "first_token_ms": 200,
        "duration_ms": 1500,
        "attempts": 1,
        "cost_nano": cost_nano(prompt, completion),
        "price": PRICE,
    }
    return UsageEvent(**(values | changes))


def ask(
    quota: Quota,
    request_id: str,
    limits: tuple[BoundLimit, ...],
    *,
    prompt: int = 100,
    output: int = 500,
    now_s: float = NOW_S,
    tenant_id: str = ACME,
    time_zone: str = TOKYO,
    meta: bytes | None = None,
) -> Reservation | Refusal:
    return quota.reserve(
        request_id,
        tenant_id,
        limits,
        prompt_tokens=prompt,
        output_tokens=output,
        cost_nano=cost_nano(prompt, output),
        time_zone=time_zone,
        now_s=now_s,
        meta=skeleton(event(request_id, tenant_id=tenant_id)) if meta is None else meta,
    )


def admitted(answer: Reservation | Refusal) -> Reservation:
    assert isinstance(answer, Reservation), answer
    return answer


def refused(answer: Reservation | Refusal) -> Refusal:
    assert isinstance(answer, Refusal), answer
    return answer
