"""What the worker does for the gateway: publish what could not be published at once, write down when keys were used."""

from contextlib import suppress
from typing import Any, Final, cast

from celery import shared_task
from django.conf import settings
from django.db import OperationalError, connection, transaction

from gateway import counting, recovery
from gateway.config import publish
from gateway.last_used import MARKS, TAKEN
from usage.store import RedisError, StoreUnavailable, connect

_LOCK: Final = 0x5365_6B69_7368_6F04  # beside those of accounts.audit and gateway.config


@shared_task
def publish_configuration() -> None:
    """Every 2 s: what a Redis that was out has missed, and everything when it was flushed."""
    publish.catch_up()


@shared_task
def restore_counters() -> None:
    """Every 2 s: the counters of limits, when Redis was emptied. A store that is out is asked again."""
    with suppress(StoreUnavailable, RedisError, OperationalError):
        recovery.restore_counters()


@shared_task
def count_backends() -> None:
    """Every minute: what the backends count themselves, for the reconciliation."""
    counting.count_backends()


@shared_task
def record_last_used() -> None:
    """Take the marks of last_used.note to the table. A mark never sets a time back. Raises RedisError."""
    client = connect(settings.REDIS_URL, max_connections=1, timeout_s=5)
    with client, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_LOCK])
        if not cast("tuple[bool]", cursor.fetchone())[0]:
            return  # the previous turn is not done
        # What an interrupted turn has taken is still there, and comes first.
        if not client.exists(TAKEN) and not _take(client):
            return
        marks = cast("dict[bytes, bytes]", client.hgetall(TAKEN))
        cursor.execute(
            """
            UPDATE accounts_apikey AS key SET last_used_at = to_timestamp(mark.used_s)
            FROM unnest(%s::text[], %s::float8[]) AS mark (lookup_id, used_s)
            WHERE key.lookup_id = mark.lookup_id
              AND (key.last_used_at IS NULL OR key.last_used_at < to_timestamp(mark.used_s))
            """,
            [[name.decode() for name in marks], [float(used_s) for used_s in marks.values()]],
        )
        client.delete(TAKEN)


def _take(client: Any) -> bool:
    """Move the marks aside in one step, so that a mark made meanwhile is not lost."""
    return bool(client.exists(MARKS)) and bool(client.rename(MARKS, TAKEN))
