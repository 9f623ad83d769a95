"""From rows to Redis: what is published when, and what happens when Redis is out, flushed or behind."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from django.db import connection, transaction
from django.utils import timezone

from accounts import issuing
from accounts.keys import Pepper
from accounts.models import ApiKey, Tenant
from gateway.config import encryption, publish
from gateway.config.directory import Directory
from gateway.config.documents import (
    CHANGES,
    MARKER,
    PLATFORM,
    Price,
    key_key,
    load_key,
    load_platform,
    load_tenant,
    tenant_key,
)
from gateway.models import Backend, ConfigChange, Deployment, Limit, ModelAlias, PoolMember
from gateway.tasks import publish_configuration
from portal import embedded
from tests.gateway.config.conftest import eventually, make_directory
from usage import limits
from usage.store import StoreUnavailable

pytestmark = pytest.mark.django_db(transaction=True)
Watched = Callable[..., Directory]


@pytest.fixture
def own_valkey(tmp_path: Path, settings: Any) -> Iterator[Callable[[], embedded.Store]]:
    """Starts a Valkey that a test may stop; started again, it is empty. The publisher is pointed at it."""
    state = tmp_path / "home"
    settings.REDIS_URL = embedded.embedded_redis_url(state)
    started: list[embedded.Store] = []

    def start() -> embedded.Store:
        started.append(embedded.start_valkey(state, durable=False))
        return started[-1]

    yield start
    for store in started:
        store.stop()


def issue(tenant: Tenant, name: str = "ci", **terms: Any) -> tuple[ApiKey, str]:
    return issuing.issue(tenant, issuing.Terms(name=name, **terms), actor=None, actor_label="test")


def events(store: redis.Redis) -> list[tuple[str, str]]:
    return [(fields[b"kind"].decode(), fields[b"id"].decode()) for _, fields in store.xrange(CHANGES)]


def test_commit_reaches_a_watched_directory(
    store: redis.Redis, watched: Watched, acme: Tenant, general: ModelAlias, ring: tuple[Pepper, ...]
) -> None:
    directory = watched()
    key, text = issue(acme)
    found = eventually(lambda: directory.find_key(text, ring))
    assert (found.id, found.tenant_id, found.scopes) == (str(key.pk), str(acme.pk), {"chat", "models"})
    assert directory.tenant(found.tenant_id).aliases["general"].max_output_tokens == 512
    general.max_output_tokens = 1024
    general.save()
    eventually(lambda: directory.tenant(found.tenant_id).aliases["general"].max_output_tokens == 1024)
    backend = directory.platform().deployments["tiny"].members[0].backend
    assert (backend.url, backend.credential) == ("http://127.0.0.1:9001", "backend-credential")
    assert "backend-credential" not in repr(directory.platform())


def test_rollback_publishes_nothing(store: redis.Redis, acme: Tenant) -> None:
    before = {name: store.dump(name) for name in store.keys("sekisho:config:*")}
    with transaction.atomic():
        issue(acme)
        Backend.objects.create(name="gpu-1", url="http://127.0.0.1:9001")
        transaction.set_rollback(True)
    assert {name: store.dump(name) for name in store.keys("sekisho:config:*")} == before
    assert not ConfigChange.objects.exists()


def test_documents_leave_with_their_rows(store: redis.Redis, acme: Tenant, general: ModelAlias) -> None:
    key, _ = issue(acme)
    assert store.exists(tenant_key(str(acme.pk)), key_key(key.lookup_id)) == 2
    tenant_id = str(acme.pk)
    acme.delete()
    assert store.exists(tenant_key(tenant_id), key_key(key.lookup_id)) == 0
    assert set(events(store)[-2:]) == {("tenant", tenant_id), ("key", key.lookup_id)}


def test_platform_gathers_what_concerns_all_tenants(store: redis.Redis, acme: Tenant, globex: Tenant) -> None:
    acme.cors_origins = ["https://b.example", "https://a.example"]
    acme.save()
    globex.cors_origins = ["https://a.example"]
    globex.save()
    platform = load_platform(store.get(PLATFORM), encryption.decrypt)
    assert platform.cors_origins == {"https://a.example", "https://b.example"}
    assert not platform.has_imported_keys
    terms = issuing.Terms(name="old")
    key = issuing.import_key(acme, terms, "taken-over-from-elsewhere", actor=None, actor_label="test")
    assert load_platform(store.get(PLATFORM), encryption.decrypt).has_imported_keys
    issuing.revoke(key, actor=None, actor_label="test")
    assert not load_platform(store.get(PLATFORM), encryption.decrypt).has_imported_keys


def test_renamed_deployment_is_renamed_in_its_aliases(store: redis.Redis, general: ModelAlias, tiny: Deployment) -> None:
    tiny.name = "large"
    tiny.save()
    tenant = load_tenant(store.get(tenant_key(str(general.tenant_id))))
    assert tenant.aliases["general"].deployment == "large"
    assert set(load_platform(store.get(PLATFORM), encryption.decrypt).deployments) == {"large"}


def test_only_last_used_is_no_change(store: redis.Redis, acme: Tenant) -> None:
    key, _ = issue(acme)
    count = store.xlen(CHANGES)
    key.last_used_at = timezone.now()
    key.save(update_fields=["last_used_at"])
    key.save()  # the whole row: noted, but its document is the same
    assert store.xlen(CHANGES) == count


def test_update_past_the_signals_can_be_noted(store: redis.Redis, acme: Tenant) -> None:
    key, _ = issue(acme)
    with transaction.atomic():
        ApiKey.objects.filter(pk=key.pk).update(revoked_at=timezone.now())
        publish.note("key", key.lookup_id)
    assert orjson.loads(store.get(key_key(key.lookup_id)))["is_active"] is False


def test_concurrent_publishers_leave_no_stale_document(store: redis.Redis, acme: Tenant, general: ModelAlias) -> None:
    errors: list[BaseException] = []

    def change(offset: int, barrier: threading.Barrier) -> None:
        try:
            for number in range(50):
                barrier.wait(30)
                alias = ModelAlias.objects.get(pk=general.pk)
                alias.max_output_tokens = 1 + offset + number
                alias.save(update_fields=["max_output_tokens"])
                barrier.wait(30)
                if offset == 0:
                    row = ModelAlias.objects.get(pk=general.pk)
                    document = load_tenant(store.get(tenant_key(str(acme.pk))))
                    assert document.aliases["general"].max_output_tokens == row.max_output_tokens
        except BaseException as error:  # noqa: BLE001 - told by the test below
            errors.append(error)
            barrier.abort()
        finally:
            connection.close()

    barrier = threading.Barrier(2)
    threads = [threading.Thread(target=change, args=(offset, barrier)) for offset in (0, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors
    assert not ConfigChange.objects.exists()


def test_changes_survive_redis_being_out(
    own_valkey: Callable[[], embedded.Store],
    acme: Tenant,
    ring: tuple[Pepper, ...],
    settings: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = own_valkey()
    publish_configuration()
    first.stop()
    with caplog.at_level(logging.WARNING, logger="gateway.config.publish"):
        _, text = issue(acme)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert ApiKey.objects.count() == 1
    assert ConfigChange.objects.exists()
    publish_configuration()  # still out: nothing is lost, nothing is raised
    own_valkey()
    publish_configuration()
    assert make_directory(settings.REDIS_URL).find_key(text, ring) is not None
    assert not ConfigChange.objects.exists()


def test_flushed_redis_is_republished_and_served_on_meanwhile(
    store: redis.Redis, watched: Watched, acme: Tenant, general: ModelAlias, ring: tuple[Pepper, ...]
) -> None:
    directory = watched()
    _, known = issue(acme, "known")
    _, unknown = issue(acme, "unknown")
    key = directory.find_key(known, ring)
    assert key is not None
    # What is read while events come is not kept: asked again it is another object.
    eventually(lambda: directory.tenant(key.tenant_id) is directory.tenant(key.tenant_id))
    eventually(lambda: directory.platform() is directory.platform())
    eventually(lambda: directory.find_key(known, ring) is directory.find_key(known, ring))
    store.flushdb()
    assert directory.find_key(known, ring) == key
    assert directory.tenant(key.tenant_id).aliases
    with pytest.raises(StoreUnavailable):
        directory.find_key(unknown, ring)
    acme.name = "Acme Ltd"
    acme.save()  # written at once, but this does not make the configuration whole
    assert not store.exists(MARKER)
    publish_configuration()
    eventually(lambda: directory.tenant(key.tenant_id).name == "Acme Ltd")
    assert directory.find_key(unknown, ring) is not None
    published = events(store)
    publish_configuration()
    assert events(store) == published


def test_redis_that_lost_its_last_writes_is_republished(
    store: redis.Redis, watched: Watched, acme: Tenant, ring: tuple[Pepper, ...]
) -> None:
    """As after a crash, or from a backup: the marker is there, but an older one; a revocation is missing."""
    kept, kept_text = issue(acme, "kept")
    gone, gone_text = issue(acme, "gone")
    backup = {name: store.dump(name) for name in store.keys("sekisho:config:*")}
    issuing.revoke(kept, actor=None, actor_label="test")
    gone.delete()
    store.flushdb()
    for name, value in backup.items():
        store.restore(name, 0, value)
    directory = watched()
    assert directory.find_key(kept_text, ring).is_active
    publish_configuration()
    eventually(lambda: not directory.find_key(kept_text, ring).is_active)
    assert directory.find_key(gone_text, ring) is None


def test_revocation_expiry_and_removal_are_seen_by_two_directories(
    store: redis.Redis, watched: Watched, acme: Tenant, general: ModelAlias, ring: tuple[Pepper, ...]
) -> None:
    directories = [watched(), watched()]
    revoked, revoked_text = issue(acme, "revoked")
    expiring, expiring_text = issue(acme, "expiring")
    now_s = timezone.now().timestamp()
    for directory in directories:
        assert directory.find_key(revoked_text, ring).is_usable(now_s=now_s)
        assert directory.find_key(expiring_text, ring).is_usable(now_s=now_s)
        assert directory.tenant(str(acme.pk)).aliases
    issuing.revoke(revoked, actor=None, actor_label="test")
    expiring.expires_at = timezone.now() - timedelta(seconds=1)
    expiring.save()
    general.delete()
    for directory in directories:
        eventually(lambda d=directory: not d.find_key(revoked_text, ring).is_usable(now_s=now_s))
        eventually(lambda d=directory: not d.find_key(expiring_text, ring).is_usable(now_s=now_s))
        eventually(lambda d=directory: not d.tenant(str(acme.pk)).aliases)
    acme.is_active = False
    acme.save()
    for directory in directories:
        eventually(lambda d=directory: not d.tenant(str(acme.pk)).is_active)


def test_stranger_sees_nothing_of_acme(
    directory: Directory, acme: Tenant, globex: Tenant, general: ModelAlias, ring: tuple[Pepper, ...]
) -> None:
    _, text = issue(globex)
    key = directory.find_key(text, ring)
    assert key.tenant_id == str(globex.pk)
    assert not directory.tenant(key.tenant_id).aliases
    assert set(directory.tenant(str(acme.pk)).aliases) == {"general"}


def test_limits_of_each_subject_reach_its_document(store: redis.Redis, acme: Tenant, general: ModelAlias) -> None:
    key, _ = issue(acme)
    Limit.objects.create(tenant=acme, name="money_per_month", max=12_500_000_000)
    Limit.objects.create(alias=general, name="tokens_per_day", max=2, clamps=True)
    Limit.objects.create(key=key, name="tokens_per_hour", max=3, mode="shadow")
    Limit.objects.create(key=key, name="concurrent_requests", max=4)
    tenant_document, key_document = tenant_key(str(acme.pk)), key_key(key.lookup_id)
    tenant = load_tenant(store.get(tenant_document))
    assert tenant.limits == (limits.Limit("money_per_month", 12_500_000_000),)
    assert tenant.aliases["general"].limits == (limits.Limit("tokens_per_day", 2, clamps=True),)
    held = load_key(store.get(key_document)).limits
    assert held == (limits.Limit("concurrent_requests", 4), limits.Limit("tokens_per_hour", 3, "shadow"))
    Limit.objects.filter(key=key).first().delete()
    general.limits.get().delete()
    changed = acme.limits.get()
    changed.max = 1
    changed.save()
    assert len(load_key(store.get(key_document)).limits) == 1
    tenant = load_tenant(store.get(tenant_document))
    assert (tenant.limits, tenant.aliases["general"].limits) == ((limits.Limit("money_per_month", 1),), ())
    publish.publish_all()
    assert load_tenant(store.get(tenant_document)) == tenant


def test_change_of_a_limit_is_an_event_of_its_subject_only(store: redis.Redis, acme: Tenant, general: ModelAlias) -> None:
    key, _ = issue(acme)
    before = len(events(store))
    Limit.objects.create(key=key, name="tokens_per_hour", max=3)
    Limit.objects.create(alias=general, name="tokens_per_hour", max=3)
    assert events(store)[before:] == [("key", key.lookup_id), ("tenant", str(acme.pk))]


def test_subjects_leave_with_their_limits(store: redis.Redis, acme: Tenant, general: ModelAlias) -> None:
    key, _ = issue(acme)
    for subject in ({"tenant": acme}, {"alias": general}, {"key": key}):
        Limit.objects.create(**subject, name="tokens_per_hour", max=3)
    tenant_id = str(acme.pk)
    general.delete()
    assert not load_tenant(store.get(tenant_key(tenant_id))).aliases
    acme.delete()
    assert store.exists(tenant_key(tenant_id), key_key(key.lookup_id)) == 0
    assert not Limit.objects.exists()
    assert not ConfigChange.objects.exists()


def test_rotated_key_is_published_with_the_limits_of_the_old(store: redis.Redis, acme: Tenant) -> None:
    key, _ = issue(acme)
    Limit.objects.create(key=key, name="tokens_per_hour", max=3, clamps=True)
    new, _ = issuing.rotate(key, overlap=timedelta(hours=1), actor=None, actor_label="test")
    for lookup in (key.lookup_id, new.lookup_id):
        assert load_key(store.get(key_key(lookup))).limits == (limits.Limit("tokens_per_hour", 3, clamps=True),)


@pytest.mark.parametrize(
    ("prices", "published"),
    [
        ((None, None, None), None),
        (("0.50", "0.05", "1.50"), Price(prompt=500_000, cached=50_000, completion=1_500_000)),
        (("0.50", None, "1.50"), Price(prompt=500_000, cached=500_000, completion=1_500_000)),
        (("0.000001", "0", "999999"), Price(prompt=1, cached=0, completion=999_999_000_000)),
    ],
)
def test_prices_are_published_exactly(
    store: redis.Redis, general: ModelAlias, prices: tuple[str | None, ...], published: Price | None
) -> None:
    amounts = (None if price is None else Decimal(price) for price in prices)
    general.price_prompt, general.price_cached, general.price_completion = amounts
    general.save()
    tenant = load_tenant(store.get(tenant_key(str(general.tenant_id))))
    assert tenant.aliases["general"].price == published


def test_what_happens_without_the_store_is_published(store: redis.Redis, acme: Tenant) -> None:
    acme.store_out = "degraded"
    acme.save()
    assert load_tenant(store.get(tenant_key(str(acme.pk)))).store_out == "degraded"


def test_deployment_without_pool_is_published(store: redis.Redis, tiny: Deployment) -> None:
    PoolMember.objects.all().delete()
    assert load_platform(store.get(PLATFORM), encryption.decrypt).deployments["tiny"].members == ()


def test_huge_default_does_not_hold_up_others(store: redis.Redis, general: ModelAlias, globex: Tenant) -> None:
    ModelAlias.objects.filter(pk=general.pk).update(defaults={"seed": 10**30})
    publish.note("tenant", str(general.tenant_id))
    globex.name = "Globex Ltd"
    globex.save()
    assert not ConfigChange.objects.exists()
    assert load_tenant(store.get(tenant_key(str(globex.pk)))).name == "Globex Ltd"


def test_everything_that_routing_needs_is_published(store: redis.Redis, general: ModelAlias, tiny: Deployment) -> None:
    small = Deployment.objects.create(name="small", served_model="small-model")
    large = Deployment.objects.create(name="large", served_model="large-model", max_model_len=131_072)
    tiny.fallback, tiny.context_fallback, tiny.max_concurrent_calls = small, large, 64
    tiny.first_token_max_s, tiny.stall_max_s, tiny.queue_max_s = 30.0, 5.5, 0.0
    tiny.save()
    PoolMember.objects.update(tier=2, max_concurrent_calls=8)
    general.canary, general.canary_percent = small, 5
    general.save()
    idle = Backend.objects.create(name="idle", url="http://127.0.0.1:9009", is_draining=True)
    platform = load_platform(store.get(PLATFORM), encryption.decrypt)
    held = platform.deployments["tiny"]
    assert (held.fallback, held.context_fallback, held.max_concurrent_calls) == ("small", "large", 64)
    assert (held.first_token_max_s, held.stall_max_s, held.queue_max_s) == (30.0, 5.5, 0.0)
    [member] = held.members
    assert (member.weight, member.tier, member.max_concurrent_calls) == (3, 2, 8)
    assert member.backend is platform.backends["gpu-1"]
    assert platform.backends["idle"].is_draining
    alias = load_tenant(store.get(tenant_key(str(general.tenant_id)))).aliases["general"]
    assert (alias.canary, alias.canary_percent) == ("small", 5)
    idle.delete()
    assert set(load_platform(store.get(PLATFORM), encryption.decrypt).backends) == {"gpu-1"}


def test_renamed_deployment_is_renamed_where_it_is_named(store: redis.Redis, general: ModelAlias, tiny: Deployment) -> None:
    other = Deployment.objects.create(name="other", served_model="other-model")
    general.canary = other
    general.save()
    tiny.fallback = other
    tiny.save()
    other.name = "another"
    other.save()
    assert load_platform(store.get(PLATFORM), encryption.decrypt).deployments["tiny"].fallback == "another"
    assert load_tenant(store.get(tenant_key(str(general.tenant_id)))).aliases["general"].canary == "another"


def test_alias_never_names_a_deployment_that_is_not_there(
    store: redis.Redis, watched: Watched, acme: Tenant, general: ModelAlias, tiny: Deployment
) -> None:
    """Moved to a new deployment again and again, the old one deleted in the same transaction."""
    directory = watched()
    for number in range(30):
        with transaction.atomic():
            old = general.deployment
            general.deployment = Deployment.objects.create(name=f"d{number}", served_model="m")
            general.save()
            old.delete()

        def has_arrived(name: str = f"d{number}") -> bool:
            named = directory.tenant(str(acme.pk)).aliases["general"].deployment
            if named not in directory.platform().deployments:
                # Between two reads of a thread the swap may fall, or be half done; between two of a greenlet it cannot.
                time.sleep(0.1)
                named = directory.tenant(str(acme.pk)).aliases["general"].deployment
                assert named in directory.platform().deployments
            return named == name

        eventually(has_arrived)
