"""Keys and their limits: set by admins, never above the tenant's, shown beside each key; the light of the first call."""

import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.test import Client
from django.utils import timezone

from accounts import issuing
from accounts.models import ApiKey, AuditEvent, Tenant, User
from gateway.last_used import MARKS, TAKEN
from tests.portal.test_admin_tenant_pages import names_of, text_of
from tests.portal.test_limit_pages import rows_of, use
from tests.usage.quota_calls import whole_quota
from usage.limits import BoundLimit

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
TERMS = {"name": "batch", "scopes": ["chat"], "reach": "all", "networks": "", "expiry": "90"}


def issue(tenant: Tenant, name: str, **changes: Any) -> ApiKey:
    key, _ = issuing.issue(tenant, issuing.Terms(name), actor=None, actor_label="test")
    ApiKey.objects.filter(pk=key.pk).update(**changes) if changes else None
    return key


def test_admin_puts_limits_on_a_new_key(signed_in: SignedIn, acme: Tenant, acme_admin: User) -> None:
    acme.limits.create(name="tokens_per_day", max=1000)
    client = signed_in(acme_admin)
    data = TERMS | {"tokens_per_day": "400", "requests_per_minute": "60", "requests_per_minute_beyond": "shadow"}
    said = text_of(client.post("/t/acme/keys/new/", data | {"say": "1"}).content.decode())
    assert "At most: Requests per minute 60 (only counted) · Tokens per day 400" in said
    assert not ApiKey.objects.exists()
    client.post("/t/acme/keys/new/", data)
    held = {row.name: (row.max, row.mode) for row in ApiKey.objects.get().limits.all()}
    assert held == {"tokens_per_day": (400, "enforce"), "requests_per_minute": (60, "shadow")}
    event = AuditEvent.objects.get()
    assert event.verb == "key.issued"
    assert event.after["limits.tokens_per_day"] == "400"
    assert event.after["limits.requests_per_minute"] == "60 shadow"


def test_limits_of_a_key_are_never_above_the_tenants(signed_in: SignedIn, acme: Tenant, acme_admin: User) -> None:
    acme.limits.create(name="tokens_per_day", max=1000)
    acme.limits.create(name="tokens_per_hour", max=10, mode="shadow")
    client = signed_in(acme_admin)
    page = client.post("/t/acme/keys/new/", TERMS | {"tokens_per_day": "1001", "tokens_per_hour": "11"}).content.decode()
    assert "The whole tenant may use 1,000: give that or less." in page
    assert 'value="1001"' in page
    assert page.count('class="field-error"') == 1
    assert not ApiKey.objects.exists()


def test_limits_of_a_key_are_changed_with_one_event(signed_in: SignedIn, acme: Tenant, acme_admin: User) -> None:
    key = issue(acme, "batch")
    key.limits.create(name="tokens_per_day", max=500)
    client = signed_in(acme_admin)
    path = f"/t/acme/keys/{key.pk}/edit/"
    assert 'value="500"' in client.get(path).content.decode()
    before = AuditEvent.objects.count()
    data = TERMS | {"scopes": key.scopes, "expiry": "never"}
    client.post(path, data | {"tokens_per_day": "300"})
    event = AuditEvent.objects.get(sequence=before + 1)
    assert (event.verb, event.before, event.after) == (
        "key.changed",
        {"limits.tokens_per_day": "500"},
        {"limits.tokens_per_day": "300"},
    )
    client.post(path, data | {"name": "nightly", "tokens_per_day": ""})
    assert not key.limits.exists()
    event = AuditEvent.objects.get(sequence=before + 2)
    assert event.before == {"name": "batch", "limits.tokens_per_day": "300"}
    assert event.after == {"name": "nightly", "limits.tokens_per_day": None}
    client.post(path, data | {"name": "nightly", "tokens_per_day": ""})
    assert AuditEvent.objects.count() == before + 2


def test_developers_neither_set_nor_drop_limits(signed_in: SignedIn, acme: Tenant, acme_developer: User) -> None:
    key = issue(acme, "batch")
    key.limits.create(name="tokens_per_day", max=500)
    client = signed_in(acme_developer)
    path = f"/t/acme/keys/{key.pk}/edit/"
    assert "tokens_per_day" not in client.get(path).content.decode()
    client.post(path, TERMS | {"name": "renamed", "tokens_per_day": "", "tokens_per_hour": "7"})
    key.refresh_from_db()
    assert key.name == "renamed"
    assert [(row.name, row.max) for row in key.limits.all()] == [("tokens_per_day", 500)]


