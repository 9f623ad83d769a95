"""Changes reach every worker, how fast is printed; and the loss of Redis takes nothing away that was there."""

import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from django.utils import timezone

from accounts import issuing
from gateway.models import ModelAlias
from portal import embedded
from tests.e2e.conftest import BY, Stand, publish


def seen_everywhere(stand: Stand, check: Any) -> bool:
    return all(check() for _ in stand.gateway.each_worker())


def in_force_after(stand: Stand, check: Any) -> float:
    """Seconds until every worker obeys, as a person would measure it: the last contrary answer ends before then."""
    start = last_contrary = time.monotonic()
    while not seen_everywhere(stand, check):
        last_contrary = time.monotonic()
        assert last_contrary - start < 20, "the change never came into force"
    return last_contrary - start


def test_a_revocation_is_in_force_on_all_workers(stand: Stand) -> None:
    key, secret = stand.issue(name="short-lived")
    stand.until(lambda: seen_everywhere(stand, lambda: stand.get("/v1/models", secret=secret).ok), "never issued")
    issuing.revoke(key, **BY)
    took = in_force_after(stand, lambda: stand.get("/v1/models", secret=secret).status_code == 401)
    print(f"revocation in force after {took * 1000:.0f} ms")


def test_an_expiry_is_in_force_at_its_second(stand: Stand) -> None:
    expires_at = timezone.now() + timedelta(seconds=8)
    _key, secret = stand.issue(name="expiring", expires_at=expires_at)
    stand.until(lambda: seen_everywhere(stand, lambda: stand.get("/v1/models", secret=secret).ok), "never issued")
    stand.until(lambda: timezone.now() > expires_at, "time stands still")
    assert seen_everywhere(stand, lambda: stand.get("/v1/models", secret=secret).status_code == 401)


def test_an_alias_removed_is_gone_on_all_workers(stand: Stand) -> None:
    alias = ModelAlias.objects.create(tenant=stand.acme, name="passing", deployment=stand.deployment)
    stand.until(lambda: seen_everywhere(stand, lambda: stand.get("/v1/models/passing").status_code == 200), "never there")
    alias.delete()
    took = in_force_after(stand, lambda: stand.post({"model": "passing"}).status_code == 404)
    print(f"alias removal in force after {took * 1000:.0f} ms")


def test_a_suspended_tenant_is_refused_and_comes_back(stand: Stand) -> None:
    stand.acme.is_active = False
    stand.acme.save()
    in_force_after(stand, lambda: stand.get("/v1/models").status_code == 401)
    stand.acme.is_active = True
    stand.acme.save()
    in_force_after(stand, lambda: stand.get("/v1/models").status_code == 200)


def test_a_rotated_key_works_beside_its_successor_until_the_overlap_ends(stand: Stand) -> None:
    key, old = stand.issue(name="rotated")
    _successor, new = issuing.rotate(key, overlap=timedelta(seconds=4), **BY)
    stand.until(lambda: seen_everywhere(stand, lambda: stand.get("/v1/models", secret=new).ok), "never issued")
    assert stand.get("/v1/models", secret=old).status_code == 200
    stand.until(lambda: stand.get("/v1/models", secret=old).status_code == 401, "the overlap never ends")
    assert stand.get("/v1/models", secret=new).status_code == 200


def test_a_key_works_from_its_networks_alone(stand: Stand) -> None:
    _key, near = stand.issue(name="near", networks=["127.0.0.0/8"])
    _key, far = stand.issue(name="far", networks=["192.0.2.0/24"])
    stand.until(lambda: stand.get("/v1/models", secret=near).status_code == 200, "never issued")
    assert stand.get("/v1/models", secret=far).status_code == 401
    spoofed = stand.get("/v1/models", secret=far, headers={"X-Forwarded-For": "192.0.2.7"})
    assert spoofed.status_code == 401


