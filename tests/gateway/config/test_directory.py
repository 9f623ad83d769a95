"""What a worker knows, with Redis there, out and flushed; and what it asks Redis for."""

import sys
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import redis
from django.conf import settings

from accounts.keys import LOOKUP_LENGTH, PREFIX, SECRET_LENGTH, Pepper, _checksum, digest, lookup_id, mint
from gateway.config import directory as directory_module
from gateway.config import encryption
from gateway.config.directory import ABSENT_ENTRIES, Directory
from gateway.config.documents import MARKER, PLATFORM, key_key, tenant_key
from tests.gateway.config.conftest import eventually, make_directory
from usage.limits import Limit
from usage.store import StoreUnavailable, connect


class CountingRedis(redis.Redis):
    """A real client that counts its commands."""

    commands = 0

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.commands += 1
        return super().execute_command(*args, **options)


@pytest.fixture
def client(valkey: redis.Redis) -> Iterator[CountingRedis]:
    put_platform(valkey)
    valkey.set(MARKER, "m1")
    with CountingRedis.from_url(settings.REDIS_URL) as counting:
        yield counting


@pytest.fixture
def counted(client: CountingRedis) -> Directory:
    return Directory(client, decrypt=encryption.decrypt, key_entries=100)


def put_platform(store: redis.Redis, **fields: Any) -> None:
    document = {"backends": [], "deployments": [], "cors_origins": [], "has_imported_keys": False}
    store.set(PLATFORM, orjson.dumps(document | fields))


def put_tenant(store: redis.Redis, tenant_id: str, **fields: Any) -> None:
    document = {
        "id": tenant_id,
        "slug": tenant_id,
        "name": tenant_id,
        "is_active": True,
        "error_dialect": "openai",
        "unknown_fields": "drop",
        "time_zone": "UTC",
        "cors_origins": [],
        "aliases": [],
    }
    store.set(tenant_key(tenant_id), orjson.dumps(document | fields))


def key_document(text: str, pepper: Pepper, **fields: Any) -> bytes:
    document = {
        "id": "k",
        "lookup_id": lookup_id(text, pepper),
        "tenant_id": "t",
        "name": "ci",
        "pepper_id": pepper.id,
        "digest": digest(text, pepper),
        "is_active": True,
        "expires_at_s": None,
        "scopes": ["chat"],
        "aliases": None,
        "networks": ["192.0.2.0/24"],
        "error_dialect": None,
    }
    return orjson.dumps(document | fields)


def put_key(store: redis.Redis, text: str, pepper: Pepper, **fields: Any) -> None:
    store.set(key_key(lookup_id(text, pepper)), key_document(text, pepper, **fields))


def numbered_key(number: int) -> str:
    """As mint() makes them, but quick and always the same."""
    body = PREFIX + f"{number:0{LOOKUP_LENGTH}d}" + "s" * SECRET_LENGTH
    return body + _checksum(body)


def test_known_key_costs_one_round_trip_and_then_none(
    client: CountingRedis, counted: Directory, ring: tuple[Pepper, ...]
) -> None:
    text = mint()
    put_key(client, text, ring[0])
    client.commands = 0
    assert counted.find_key(text, ring).id == "k"
    assert counted.find_key(text, ring).id == "k"
    assert client.commands == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sk-",
        "Bearer",
        PREFIX,
        PREFIX + "A" * 50,
        pytest.param(mint()[:-1] + "!", id="minted, another end"),
        pytest.param(mint() + "A", id="minted, one more"),
        pytest.param(mint().lower(), id="minted, lower case"),
        "imported-looking-but-there-are-no-imported-keys",
        "日本語" * 10,
        "\ud800" * 30,
        "x" * 5000,
    ],
)
def test_junk_makes_no_command(client: CountingRedis, counted: Directory, ring: tuple[Pepper, ...], text: str) -> None:
    counted.platform()
    client.commands = 0
    assert counted.find_key(text, ring) is None
    assert client.commands == 0


def test_right_form_and_wrong_secret_is_no_key(client: CountingRedis, counted: Directory, ring: tuple[Pepper, ...]) -> None:
    text = mint()
    put_key(client, text, ring[0])
    body = text[: len(PREFIX) + LOOKUP_LENGTH] + "0" * SECRET_LENGTH
    assert counted.find_key(body + _checksum(body), ring) is None
    assert counted.find_key(text, ring) is not None


