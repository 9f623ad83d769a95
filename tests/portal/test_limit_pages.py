"""The page of limits: what Redis has counted of each, and what is shown when it tells nothing."""

import re
import time
from collections.abc import Callable
from datetime import timedelta
from html import escape, unescape
from typing import Any

import pytest
import redis
from django.test import Client
from django.utils import timezone
from uuid_utils.compat import uuid7

from accounts import issuing
from accounts.models import ApiKey, Tenant, User
from gateway.models import Deployment, Limit, ModelAlias
from tests.portal.paging import link, turned
from tests.usage.quota_calls import event, whole_quota
from usage.limits import BoundLimit
from usage.quota import Quota
from usage.reservation import Reservation, skeleton

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def quota(valkey: redis.Redis) -> Quota:
    return whole_quota(valkey)


@pytest.fixture
def general(acme: Tenant) -> ModelAlias:
    deployment = Deployment.objects.create(name="gpu-pool-7", served_model="tiny")
    return ModelAlias.objects.create(tenant=acme, name="general", deployment=deployment)


def use(quota: Quota, tenant: Tenant, *limits: BoundLimit, tokens: int, is_settled: bool = True) -> None:
    """A call that ran through `limits`, or still runs."""
    call = event(str(uuid7()), tokens, 0, tenant_id=str(tenant.id), cost_nano=tokens * 10**6)
    now_s = time.time()
    held = quota.reserve(
        call.request_id,
        str(tenant.id),
        limits,
        prompt_tokens=tokens,
        output_tokens=0,
        cost_nano=tokens * 10**6,
        time_zone=tenant.time_zone,
        now_s=now_s,
        meta=skeleton(call),
    )
    assert isinstance(held, Reservation)
    if is_settled:
        assert quota.settle(held, call, now_s=now_s)


def of_tenant(row: Limit) -> BoundLimit:
    return BoundLimit("tenant", str(row.tenant_id), row.configured)


def page_of(client: Client, path: str = "/t/acme/limits/", **options: Any) -> str:
    answer = client.get(path, **options)
    assert answer.status_code == 200
    return answer.content.decode()


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


def rows_of(page: str) -> list[str]:
    return [text_of(row).strip() for row in re.findall(r'<tr role="row">\s*<td.*?</tr>', page, re.DOTALL)]


def test_use_is_told_as_it_stands(signed_in: SignedIn, acme: Tenant, acme_viewer: User, quota: Quota) -> None:
    day = acme.limits.create(name="tokens_per_day", max=2000)
    use(quota, acme, of_tenant(day), tokens=1100)
    use(quota, acme, of_tenant(day), tokens=100, is_settled=False)
    page = page_of(signed_in(acme_viewer))
    (row,) = rows_of(page)
    assert row.startswith("Tokens per day The whole tenant Room left 1,100 100 800 2,000 ")
    assert re.search(r"\d\d:\d\d$", row)
    assert '<rect class="bar-used" width="550" height="10"/>' in page
    assert '<rect class="bar-reserved" x="550" width="50" height="10"/>' in page


def test_levels_are_told_in_words(signed_in: SignedIn, acme: Tenant, acme_viewer: User, quota: Quota) -> None:
    for name, most in (("tokens_per_hour", 1000), ("tokens_per_day", 1100), ("tokens_per_month", 5000)):
        use(quota, acme, of_tenant(acme.limits.create(name=name, max=most)), tokens=1000)
    states = [re.search("Used up|Nearly used up|Room left", row) for row in rows_of(page_of(signed_in(acme_viewer)))]
    assert [state and state[0] for state in states] == ["Used up", "Nearly used up", "Room left"]


def test_money_is_told_in_units(signed_in: SignedIn, acme: Tenant, acme_viewer: User, quota: Quota) -> None:
    money = acme.limits.create(name="money_per_month", max=1_500_000_000_000, mode="shadow")
    use(quota, acme, of_tenant(money), tokens=250)
    (row,) = rows_of(page_of(signed_in(acme_viewer)))
    assert row.startswith("Money per month The whole tenant Room left Only counted 0.25 0 1,499.75 1,500 ")


def test_limits_of_aliases_and_live_keys_stand_after_the_tenants(
    signed_in: SignedIn, acme: Tenant, acme_viewer: User, general: ModelAlias, quota: Quota
) -> None:
    def issue(name: str, **changes: Any) -> ApiKey:
        key, _ = issuing.issue(acme, issuing.Terms(name), actor=None, actor_label="test")
        key.limits.create(name="requests_per_minute", max=60)
        ApiKey.objects.filter(pk=key.pk).update(**changes) if changes else None
        return key

    key = issue("ci")
    issue("gone", revoked_at=timezone.now())
    issue("late", expires_at=timezone.now() - timedelta(days=1))
    general.limits.create(name="concurrent_requests", max=4)
    acme.limits.create(name="requests_per_minute", max=600)
    limit = key.limits.get()
    use(quota, acme, BoundLimit("key", str(key.id), limit.configured), tokens=10)
    use(quota, acme, BoundLimit("alias", "general", general.limits.get().configured), tokens=10, is_settled=False)
    page = page_of(signed_in(acme_viewer))
    told = rows_of(page)
    assert told[0].startswith("Requests per minute The whole tenant Room left 0 0 600 600 –")
    assert told[1].startswith("Requests at the same time Alias general Room left 0 1 3 4")
    assert told[2].startswith(f"Requests per minute Key ci {key.hint} Room left 1 0 59 60 in ")
    assert len(told) == 3


