"""Rows -> Redis. A change leaves a note in its own transaction; after the commit the notes become documents and events.

Order: whoever publishes takes one lock, and reads the rows only then; so the last to write has read the newest rows, and
no stale document can stay. Redis out: the notes wait, the worker tries again every 2 s. Redis flushed, restored from a
backup or short of its last second: its marker is not the one the database remembers, and everything is written anew.
"""

import logging
from collections.abc import Iterable
from functools import cache
from itertools import islice
from typing import Any, Final, cast

import redis
from django.conf import settings
from django.db import OperationalError, connection, models, transaction
from django.db.models.signals import post_delete, post_save
from uuid_utils.compat import uuid7

from accounts.models import ApiKey, Tenant
from gateway.config.documents import CHANGES, CHANGES_KEPT, MARKER, key_key, tenant_key
from gateway.config.rows import Document, all_documents, noted_documents
from gateway.models import Backend, ConfigChange, ContentPolicy, Deployment, Limit, ModelAlias, PoolMember, Publication
from usage.store import RedisError, connect

Kind = ConfigChange.Kind
BATCH: Final = 1000
TIMEOUT_S: Final = 2.0
_LOCK: Final = 0x5365_6B69_7368_6F02  # beside accounts.audit's
_log = logging.getLogger(__name__)


def note(kind: str, object_id: str = "") -> None:
    """Have a document published when the current transaction commits; for rows changed past the signals (`update()`).

    object_id: "" for the platform, the tenant's id, the key's lookup id.
    """
    ConfigChange.objects.create(kind=kind, object_id=object_id)
    transaction.on_commit(drain, robust=True)


def note_tenants(ids: Iterable[str]) -> None:
    """The same for many tenants, in one statement."""
    ConfigChange.objects.bulk_create(ConfigChange(kind=Kind.TENANT, object_id=tenant_id) for tenant_id in ids)
    transaction.on_commit(drain, robust=True)


def drain() -> None:
    """Publish all that is noted. Safe from any process at any time; cheap when there is nothing.

    Raises nothing for a Redis that is out: the notes stay for the worker's next turn.
    """
    try:
        while ConfigChange.objects.exists():
            _drain_batch()
    except (RedisError, OperationalError) as error:  # OperationalError: also the wait for the lock, when it gets too long
        _log.warning("A change of the configuration is not published yet: %s", type(error).__name__)


def catch_up() -> None:
    """Bring Redis to what the database says: all of it when Redis has lost something, else what is noted."""
    try:
        if not _is_whole():
            publish_all()
    except RedisError as error:
        _log.warning("The configuration cannot be published: %s", type(error).__name__)
        return
    drain()


def publish_all() -> None:
    """Write every document, the marker last; gateways then load anew. Raises RedisError.

    Another process that is at it already is left to it. Meanwhile the marker is gone: gateways serve what they hold, and
    answer 503, not 401, to a key they do not.
    """
    client = _client(settings.REDIS_URL)
    with transaction.atomic(durable=True):
        if not _try_lock():
            return
        client.delete(MARKER)
        _delete_strangers(client)
        documents = all_documents()
        while batch := list(islice(documents, BATCH)):
            client.mset({document.name: document.body for document in batch if document.body is not None})
        pipe = client.pipeline(transaction=True)
        _add_event(pipe, "all", "")
        _add_marker(pipe)
        pipe.execute()


def connect_signals() -> None:
    """Note every change of a row that a document shows."""
    for model in (Tenant, ApiKey, Backend, Deployment, PoolMember, ModelAlias, Limit, ContentPolicy):
        post_save.connect(_note_row, sender=model, dispatch_uid="publish-saved")
        post_delete.connect(_note_row, sender=model, dispatch_uid="publish-deleted")


def _note_row(instance: models.Model, update_fields: frozenset[str] | None = None, **_: Any) -> None:
    if update_fields == frozenset({"last_used_at"}):
        return
    if isinstance(instance, Tenant):
        note(Kind.TENANT, str(instance.pk))
    elif isinstance(instance, ModelAlias):
        note(Kind.TENANT, str(instance.tenant_id))
    elif isinstance(instance, ApiKey):
        note(Kind.KEY, instance.lookup_id)
    elif isinstance(instance, ContentPolicy) and instance.tenant_id is not None:
        note(Kind.TENANT, str(instance.tenant_id))
    elif isinstance(instance, Limit):
        _note_limit(instance)
    else:
        note(Kind.PLATFORM)
        if isinstance(instance, Deployment):  # its name stands in the aliases that use it
            users = ModelAlias.objects.filter(models.Q(deployment=instance) | models.Q(canary=instance))
            for tenant_id in users.order_by().values_list("tenant_id", flat=True).distinct():
                note(Kind.TENANT, str(tenant_id))


