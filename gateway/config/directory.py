"""What a worker knows of the configuration: tenants and the platform as they are asked for, keys in a bounded LRU.

The documents are in Redis; watch.py says when one changes. With Redis out or flushed, what is known is served on, and
what is not known raises StoreUnavailable: an infrastructure failure is never an unknown key.
"""

import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Final, TypeVar, cast

import redis
from django.conf import settings

from accounts.keys import PREFIX, Pepper, is_importable, is_minted, lookup_id, matches
from gateway.config import encryption
from gateway.config.documents import (
    MARKER,
    PLATFORM,
    Key,
    Platform,
    Tenant,
    key_key,
    load_key,
    load_platform,
    load_tenant,
    tenant_key,
)
from gateway.config.watch import Watch
from usage.store import RedisError, StoreUnavailable, connect

ABSENT_S: Final = 5.0  # an unknown lookup id is not asked for again; an event ends this earlier
ABSENT_ENTRIES: Final = 10_000
TENANTS_AT_ONCE: Final = 50  # compiled between two waits for Redis, so that calls get their turn
_NO_DIGEST: Final = "0" * 64
_log = logging.getLogger(__name__)
_K = TypeVar("_K")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Cached:
    """epoch: of the directory when this was loaded. One of an earlier epoch serves only while Redis is out."""

    key: Key
    epoch: int


@dataclass(frozen=True, slots=True)
class _Recognised:
    """A text was found to be `key`'s, under `lookup`, with these peppers, after so many events. It holds while these do."""

    lookup: str
    key: Key
    ring: Sequence[Pepper]
    events: int


class Unreadable(StoreUnavailable):
    """A document cannot be compiled: a field key is missing, or its writer is of another release."""


class Directory:
    """Keys, tenants and the platform, as calls read them. Safe from many greenlets or threads.

    key_entries: the most keys held at once. decrypt: ciphertext -> credential; raises ValueError.
    """

    def __init__(self, client: redis.Redis, *, decrypt: Callable[[str], str], key_entries: int) -> None:
        self._redis = client
        self._decrypt = decrypt
        self._key_entries = key_entries
        self._keys: OrderedDict[str, _Cached] = OrderedDict()
        # By the text's digest under a key that is made here: no text stays in memory.
        self._recognised: OrderedDict[bytes, _Recognised] = OrderedDict()
        self._fingerprint_key = secrets.token_bytes(32)
        self._absent: OrderedDict[str, float] = OrderedDict()  # lookup id -> monotonic time until which it is believed
        self._tenants: dict[str, Tenant] = {}
        self._platform: Platform | None = None
        self._lock = threading.Lock()  # never held while waiting
        # Counts events. What was read before one may be older than it, and must not be kept.
        self._events = 0
        self._epoch = 0

    def find_key(self, text: str, ring: Sequence[Pepper]) -> Key | None:
        """The key whose text this is, or None. Whether it is revoked or expired is for the caller to ask.

        Junk is refused without a look-up. A text that was recognised costs no HMAC while the directory holds the very document
        that it was checked against, and nothing has changed: 3.4 us instead of 19 to 23 (2026-11). Raises StoreUnavailable.
        """
        fingerprint = blake2b(text.encode("utf-8", "surrogatepass"), key=self._fingerprint_key, digest_size=16).digest()
        known = self._recognised.get(fingerprint)
        if known is None or known.ring is not ring or known.events != self._events or self._key(known.lookup) is not known.key:
            return self._recognise(text, ring, fingerprint)
        return known.key

    def _recognise(self, text: str, ring: Sequence[Pepper], fingerprint: bytes) -> Key | None:
        events, lookups = self._events, self._lookup_ids(text, ring)
        for lookup in lookups:
            key = self._key(lookup)
            if key is None:
                continue
            if not matches(text, stored_digest=key.digest, pepper_id=key.pepper_id, ring=ring):
                return None
            if lookup == lookups[0]:  # else a key may come to be under the ids before it
                with self._lock:
                    _keep(self._recognised, fingerprint, _Recognised(lookup, key, ring, events), self._key_entries)
            return key
        # As much work as for a known id, so that time does not tell which ids there are.
        matches(text, stored_digest=_NO_DIGEST, pepper_id=ring[0].id, ring=ring)
        return None

    def tenant(self, tenant_id: str) -> Tenant | None:
        """The tenant, or None when it was deleted. Raises StoreUnavailable."""
        if (known := self._tenants.get(tenant_id)) is not None:
            return known
        events = self._events
        [document] = self._fetch([tenant_key(tenant_id)])
        if document is None:
            return None
        tenant = _compiled(load_tenant, document)
        with self._lock:
            if self._events == events:
                self._tenants[tenant_id] = tenant
        return tenant

    def platform(self) -> Platform:
        """Deployments with their backends, and what concerns all tenants. Raises StoreUnavailable."""
        if self._platform is not None:
            return self._platform
        events = self._events
        [document] = self._fetch([PLATFORM])
        if document is None:
            raise StoreUnavailable("the platform's document is missing")
        platform = _compiled(self._load_platform, document)
        with self._lock:
            if self._events == events:
                self._platform = platform
        return platform

    def refresh(self, changes: Collection[tuple[str, str]]) -> None:
        """Take in changes, as (kind, id) of their events. Raises StoreUnavailable, and then the caller must resync.

        Changed keys are forgotten and loaded when next asked for. Changed tenants and platform, if held, are fetched
        first and swapped then, all together: no call waits, and none sees an alias whose deployment is not there yet.
        """
        with self._lock:
            self._events += 1
            for kind, name in changes:
                if kind == "key":
                    self._keys.pop(name, None)
                    self._absent.pop(name, None)
        tenants = [name for kind, name in changes if kind == "tenant" and name in self._tenants]
        has_platform = self._platform is not None and any(kind == "platform" for kind, _ in changes)
        if tenants or has_platform:
            self._renew(self._fetch([PLATFORM, *map(tenant_key, tenants)]), tenants)

    def resync(self) -> bool:
        """Begin anew, after events may have been missed: nothing read before now is trusted, but while Redis is out.

        False when Redis does not hold a whole configuration: then everything stays as it is. Raises StoreUnavailable.
        """
        with self._lock:
            self._events += 1
        marker, platform = self._mget([MARKER, PLATFORM])
        if marker is None or platform is None:
            return False
        self._renew([platform], [])
        tenants = iter(list(self._tenants))
        while batch := list(islice(tenants, TENANTS_AT_ONCE)):
            self._renew(self._fetch([PLATFORM, *map(tenant_key, batch)]), batch)
        with self._lock:
            self._epoch += 1
            self._absent = OrderedDict()
        return True

    def _lookup_ids(self, text: str, ring: Sequence[Pepper]) -> list[str]:
        """Under which ids `text` may be found; none for junk. An imported key was filed under the pepper of its day."""
        if text.startswith(PREFIX):
            return [lookup_id(text, ring[0])] if is_minted(text) else []
        if not is_importable(text) or not self.platform().has_imported_keys:
            return []
        return [lookup_id(text, pepper) for pepper in ring]

    def _key(self, lookup: str) -> Key | None:
        cached = self._keys.get(lookup)
        if cached is not None and cached.epoch == self._epoch:
            try:  # noqa: SIM105 - suppress() is four functions of each call; one move is whole without the lock
                self._keys.move_to_end(lookup)
            except KeyError:  # forgotten by now
                pass
            return cached.key
        if self._absent.get(lookup, 0.0) > time.monotonic():
            return None
        try:
            return self._load_key(lookup)
        except StoreUnavailable:
            if cached is None:
                raise
            return cached.key

    def _load_key(self, lookup: str) -> Key | None:
        events = self._events
        [document] = self._fetch([key_key(lookup)])
        key = None if document is None else _compiled(load_key, document)
        with self._lock:
            if self._events == events:
                if key is not None:
                    _keep(self._keys, lookup, _Cached(key, self._epoch), self._key_entries)
                else:
                    self._keys.pop(lookup, None)
                    _keep(self._absent, lookup, time.monotonic() + ABSENT_S, ABSENT_ENTRIES)
        return key

    def _renew(self, documents: Sequence[bytes | None], tenants: Sequence[str]) -> None:
        """Swap in the platform's document, which is the first, and those of `tenants`."""
        platform = None if documents[0] is None else _readable(self._load_platform, documents[0], self._platform)
        renewed = {
            tenant_id: None if document is None else _readable(load_tenant, document, self._tenants.get(tenant_id))
            for tenant_id, document in zip(tenants, documents[1:], strict=True)
        }
        with self._lock:
            self._platform = platform or self._platform
            for tenant_id, tenant in renewed.items():
                if tenant is None:
                    self._tenants.pop(tenant_id, None)
                else:
                    self._tenants[tenant_id] = tenant

    def _load_platform(self, document: bytes) -> Platform:
        return load_platform(document, self._decrypt)

    def _fetch(self, names: Sequence[str]) -> list[bytes | None]:
        """Documents as Redis holds them, None: really absent, since the marker is there. One round trip."""
        marker, *documents = self._mget([MARKER, *names])
        if marker is None and None in documents:
            raise StoreUnavailable("Redis does not hold the configuration")
        return documents

    def _mget(self, names: Sequence[str]) -> list[bytes | None]:
        try:
            return cast("list[bytes | None]", self._redis.mget(names))
        except RedisError as error:
            raise StoreUnavailable(type(error).__name__) from error