def test_an_imported_key_works_as_it_is(stand: Stand) -> None:
    text = "legacy-key-0123456789abcdef"
    assert stand.get("/v1/models", secret=text).status_code == 401
    issuing.import_key(stand.acme, issuing.Terms(name="legacy"), text, **BY)
    stand.until(lambda: seen_everywhere(stand, lambda: stand.get("/v1/models", secret=text).ok), "never imported")


@pytest.fixture
def own_valkey(tmp_path: Path, settings: Any) -> Iterator[embedded.Store]:
    """A Valkey that a test may stop; publishing and the gateway of the test use it."""
    store = embedded.start_valkey(tmp_path / "state", durable=False)
    settings.REDIS_URL = store.url
    yield store
    if store.process.poll() is None:
        store.process.send_signal(signal.SIGCONT)
    store.stop()


def configured(stand: Stand) -> None:
    """Twice: what was read while the worker's first look at the whole configuration was under way is not kept."""
    for _ in range(2):
        stand.until(lambda: stand.get("/v1/models").status_code == 200, "not configured")
        time.sleep(1)


@pytest.mark.parametrize("way", ["killed", "frozen"])
def test_with_redis_gone_the_last_good_configuration_serves_on(
    stand: Stand, own_valkey: embedded.Store, fresh_gateway: Any, way: str
) -> None:
    publish()
    stand.gateway = fresh_gateway(redis_url=own_valkey.url)
    configured(stand)
    _key, unseen = stand.issue(name="never-used-before")
    assert stand.post().status_code == 200
    own_valkey.process.send_signal(signal.SIGKILL if way == "killed" else signal.SIGSTOP)
    for stream in (True, False):
        assert stand.post({"stream": stream}).status_code == 200
    unknown = stand.post(secret=unseen)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (503, "overloaded")
    assert unknown.headers["retry-after"] == "1"
    assert stand.post(secret="sk-junk").status_code == 401


def test_events_wait_for_redis_and_none_is_lost(stand: Stand, own_valkey: embedded.Store, fresh_gateway: Any) -> None:
    publish()
    stand.gateway = fresh_gateway(redis_url=own_valkey.url)
    configured(stand)
    own_valkey.process.send_signal(signal.SIGSTOP)
    answers = [stand.post() for _ in range(5)]
    own_valkey.process.send_signal(signal.SIGCONT)
    assert [answer.status_code for answer in answers] == [200] * 5
    import redis

    stand.store = redis.Redis.from_url(own_valkey.url)
    for answer in answers:
        assert stand.event(answer.headers["x-request-id"]).outcome == "completed"
    stand.store.close()


def test_a_worker_that_is_stopped_leaves_no_event_behind(stand: Stand, fresh_gateway: Any) -> None:
    gateway = fresh_gateway()
    stand.gateway = gateway
    configured(stand)
    request_id = stand.post().headers["x-request-id"]
    gateway.process.terminate()
    gateway.process.wait(30)
    assert stand.event(request_id).outcome == "completed"


def test_a_gateway_without_configuration_is_not_ready_and_says_503(
    own_valkey: embedded.Store, fresh_gateway: Any, db: None
) -> None:
    gateway = fresh_gateway(redis_url=own_valkey.url)
    assert requests.get(f"{gateway.url}/readyz", timeout=30).status_code == 503
    from accounts.keys import mint

    response = requests.get(f"{gateway.url}/v1/models", headers={"Authorization": f"Bearer {mint()}"}, timeout=30)
    assert response.status_code == 503


def test_the_last_use_of_a_key_reaches_its_row(stand: Stand) -> None:
    from gateway.tasks import record_last_used

    key, secret = stand.issue(name="used")
    stand.until(lambda: stand.get("/v1/models", secret=secret).status_code == 200, "never issued")

    def recorded() -> bool:
        record_last_used()
        key.refresh_from_db()
        return key.last_used_at is not None

    stand.until(recorded, "the use was not recorded")