def test_key_whose_pepper_has_left_is_no_key(client: CountingRedis, counted: Directory, ring: tuple[Pepper, ...]) -> None:
    text = mint()
    put_key(client, text, ring[1])
    assert counted.find_key(text, ring) is not None
    assert counted.find_key(text, ring[:1]) is None


def test_key_imported_under_an_older_pepper_is_found(
    client: CountingRedis, counted: Directory, ring: tuple[Pepper, ...]
) -> None:
    text = "a-key-taken-over-from-elsewhere"
    put_platform(client, has_imported_keys=True)
    put_key(client, text, ring[1])
    assert counted.find_key(text, ring).lookup_id == lookup_id(text, ring[1])


def test_a_text_that_was_recognised_is_not_checked_again(
    client: CountingRedis, counted: Directory, ring: tuple[Pepper, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, checked = mint(), []
    put_key(client, text, ring[0])
    check = directory_module.matches
    monkeypatch.setattr(directory_module, "matches", lambda text, **of: checked.append(text) or check(text, **of))
    for _ in range(3):
        assert counted.find_key(text, ring).id == "k"
    assert checked == [text]
    counted.refresh({("key", "another")})
    assert counted.find_key(text, ring).id == "k"
    assert checked == [text, text], "after any change once more"


def test_a_change_of_a_recognised_key_is_in_force_at_once(
    client: CountingRedis, counted: Directory, ring: tuple[Pepper, ...]
) -> None:
    text = mint()
    lookup = lookup_id(text, ring[0])
    put_key(client, text, ring[0])
    assert counted.find_key(text, ring).is_active
    put_key(client, text, ring[0], is_active=False)
    counted.refresh({("key", lookup)})
    assert not counted.find_key(text, ring).is_active
    put_key(client, text, ring[0], digest=digest(mint(), ring[0]))
    counted.refresh({("key", lookup)})
    assert counted.find_key(text, ring) is None, "its secret is another"
    put_key(client, text, ring[0])
    assert counted.resync()
    assert counted.find_key(text, ring) is not None, "events may have been missed"
    client.delete(key_key(lookup))
    counted.refresh({("key", lookup)})
    assert counted.find_key(text, ring) is None


def test_a_recognised_imported_key_is_junk_once_there_are_none(
    client: CountingRedis, counted: Directory, ring: tuple[Pepper, ...]
) -> None:
    text = "a-key-taken-over-from-elsewhere"
    put_platform(client, has_imported_keys=True)
    put_key(client, text, ring[0])
    assert counted.find_key(text, ring) is not None
    put_platform(client)
    counted.refresh({("platform", "")})
    assert counted.find_key(text, ring) is None


def test_a_key_imported_again_under_the_present_pepper_is_found_without_an_event(
    client: CountingRedis, counted: Directory, ring: tuple[Pepper, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "a-key-taken-over-from-elsewhere"
    put_platform(client, has_imported_keys=True)
    put_key(client, text, ring[1])
    assert counted.find_key(text, ring).pepper_id == ring[1].id
    put_key(client, text, ring[0])
    later = time.monotonic() + directory_module.ABSENT_S + 1
    monkeypatch.setattr(directory_module.time, "monotonic", lambda: later)
    assert counted.find_key(text, ring).pepper_id == ring[0].id


def test_recognising_keeps_no_text_and_is_bounded(client: CountingRedis, counted: Directory, ring: tuple[Pepper, ...]) -> None:
    texts = [numbered_key(number) for number in range(150)]
    for text in texts:
        put_key(client, text, ring[0])
        assert counted.find_key(text, ring) is not None
    assert len(counted._recognised) == 100
    assert not any(text in repr(vars(counted)) for text in texts)


def test_unknown_key_is_asked_for_once_until_an_event(
    client: CountingRedis, counted: Directory, ring: tuple[Pepper, ...]
) -> None:
    text = mint()
    client.commands = 0
    assert counted.find_key(text, ring) is None
    assert counted.find_key(text, ring) is None
    assert client.commands == 1
    put_key(client, text, ring[0])
    counted.refresh({("key", lookup_id(text, ring[0]))})
    assert counted.find_key(text, ring) is not None


def test_unknown_key_is_believed_for_seconds_only(
    client: CountingRedis, counted: Directory, ring: tuple[Pepper, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = mint()
    assert counted.find_key(text, ring) is None
    put_key(client, text, ring[0])  # and no event
    later = time.monotonic() + directory_module.ABSENT_S + 1
    monkeypatch.setattr(directory_module.time, "monotonic", lambda: later)
    assert counted.find_key(text, ring) is not None


def test_held_keys_and_unknown_ids_are_bounded(client: CountingRedis, counted: Directory, ring: tuple[Pepper, ...]) -> None:
    texts = [numbered_key(number) for number in range(150)]
    for text in texts:
        put_key(client, text, ring[0])
    for text in texts:
        counted.find_key(text, ring)
    counted.find_key(texts[50], ring)  # the oldest that is left; now the newest
    put_key(client, numbered_key(150), ring[0])
    counted.find_key(numbered_key(150), ring)
    assert len(counted._keys) == 100
    assert lookup_id(texts[50], ring[0]) in counted._keys
    assert lookup_id(texts[51], ring[0]) not in counted._keys
    for number in range(1000, 1000 + ABSENT_ENTRIES + 50):
        counted.find_key(numbered_key(number), ring)
    assert len(counted._absent) == ABSENT_ENTRIES


def test_redis_out_serves_what_is_known(ring: tuple[Pepper, ...], client: CountingRedis) -> None:
    known, unknown = mint(), mint()
    put_key(client, known, ring[0])
    put_tenant(client, "t")
    directory = make_directory()
    directory.platform()
    assert directory.find_key(known, ring) is not None
    assert directory.tenant("t") is not None
    directory._redis = connect("unix:///nowhere/valkey.sock")
    assert directory.find_key(known, ring) is not None
    assert directory.tenant("t") is not None
    assert directory.platform() is not None
    for ask in (lambda: directory.find_key(unknown, ring), lambda: directory.tenant("other"), directory.resync):
        with pytest.raises(StoreUnavailable):
            ask()
    assert directory.find_key("junk", ring) is None
    with pytest.raises(StoreUnavailable):
        make_directory("unix:///nowhere/valkey.sock").platform()


def test_flushed_redis_makes_no_known_key_unknown(client: CountingRedis, counted: Directory, ring: tuple[Pepper, ...]) -> None:
    known, unknown = mint(), mint()
    put_key(client, known, ring[0])
    counted.find_key(known, ring)
    client.flushdb()
    assert counted.resync() is False
    assert counted.find_key(known, ring) is not None
    with pytest.raises(StoreUnavailable):
        counted.find_key(unknown, ring)
    with pytest.raises(StoreUnavailable):
        counted.platform()


def test_resync_trusts_nothing_it_held(client: CountingRedis, counted: Directory, ring: tuple[Pepper, ...]) -> None:
    text, created = mint(), mint()
    put_key(client, text, ring[0])
    put_tenant(client, "t")
    put_tenant(client, "gone")
    assert counted.find_key(text, ring).is_active
    assert counted.find_key(created, ring) is None
    assert counted.tenant("t").name == "t"
    assert counted.tenant("gone") is not None
    counted.platform()
    put_key(client, text, ring[0], is_active=False)
    put_key(client, created, ring[0])
    put_tenant(client, "t", name="new")
    client.delete(tenant_key("gone"))
    put_platform(client, cors_origins=["https://app.example"])
    assert counted.resync()
    assert not counted.find_key(text, ring).is_active
    assert counted.find_key(created, ring) is not None
    assert counted.tenant("t").name == "new"
    assert counted.tenant("gone") is None
    assert counted.platform().cors_origins == {"https://app.example"}


def test_key_of_before_a_resync_serves_while_redis_is_out(
    client: CountingRedis, counted: Directory, ring: tuple[Pepper, ...]
) -> None:
    text = mint()
    put_key(client, text, ring[0])
    counted.find_key(text, ring)
    assert counted.resync()
    counted._redis = connect("unix:///nowhere/valkey.sock")
    assert counted.find_key(text, ring) is not None
    counted.refresh({("key", lookup_id(text, ring[0]))})  # but not past its own event
    with pytest.raises(StoreUnavailable):
        counted.find_key(text, ring)


def test_load_that_races_with_an_event_is_not_kept(
    client: CountingRedis, counted: Directory, ring: tuple[Pepper, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document is read, then it changes, and its event arrives before the reader has put it into the cache."""
    text = mint()
    put_key(client, text, ring[0])
    put_tenant(client, "t")
    mget = client.mget

    def slow_mget(names: list[str]) -> list[bytes | None]:
        documents = mget(names)
        put_key(client, text, ring[0], is_active=False)
        put_tenant(client, "t", name="new")
        put_platform(client, cors_origins=["https://app.example"])
        counted.refresh({("key", lookup_id(text, ring[0])), ("tenant", "t"), ("platform", "")})
        return documents

    with monkeypatch.context() as racing:
        racing.setattr(client, "mget", slow_mget)
        assert counted.find_key(text, ring).is_active
        put_tenant(client, "t")
        assert counted.tenant("t").name == "t"
        put_platform(client)
        assert counted.platform().cors_origins == set()
    assert not counted.find_key(text, ring).is_active
    assert counted.tenant("t").name == "new"
    assert counted.platform().cors_origins == {"https://app.example"}


def test_changed_tenant_is_fetched_before_it_is_asked_for(client: CountingRedis, counted: Directory) -> None:
    put_tenant(client, "t")
    counted.tenant("t")
    put_tenant(client, "t", name="new")
    put_tenant(client, "never asked for")
    counted.refresh({("tenant", "t"), ("tenant", "never asked for")})
    client.commands = 0
    assert counted.tenant("t").name == "new"
    assert client.commands == 0
    assert set(counted._tenants) == {"t"}


def test_unreadable_platform_keeps_the_last_good_one(
    client: CountingRedis, counted: Directory, ring: tuple[Pepper, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """A field key that was not rolled out yet: revocations must still come through."""
    text = mint()
    put_key(client, text, ring[0])
    counted.find_key(text, ring)
    platform = counted.platform()
    backend = {"name": "gpu", "url": "http://gpu", "credential": "k9:gAAAAA"}
    put_platform(client, backends=[backend])
    put_key(client, text, ring[0], is_active=False)
    counted.refresh({("platform", ""), ("key", lookup_id(text, ring[0]))})
    assert counted.resync()
    assert counted.platform() is platform
    assert "'k9'" in caplog.text
    assert not counted.find_key(text, ring).is_active
    with pytest.raises(StoreUnavailable):
        make_directory().platform()


def test_document_of_a_newer_release_is_read(client: CountingRedis, counted: Directory, ring: tuple[Pepper, ...]) -> None:
    text = mint()
    limit = {"name": "tokens_per_hour", "max": 1, "mode": "shadow", "clamps": False}
    put_key(client, text, ring[0], limits=[limit | {"burst": 2}, {"name": "images_per_fortnight", "max": 1}], colour="red")
    put_tenant(client, "t", policies=[])
    put_platform(client, regions=[])
    assert counted.find_key(text, ring).limits == (Limit("tokens_per_hour", 1, "shadow"),)
    assert counted.tenant("t") is not None
    assert counted.platform() is not None


def test_hundred_thousand_keys(valkey: redis.Redis, ring: tuple[Pepper, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Memory is bounded by the cache, and one event costs the same however many keys there are."""
    put_platform(valkey)
    valkey.set(MARKER, "m1")
    texts = [numbered_key(number) for number in range(5000)]
    document = key_document(texts[0], ring[0])
    for start in range(0, 100_000, 5000):
        valkey.mset({key_key(f"{number:0{LOOKUP_LENGTH}d}"): document for number in range(start, start + 5000)})
    directory = make_directory(key_entries=1000)
    tracemalloc.start()
    for text in texts[:2000]:  # the dictionary grows once more when the first are evicted
        directory.find_key(text, ring)
    full, _ = tracemalloc.get_traced_memory()
    for text in texts[2000:5000]:
        directory.find_key(text, ring)
    later, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(directory._keys) == 1000
    assert later < full * 1.2
    operations = operations_of(directory, {("key", lookup_id(texts[4999], ring[0]))})
    few = make_directory()
    assert few.find_key(texts[0], ring) is not None
    assert operations == operations_of(few, {("key", lookup_id(texts[0], ring[0]))})
    started = time.perf_counter()
    directory.resync()
    with capsys.disabled():
        each = full / 1000 / 1024
        print(f"\n1,000 of 100,000 keys held: {each:.1f} KiB each; resync {1000 * (time.perf_counter() - started):.2f} ms")


def operations_of(directory: Directory, changes: set[tuple[str, str]]) -> int:
    """How many lines of Python one refresh takes."""
    count = 0

    def trace(*_: Any) -> Any:
        nonlocal count
        count += 1
        return trace

    sys.settrace(trace)
    try:
        directory.refresh(changes)
    finally:
        sys.settrace(None)
    return count


def test_worker_has_one_directory_that_is_kept_up_to_date(
    client: CountingRedis, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_module, "_current", None)
    monkeypatch.setattr(directory_module, "_watch", None)
    with pytest.raises(RuntimeError):
        directory_module.current()
    assert directory_module.synced_at() is None
    directory = directory_module.start()
    assert directory_module.start() is directory is directory_module.current()
    eventually(directory_module.synced_at)
    directory_module._watch.stop()
