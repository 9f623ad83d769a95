"""Calls that have ended and are not in the ledger yet: their story from the journal, in the second before they are posted."""

from typing import Any, Final, cast
from uuid import UUID

import orjson
import redis

from accounts.models import Tenant
from usage.events import UsageEvent
from usage.models import UsageRecord
from usage.partitions import base, journal_key, partition
from usage.reports import request_story
from usage.spans import at
from usage.store import RedisError, StoreUnavailable

PAGE_ENTRIES: Final = 1000
PAGES_MOST: Final = 10  # about 10 MB: what may be read for one call on the day on which nobody posts
CLOCKS_MS: Final = 60_000  # how far the clocks of a worker and of Redis may be apart


def unposted_report(
    client: redis.Redis, request_id: str, tenant: Tenant, *, key_id: str | None = None
) -> dict[str, Any] | None:
    """As reports.request_report, of a call on the journal; None where it is not there, or not there any more.

    Found are calls settled in the last two hours, among the first 10,000 that ended after it began in its partition.
    Raises StoreUnavailable.
    """
    try:
        wanted = UUID(request_id)
    except ValueError:
        return None
    try:
        events = _events(client, str(tenant.pk), wanted)
    except RedisError as error:
        raise StoreUnavailable(str(error)) from error
    own = [event for event in events if key_id is None or event.key_id == key_id]
    return request_story([_record(event) for event in own]) if own else None


def _events(client: redis.Redis, tenant_id: str, wanted: UUID) -> list[UsageEvent]:
    number, request_id = partition(tenant_id), str(wanted)
    # Settling leaves this mark: without it an id that somebody made up would have the journal read.
    if not client.exists(f"{base(number)}s:{request_id}"):
        return []
    # The id is a UUIDv7: it begins with the call's start in milliseconds, and a stream's ids with their entries' time.
    start = str(max(0, (wanted.int >> 80) - CLOCKS_MS))
    for _ in range(PAGES_MOST):
        page = cast("list[tuple[bytes, dict[bytes, bytes]]]", client.xrange(journal_key(number), start, count=PAGE_ENTRIES))
        lines = [line for _, fields in page if request_id.encode() in (line := fields.get(b"event", b""))]
        events = [UsageEvent.from_dict(orjson.loads(line)) for line in lines]
        found = [event for event in events if (event.request_id, event.tenant_id) == (request_id, tenant_id)]
        if found or len(page) < PAGE_ENTRIES:
            return found
        start = f"({page[-1][0].decode()}"
    return []


def _record(event: UsageEvent) -> UsageRecord:
    """As it will stand in the ledger."""
    values = event.to_dict()
    del values["version"]
    return UsageRecord(created_at=at(values.pop("created_s")), **values)
