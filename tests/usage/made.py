"""Made-up usage events."""

from datetime import datetime
from typing import Any

import orjson
import redis
from uuid_utils.compat import uuid7

from accounts.models import Tenant
from usage.events import UsageEvent
from usage.partitions import journal_key, partition

KEY_ID = "0198c0de-0000-7000-8000-00000000000a"
OTHER_KEY_ID = "0198c0de-0000-7000-8000-00000000000b"


def event(tenant: Tenant, at: datetime, **changes: Any) -> UsageEvent:
    """A completed call of 100 prompt and 20 completion tokens, at an aware time, or as `changes` say."""
    values: dict[str, Any] = {
        "request_id": str(uuid7()),
        "created_s": round(at.timestamp(), 3),
        "tenant": tenant.slug,
        "tenant_id": str(tenant.pk),
        "key_id": KEY_ID,
        "key_name": "ci",
        "alias": "general",
        "deployment": "small",
        "backend": "gpu-1",
        "status": 200,
        "outcome": "completed",
        "error_code": None,
        "stream": True,
        "prompt_tokens": 100,
        "cached_tokens": 40,
        "completion_tokens": 20,
        "usage_source": "backend",
        "first_token_ms": 200,
        "duration_ms": 1500,
        "attempts": 1,
        "cost_nano": 1_500_000,
    }
    return UsageEvent(**(values | changes))


def put_on_journal(client: redis.Redis, *events: UsageEvent) -> None:
    for one in events:
        client.xadd(journal_key(partition(one.tenant_id)), {"event": orjson.dumps(one.to_dict())})
