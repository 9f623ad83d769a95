"""The pages of deployments: model, pool, fallbacks; who is affected by a change, and what cannot be deleted."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from html import unescape
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client

from accounts.models import AuditEvent, Tenant, User
from gateway.models import Backend, Deployment, ModelAlias, PoolMember
from usage.models import MinuteRollup

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("valkey")]
SignedIn = Callable[[User], Client]


@pytest.fixture
def chief(signed_in: SignedIn, operator: User) -> Client:
    return signed_in(operator)


@pytest.fixture
def tiny() -> Deployment:
    row = Deployment.objects.create(name="tiny", served_model="tiny-1b")
    for name in ("gpu-1", "gpu-2"):
        Backend.objects.create(name=name, url=f"http://{name}:8000")
    PoolMember.objects.create(deployment=row, backend=Backend.objects.get(name="gpu-1"), weight=3)
    return row


def fields(**changed: str) -> dict[str, str]:
    """The form of `tiny` as a browser sends it."""
    pool = {}
    for name, weight in (("gpu-1", "3"), ("gpu-2", "1")):
        pool |= {f"pool-{name}-weight": weight, f"pool-{name}-tier": "0", f"pool-{name}-max_concurrent_calls": ""}
    return {"served_model": "tiny-1b", "pool-gpu-1-is_in": "on", **pool, **changed}


def post(client: Client, path: str, said: dict[str, str]) -> str:
    answer = client.post(f"/admin/deployments/{path}", said, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


def words(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


def used(tenant: Tenant, alias: str, calls: int) -> None:
    sums = dict.fromkeys(
        ("errors", "refused", "blocked", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_nano", "busy_ms"), 0
    )
    MinuteRollup.objects.create(
        tenant_id=tenant.pk, starts_at=datetime.now(UTC).replace(second=0, microsecond=0), key_id=uuid4(), alias=alias,
        backend="gpu-1", status=200, requests=calls, durations=[0] * 28, first_tokens=[0] * 28, **sums,
    )  # fmt: skip


def test_list_tells_pool_and_fallback(chief: Client, tiny: Deployment) -> None:
    Deployment.objects.create(name="large", served_model="large", fallback=tiny)
    told = words(chief.get("/admin/deployments/").content.decode())
    for shown in ("tiny-1b", "gpu-1 weight 3", "large", "No backend", "No ceiling"):
        assert shown in told, shown


def test_a_new_one_is_made_with_its_pool(chief: Client, tiny: Deployment) -> None:
    said = fields(
        **{"name": "new", "pool-gpu-2-is_in": "on", "pool-gpu-2-tier": "1", "fallback": str(tiny.pk), "queue_max_s": "2.5"}
    )
    assert "Made." in post(chief, "_new/", said)
    row = Deployment.objects.get(name="new")
    assert (row.fallback, row.queue_max_s) == (tiny, 2.5)
    assert sorted(row.members.values_list("backend__name", "weight", "tier")) == [("gpu-1", 3, 0), ("gpu-2", 1, 1)]
    event = AuditEvent.objects.get()
    assert (event.verb, event.target) == ("deployment.created", "deployment new")
    assert event.after["fallback"] == "tiny"


def test_a_change_of_the_pool_is_one_event(chief: Client, tiny: Deployment) -> None:
    page = post(
        chief, "tiny/", fields(**{"pool-gpu-1-is_in": "", "pool-gpu-2-is_in": "on", "pool-gpu-2-max_concurrent_calls": "8"})
    )
    assert "Changed" in page
    assert list(tiny.members.values_list("backend__name", "max_concurrent_calls")) == [("gpu-2", 8)]
    event = AuditEvent.objects.get()
    assert list(event.after) == ["backends"]


def test_what_is_so_already_writes_nothing(chief: Client, tiny: Deployment) -> None:
    assert "Nothing was changed." in post(chief, "tiny/", fields())
    assert not AuditEvent.objects.exists()


def test_fallbacks_in_a_circle_are_told_in_words_at_the_field(chief: Client, tiny: Deployment) -> None:
    large = Deployment.objects.create(name="large", served_model="large", fallback=tiny)
    page = post(chief, "tiny/", fields(fallback=str(large.pk)))
    assert "id_fallback_error" in page
    assert "Calls would go in a circle: tiny -> large -> tiny." in unescape(page)
    tiny.refresh_from_db()
    assert tiny.fallback is None


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"served_model": ""}, "id_served_model_error"),
        ({"stall_max_s": "0"}, "Give 0.05 to 86400 seconds"),
        ({"pool-gpu-1-weight": "0"}, "gpu-1, Weight:"),
        ({"pool-gpu-1-tier": "10"}, "gpu-1, Tier: Give a tier from 0"),
        ({"max_concurrent_calls": "0"}, "Give a ceiling of 1 call or more"),
    ],
)
def test_what_is_wrong_is_told_and_kept(chief: Client, tiny: Deployment, changed: dict[str, str], told: str) -> None:
    page = unescape(post(chief, "tiny/", fields(first_token_max_s="33", **changed)))
    assert told in page
    assert 'value="33"' in page
    assert not AuditEvent.objects.exists()


def test_the_row_of_a_backend_outside_the_pool_does_not_count(chief: Client, tiny: Deployment) -> None:
    page = post(chief, "tiny/", fields(**{"pool-gpu-2-weight": "", "pool-gpu-2-tier": "99", "max_model_len": "4096"}))
    assert "Changed" in page


def test_who_is_affected_is_shown_before_saving(chief: Client, tiny: Deployment, acme: Tenant, globex: Tenant) -> None:
    ModelAlias.objects.create(tenant=acme, name="general", deployment=tiny)
    other = Deployment.objects.create(name="other", served_model="other", context_fallback=tiny)
    ModelAlias.objects.create(tenant=globex, name="fast", deployment=other, canary=tiny, canary_percent=5)
    used(acme, "general", 1234)
    used(acme, "of another deployment", 99)
    told = words(chief.get("/admin/deployments/tiny/").content.decode())
    for shown in (
        "2 aliases of 2 tenants name it.",
        "1,234 calls in the last hour.",
        "acme/general 1,234 calls",
        "globex/fast Canary",
    ):
        assert shown in told, shown
    assert "These deployments fall back to it: other" in told


def test_one_that_is_named_stays_and_says_by_whom(chief: Client, tiny: Deployment, acme: Tenant) -> None:
    alias = ModelAlias.objects.create(tenant=acme, name="general", deployment=tiny)
    assert "It is used by: acme/general." in post(chief, "tiny/delete/", {})
    assert not AuditEvent.objects.exists()
    alias.delete()
    assert "Deleted: tiny." in post(chief, "tiny/delete/", {})
    assert AuditEvent.objects.get().verb == "deployment.deleted"
    assert not Deployment.objects.exists()


def test_many_take_as_few_queries(chief: Client, tiny: Deployment, acme: Tenant, django_assert_max_num_queries: Any) -> None:
    for number in range(40):
        row = Deployment.objects.create(name=f"more-{number}", served_model="m", fallback=tiny)
        PoolMember.objects.create(deployment=row, backend=Backend.objects.create(name=f"b-{number}", url=f"http://b-{number}"))
        ModelAlias.objects.create(tenant=acme, name=f"alias-{number}", deployment=tiny)
    for path, most in (("", 10), ("tiny/", 16), ("_new/", 10)):
        with django_assert_max_num_queries(most):
            assert chief.get(f"/admin/deployments/{path}").status_code == 200