@pytest.mark.parametrize("trouble", ["out", "emptied"])
def test_without_counters_the_limits_are_shown_with_a_notice(
    signed_in: SignedIn, acme: Tenant, acme_viewer: User, valkey: redis.Redis, settings: Any, trouble: str
) -> None:
    acme.limits.create(name="tokens_per_day", max=2000)
    if trouble == "out":
        settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert valkey.dbsize() == 0
    page = page_of(signed_in(acme_viewer))
    assert "How much is used cannot be told at the moment" in page
    assert rows_of(page) == ["Tokens per day The whole tenant Not known – – – 2,000 –"]
    assert '<svg class="bar-of-use' not in page


def test_no_limit_yet_says_so_and_asks_nobody(signed_in: SignedIn, acme_viewer: User, operator: User, settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    page = page_of(signed_in(acme_viewer))
    assert "Calls of this tenant are not limited." in page
    assert "cannot be told" not in page
    assert 'href="/admin/tenants/acme/limits/"' in page_of(signed_in(operator))


@pytest.mark.usefixtures("quota")
def test_a_strangers_limits_are_a_404_and_not_on_the_page(
    signed_in: SignedIn, acme: Tenant, acme_admin: User, globex: Tenant, client: Client
) -> None:
    assert client.get("/t/acme/limits/").status_code == 302
    globex.limits.create(name="tokens_per_day", max=424242)
    acme.limits.create(name="tokens_per_day", max=2000)
    client = signed_in(acme_admin)
    assert client.get("/t/globex/limits/").status_code == 404
    assert "424" not in "".join(rows_of(page_of(client)))


@pytest.mark.usefixtures("quota")
def test_markup_in_names_stays_text(signed_in: SignedIn, acme: Tenant, acme_viewer: User) -> None:
    key, _ = issuing.issue(acme, issuing.Terms(EVIL), actor=None, actor_label="test")
    key.limits.create(name="tokens_per_day", max=2000)
    acme.name = EVIL
    acme.save()
    page = page_of(signed_in(acme_viewer))
    assert EVIL in text_of(page)
    assert EVIL not in page
    assert " style=" not in page


@pytest.mark.usefixtures("quota")
def test_page_is_japanese_where_it_is_asked_to_be(signed_in: SignedIn, acme: Tenant, acme_viewer: User) -> None:
    acme.limits.create(name="tokens_per_day", max=2000)
    page = page_of(signed_in(acme_viewer), headers={"accept-language": "ja"})
    assert "1 日あたりのトークン数" in page
    assert "余裕あり" in page


@pytest.mark.usefixtures("quota")
def test_page_costs_a_handful_of_queries_however_many_keys(
    signed_in: SignedIn, acme: Tenant, acme_viewer: User, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    for n in range(60):
        key, _ = issuing.issue(acme, issuing.Terms(f"key-{n:02}"), actor=None, actor_label="test")
        key.limits.create(name="tokens_per_day", max=2000)
    client = signed_in(acme_viewer)
    with django_assert_max_num_queries(8):
        page = page_of(client)
    assert len(rows_of(page)) == 25
    assert "60 in all" in page
    third = turned(client, "/t/acme/limits/", turned(client, "/t/acme/limits/", page))
    assert len(rows_of(third)) == 10
    assert f'hx-get="/t/acme/limits/part/{escape(link(page, "next"))}' in turned(client, "/t/acme/limits/", page)


def test_limits_are_found_by_whose_and_which_they_are(signed_in: SignedIn, acme: Tenant, acme_viewer: User) -> None:
    for name in ("batch", "nightly"):
        key, _ = issuing.issue(acme, issuing.Terms(name), actor=None, actor_label="test")
        key.limits.create(name="tokens_per_day", max=2000)
        key.limits.create(name="requests_per_minute", max=20)
    client = signed_in(acme_viewer)
    assert [row.split()[0] for row in rows_of(page_of(client, "/t/acme/limits/?q=NIGHT"))] == ["Requests", "Tokens"]
    assert len(rows_of(page_of(client, "/t/acme/limits/?q=night&kind=tokens_per_day"))) == 1
    assert "No limit like this" in page_of(client, "/t/acme/limits/?q=nobody")