def _note_limit(limit: Limit) -> None:
    """The document of the subject. One that is deleted together with its limits is gone here, and noted by itself."""
    if limit.tenant_id is not None:
        note(Kind.TENANT, str(limit.tenant_id))
    elif limit.alias_id is not None:
        for tenant_id in ModelAlias.objects.filter(pk=limit.alias_id).values_list("tenant_id", flat=True):
            note(Kind.TENANT, str(tenant_id))
    elif limit.key_id is not None:
        for lookup_id in ApiKey.objects.filter(pk=limit.key_id).values_list("lookup_id", flat=True):
            note(Kind.KEY, lookup_id)


def _drain_batch() -> None:
    with transaction.atomic(durable=True):
        _lock()
        notes = list(ConfigChange.objects.order_by("pk")[:BATCH])
        if notes:
            _write(list(noted_documents(notes)))
            ConfigChange.objects.filter(pk__in=[n.pk for n in notes]).delete()


def _write(documents: list[Document]) -> None:
    """Write the documents that differ from what Redis holds, each with its event, in one transaction of Redis."""
    client = _client(settings.REDIS_URL)
    marker, *held = cast("list[bytes | None]", client.mget([MARKER, *(document.name for document in documents)]))
    changed = [document for document, body in zip(documents, held, strict=True) if document.body != body]
    if not changed:
        return
    pipe = client.pipeline(transaction=True)
    for document in changed:
        if document.body is None:
            pipe.delete(document.name)
        else:
            pipe.set(document.name, document.body)
        _add_event(pipe, document.kind, document.object_id)
    if marker is not None and marker == _published_marker():
        _add_marker(pipe)
    pipe.execute()


def _add_event(pipe: Any, kind: str, object_id: str) -> None:
    pipe.xadd(CHANGES, {"kind": kind, "id": object_id}, maxlen=CHANGES_KEPT, approximate=True)


def _add_marker(pipe: Any) -> None:
    """A new marker on both sides. Should either be lost, the two differ, and everything is published again."""
    marker = str(uuid7())
    pipe.set(MARKER, marker)
    Publication.objects.update_or_create(pk=1, defaults={"marker": marker})


def _published_marker() -> bytes | None:
    marker = Publication.objects.values_list("marker", flat=True).first()
    return None if marker is None else marker.encode()


def _is_whole() -> bool:
    held = _client(settings.REDIS_URL).get(MARKER)
    return held is not None and held == _published_marker()


def _delete_strangers(client: redis.Redis) -> None:
    """Delete documents whose rows are gone: a Redis restored from a backup may hold keys deleted since."""
    for pattern, present in ((tenant_key("*"), _present_tenants), (key_key("*"), _present_keys)):
        start = len(pattern) - 1
        names = client.scan_iter(match=pattern, count=BATCH)
        while batch := [name.decode() for name in islice(names, BATCH)]:
            known = present([name[start:] for name in batch])
            if strangers := [name for name in batch if name[start:] not in known]:
                client.delete(*strangers)


def _present_tenants(ids: list[str]) -> set[str]:
    return {str(pk) for pk in Tenant.objects.filter(pk__in=ids).values_list("pk", flat=True)}


def _present_keys(lookup_ids: list[str]) -> set[str]:
    return set(ApiKey.objects.filter(lookup_id__in=lookup_ids).values_list("lookup_id", flat=True))


def _lock() -> None:
    with connection.cursor() as cursor:
        # A frozen Redis holds a publisher up for seconds: those behind it leave their notes rather than queue.
        cursor.execute("SET LOCAL lock_timeout = '1s'")
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])


def _try_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_LOCK])
        row = cursor.fetchone()
    return bool(row and row[0])


@cache
def _client(url: str) -> redis.Redis:
    return connect(url, max_connections=8, timeout_s=TIMEOUT_S)