def start() -> Directory:
    """Build this worker's directory and have a greenlet (a thread, where nothing is patched) keep it up to date."""
    global _current, _watch  # noqa: PLW0603 - the one place that writes them, once a worker
    if _current is None:
        _current = Directory(connect(settings.REDIS_URL), decrypt=encryption.decrypt, key_entries=settings.KEY_CACHE_ENTRIES)
        _watch = Watch(_current, settings.REDIS_URL)
        threading.Thread(target=_watch.run, name="configuration-watch", daemon=True).start()
    return _current


def current() -> Directory:
    """This worker's directory."""
    if _current is None:
        raise RuntimeError("gateway.config.directory.start() has not been called in this process.")
    return _current


def synced_at() -> float | None:
    """When this worker last knew that it has missed nothing, in monotonic seconds; None: never yet."""
    return None if _watch is None else _watch.synced_at


_current: Directory | None = None
_watch: Watch | None = None


def _keep(cache: OrderedDict[_K, _T], name: _K, value: _T, most: int) -> None:
    cache[name] = value
    cache.move_to_end(name)
    while len(cache) > most:
        cache.popitem(last=False)


def _compiled(load: Callable[[bytes], _T], document: bytes) -> _T:
    try:
        return load(document)
    except (ValueError, KeyError, TypeError) as error:
        raise Unreadable(f"{load.__name__}: {error}") from error


def _readable(load: Callable[[bytes], _T], document: bytes, previous: _T | None) -> _T | None:
    """The document compiled; `previous` when it cannot be. One bad document must not keep the others from being renewed."""
    try:
        return _compiled(load, document)
    except Unreadable as error:
        _log.error("A document of the configuration cannot be read, the last good one stays: %s", error)
        return previous