def test_list_shows_the_tightest_limit_and_sorts(
    signed_in: SignedIn, acme: Tenant, acme_viewer: User, valkey: redis.Redis
) -> None:
    now = timezone.now()
    old = issue(acme, "old", last_used_at=now - timedelta(days=9))
    issue(acme, "fresh", last_used_at=now, expires_at=now + timedelta(days=3))
    issue(acme, "never")
    for name, most in (("tokens_per_day", 1000), ("tokens_per_hour", 100_000)):
        limit = old.limits.create(name=name, max=most)
        use(whole_quota(valkey), acme, BoundLimit("key", str(old.pk), limit.configured), tokens=910)
    client = signed_in(acme_viewer)
    page = client.get("/t/acme/keys/").content.decode()
    assert "Active Tokens per day 91%" in text_of(page)
    assert "Tokens per hour" not in page
    for sort, names in {
        "": ["fresh", "never", "old"],
        "-name": ["old", "never", "fresh"],
        "-used": ["fresh", "old", "never"],
        "used": ["never", "old", "fresh"],
        "-made": ["never", "fresh", "old"],
        "nonsense": ["fresh", "never", "old"],
    }.items():
        assert names_of(client.get(f"/t/acme/keys/?sort={sort}").content.decode()) == names, sort


@pytest.mark.usefixtures("valkey")
def test_list_of_limited_keys_costs_the_same_however_many(
    signed_in: SignedIn, acme: Tenant, acme_viewer: User, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    for n in range(60):
        issue(acme, f"key-{n:02}").limits.create(name="tokens_per_day", max=2000)
    client = signed_in(acme_viewer)
    with django_assert_max_num_queries(9):
        page = client.get("/t/acme/keys/").content.decode()
    assert len(names_of(page)) == 25


def test_light_turns_green_at_the_first_call(signed_in: SignedIn, acme: Tenant, acme_viewer: User, valkey: redis.Redis) -> None:
    key = issue(acme, "batch")
    client = signed_in(acme_viewer)
    path = f"/t/acme/keys/{key.pk}/first-use/"
    waiting = client.get(path).content.decode()
    assert "Waiting for the first call" in waiting
    assert "data-poll" in waiting
    valkey.hset(TAKEN, key.lookup_id, int(time.time()) - 60)
    valkey.hset(MARKS, key.lookup_id, int(time.time()))
    seen = client.get(path).content.decode()
    assert "First call seen" in seen
    assert "data-poll" not in seen


def test_light_asks_little(
    signed_in: SignedIn,
    acme: Tenant,
    acme_viewer: User,
    valkey: redis.Redis,
    django_assert_max_num_queries: Callable[[int], Any],
) -> None:
    key = issue(acme, "batch")
    client = signed_in(acme_viewer)
    with django_assert_max_num_queries(8):
        client.get(f"/t/acme/keys/{key.pk}/first-use/")


def test_light_is_dark_while_the_store_is_out_and_a_404_for_strangers(
    signed_in: SignedIn, acme: Tenant, acme_viewer: User, globex_admin: User, settings: Any
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    key = issue(acme, "batch")
    path = f"/t/acme/keys/{key.pk}/first-use/"
    assert "Waiting for the first call" in signed_in(acme_viewer).get(path).content.decode()
    client = signed_in(globex_admin)
    assert client.get(path).status_code == 404
    assert client.get(path.replace("acme", "globex")).status_code == 404


def test_rotation_tells_when_the_old_key_was_last_used(
    signed_in: SignedIn, acme: Tenant, acme_admin: User, valkey: redis.Redis
) -> None:
    key = issue(acme, "batch")
    valkey.hset(MARKS, key.lookup_id, int(time.time()) - 190)
    client = signed_in(acme_admin)
    told = f"The key {key.hint} was last used 3 minutes ago"
    assert told in text_of(client.get(f"/t/acme/keys/{key.pk}/rotate/").content.decode()).replace("\xa0", " ")
    made = client.post(f"/t/acme/keys/{key.pk}/rotate/", {"overlap": "24"}).content.decode()
    assert told in text_of(made).replace("\xa0", " ")
    assert "Waiting for the first call" in made
    new = ApiKey.objects.get(predecessor=key)
    assert told in text_of(client.get(f"/t/acme/keys/{new.pk}/").content.decode()).replace("\xa0", " ")
    assert told in text_of(client.get(f"/t/acme/keys/{new.pk}/first-use/").content.decode()).replace("\xa0", " ")


def test_live_part_of_the_limits_is_the_part_alone(
    signed_in: SignedIn,
    acme: Tenant,
    acme_viewer: User,
    valkey: redis.Redis,
    django_assert_max_num_queries: Callable[[int], Any],
) -> None:
    quota = whole_quota(valkey)
    limit = acme.limits.create(name="tokens_per_day", max=2000)
    client = signed_in(acme_viewer)
    page = client.get("/t/acme/limits/").content.decode()
    assert 'hx-get="/t/acme/limits/part/"' in page
    use(quota, acme, BoundLimit("tenant", str(acme.pk), limit.configured), tokens=500)
    with django_assert_max_num_queries(8):
        part = client.get("/t/acme/limits/part/").content.decode()
    assert rows_of(part)[0].startswith("Tokens per day The whole tenant Room left 500 0 1,500 2,000")
    assert "<html" not in part
    assert re.search(r'^<div id="limits-live"', part.strip())
