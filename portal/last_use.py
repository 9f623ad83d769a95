"""When keys were last used: what the table says, and what Redis knows already."""

from collections.abc import Sequence
from datetime import UTC, datetime

from django.conf import settings

from accounts.models import ApiKey
from gateway.last_used import marks_s
from usage.store import connect


def freshen(*keys: ApiKey | None) -> None:
    """Set `last_used_at` of the keys, in memory alone, to the latest use anybody knows of. One round trip."""
    given: Sequence[ApiKey] = [key for key in keys if key is not None]
    with connect(settings.REDIS_URL, max_connections=1) as client:
        marks = marks_s(client, [key.lookup_id for key in given])
    for key in given:
        if key.lookup_id in marks:
            marked = datetime.fromtimestamp(marks[key.lookup_id], UTC)
            key.last_used_at = max(key.last_used_at or marked, marked)
