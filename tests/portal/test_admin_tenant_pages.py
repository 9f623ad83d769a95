"""Operators' pages of tenants: found, looked into, suspended, ranked, put on plans; made step by step; and not for others."""

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
import redis
from django.test import Client
from django.utils import timezone

from accounts import audit, issuing
from accounts.models import ApiKey, AuditEvent, Invitation, Membership, Tenant, User
from accounts.roles import Role
from gateway.config import publish, quota_plans
from gateway.config.documents import key_key
from gateway.models import ConfigChange, Deployment, Limit, ModelAlias, PlannedTenant, QuotaPlan
from tests.portal.furnished import furnish
from tests.portal.paging import link, turned
from tests.portal.test_limit_pages import of_tenant, use
from tests.usage.quota_calls import whole_quota
from usage import limits
from usage.models import UsageRecord
from usage.quota import Quota

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
EVIL = "<script>alert(1)</script>"
BY: audit.By = {"actor": None, "actor_label": "test"}


@pytest.fixture
def quota(valkey: redis.Redis) -> Quota:
    return whole_quota(valkey)


@pytest.fixture
def client_of_operator(signed_in: SignedIn, operator: User) -> Client:
    return signed_in(operator)


@pytest.fixture
def tiny(db: None) -> Deployment:
    return Deployment.objects.create(name="tiny", served_model="tiny")


def page_of(client: Client, path: str = "", **options: Any) -> str:
    answer = client.get(f"/admin/tenants/{path}", **options)
    assert answer.status_code == 200
    return answer.content.decode()


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


def names_of(page: str) -> list[str]:
    return re.findall(r"<strong>([^<]*)</strong></a>", page)


def last_event() -> AuditEvent:
    event = AuditEvent.objects.first()
    assert event is not None
    return event


@pytest.mark.parametrize(
    "path",
    [
        "tenants/",
        "tenants/_new/",
        "tenants/acme/",
        "tenants/acme/suspend/",
        "tenants/acme/plan/",
        "tenants/acme/limits/",
        "plans/",
    ],
)
def test_these_pages_are_there_for_operators_alone(signed_in: SignedIn, acme_owner: User, operator: User, path: str) -> None:
    assert signed_in(acme_owner).get(f"/admin/{path}").status_code == 404
    assert signed_in(operator).get(f"/admin/{path}").status_code == 200


# The list


@pytest.mark.usefixtures("acme_owner")
def test_list_tells_of_each_tenant(client_of_operator: Client, acme: Tenant, globex: Tenant, quota: Quota) -> None:
    other = User.objects.create_user("second@acme.example")
    Membership.objects.create(tenant=acme, user=other, role=Role.OWNER)
    day = acme.limits.create(name="tokens_per_day", max=1000)
    acme.limits.create(name="requests_per_minute", max=1000)
    use(quota, acme, of_tenant(day), tokens=850)
    Tenant.objects.filter(pk=globex.pk).update(is_active=False)
    plan = quota_plans.create("trial", [limits.Limit("tokens_per_hour", 50)], **BY)
    quota_plans.put(globex, plan, **BY)
    page = page_of(client_of_operator)
    told = text_of(page)
    assert names_of(page) == ["Acme", "Globex"]
    assert "Acme acme Active owner@acme.example and 1 more – Tokens per day 85% Not yet" in told
    assert "Globex globex Suspended Nobody trial Tokens per hour 0% Not yet" in told


def test_list_is_narrowed_and_sorted_by_its_address(client_of_operator: Client, acme: Tenant, globex: Tenant) -> None:
    Tenant.objects.filter(pk=globex.pk).update(is_active=False)
    key, _ = issuing.issue(acme, issuing.Terms("ci"), **BY)
    ApiKey.objects.filter(pk=key.pk).update(last_used_at=timezone.now())
    plan = quota_plans.create("trial", [], **BY)
    quota_plans.put(acme, plan, **BY)
    initech = Tenant.objects.create(slug="initech", name="Initech")
    for query, names in {
        "?q=GLO": ["Globex"],
        "?state=suspended": ["Globex"],
        "?state=active": ["Acme", "Initech"],
        "?plan=trial": ["Acme"],
        "?plan=-": ["Globex", "Initech"],
        "?sort=-name": ["Initech", "Globex", "Acme"],
        "?sort=-used": ["Acme", "Initech", "Globex"],
        "?sort=used": ["Globex", "Initech", "Acme"],
        "?sort=-made": ["Initech", *names_of(page_of(client_of_operator, "?sort=-made"))[1:]],
        "?sort=nonsense&state=nonsense": ["Acme", "Globex", "Initech"],
    }.items():
        assert names_of(page_of(client_of_operator, query)) == names, query
    assert initech.name in names_of(page_of(client_of_operator, "?q=init"))
    assert "No tenant like this" in page_of(client_of_operator, "?q=zzz")


def test_without_a_tenant_there_is_one_next_step(client_of_operator: Client) -> None:
    assert "There is no tenant yet" in page_of(client_of_operator)


def test_list_costs_the_same_however_many(
    client_of_operator: Client, quota: Quota, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    made = Tenant.objects.bulk_create(Tenant(slug=f"t-{n:03}", name=f"Tenant {n:03}") for n in range(120))
    Limit.objects.bulk_create(Limit(tenant=tenant, name="tokens_per_day", max=100) for tenant in made)
    with django_assert_max_num_queries(10):
        page = page_of(client_of_operator)
    assert page.count("Tokens per day") == len(names_of(page)) == 25
    for _ in range(4):
        page = turned(client_of_operator, "/admin/tenants/", page)
    assert names_of(page)[-1] == "Tenant 119"
    assert link(page, "next") == ""


def test_use_is_unknown_while_the_store_is_out(client_of_operator: Client, acme: Tenant, settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    acme.limits.create(name="tokens_per_day", max=1000)
    assert "Not known" in page_of(client_of_operator)


def test_markup_in_stored_text_stays_text(client_of_operator: Client, acme: Tenant) -> None:
    Tenant.objects.filter(pk=acme.pk).update(name=EVIL, suspension_reason=EVIL, is_active=False)
    for path in ("", "acme/", "acme/suspend/", "acme/plan/", "acme/limits/"):
        page = page_of(client_of_operator, path)
        assert EVIL not in page
        assert EVIL in text_of(page) or EVIL in unescape(page)


# One tenant


def test_page_of_a_tenant_tells_its_facts(
    client_of_operator: Client, acme: Tenant, acme_owner: User, acme_key: tuple[ApiKey, str], quota: Quota
) -> None:
    use(quota, acme, of_tenant(acme.limits.create(name="tokens_per_day", max=1000)), tokens=250)
    told = text_of(page_of(client_of_operator, "acme/"))
    assert "Working keys 1" in told
    assert "Members 1" in told
    assert "Tokens per day 25% 750 of 1,000 left" in told


def test_suspension_is_told_to_members_and_undone(client_of_operator: Client, signed_in: SignedIn, acme: Tenant) -> None:
    assert "is refused with 401" in page_of(client_of_operator, "acme/suspend/")
    refused = client_of_operator.post("/admin/tenants/acme/suspend/", {"reason": ""})
    assert "This field is required" in refused.content.decode()
    acme.refresh_from_db()
    assert acme.is_active
    client_of_operator.post("/admin/tenants/acme/suspend/", {"reason": "The invoice is not paid."})
    acme.refresh_from_db()
    assert (acme.is_active, acme.suspension_reason) == (False, "The invoice is not paid.")
    event = last_event()
    assert (event.verb, event.tenant, event.after) == (
        "tenant.suspended",
        acme,
        {"is_active": False, "suspension_reason": "The invoice is not paid."},
    )
    assert "Reason: The invoice is not paid." in text_of(client_of_operator.get("/t/acme/").content.decode())
    client_of_operator.post("/admin/tenants/acme/suspend/", {"reason": "The invoice is not paid."})
    assert AuditEvent.objects.count() == 1
    client_of_operator.post("/admin/tenants/acme/resume/")
    client_of_operator.post("/admin/tenants/acme/resume/")
    acme.refresh_from_db()
    assert (acme.is_active, acme.suspension_reason) == (True, "")
    assert [event.verb for event in AuditEvent.objects.all()] == ["tenant.resumed", "tenant.suspended"]


def test_priority_is_changed_once(client_of_operator: Client, acme: Tenant) -> None:
    for value in ("-5", "-5", "nonsense"):
        assert client_of_operator.post("/admin/tenants/acme/priority/", {"priority": value}).status_code == 302
    acme.refresh_from_db()
    assert acme.priority == -5
    assert [(event.verb, event.before, event.after) for event in AuditEvent.objects.all()] == [
        ("tenant.changed", {"priority": 0}, {"priority": -5})
    ]


# Plans


def test_plan_gives_its_limits_to_its_tenants_and_changes_them(
    client_of_operator: Client, acme: Tenant, globex: Tenant, quota: Quota
) -> None:
    client_of_operator.post("/admin/plans/new/", {"name": "trial", "tokens_per_day": "1000", "tokens_per_day_beyond": "clamp"})
    plan = QuotaPlan.objects.get()
    assert last_event().after == {"limits.tokens_per_day": "1000 clamp"}
    acme.limits.create(name="requests_per_minute", max=5)
    said = client_of_operator.post("/admin/tenants/acme/plan/", {"plan": "trial", "say": "1"}).content.decode()
    assert "Requests per minute : 5 → none" in text_of(said)
    assert not PlannedTenant.objects.exists()
    for slug in ("acme", "globex"):
        client_of_operator.post(f"/admin/tenants/{slug}/plan/", {"plan": "trial"})
    assert [row.configured for row in acme.limits.all()] == [limits.Limit("tokens_per_day", 1000, "enforce", True)]
    use(quota, acme, of_tenant(acme.limits.get()), tokens=900)
    data = {"name": "trial", "tokens_per_day": "500", "tokens_per_hour": "50"}
    said = text_of(client_of_operator.post(f"/admin/plans/{plan.pk}/", data | {"say": "1"}).content.decode())
    assert "What changes for 2 tenants" in said
    assert "Acme Calls are refused at once" in said
    assert acme.limits.get().max == 1000
    ConfigChange.objects.all().delete()
    client_of_operator.post(f"/admin/plans/{plan.pk}/", data)
    for tenant in (acme, globex):
        held = {row.name: row.max for row in tenant.limits.all()}
        assert held == {"tokens_per_day": 500, "tokens_per_hour": 50}
    event = last_event()
    assert event.verb == "plan.changed"
    assert event.after == {"limits.tokens_per_day": "500", "limits.tokens_per_hour": "50", "tenants": 2}
    assert {change.object_id for change in ConfigChange.objects.filter(kind="tenant")} >= {str(acme.pk), str(globex.pk)}


def test_revising_a_plan_takes_limits_away_too_and_costs_the_same_however_many(
    operator: User, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    plan = quota_plans.create("trial", [limits.Limit("tokens_per_day", 5), limits.Limit("tokens_per_hour", 5)], **BY)
    made = Tenant.objects.bulk_create(Tenant(slug=f"t-{n:03}", name="T") for n in range(60))
    PlannedTenant.objects.bulk_create(PlannedTenant(tenant=tenant, plan=plan) for tenant in made)
    Limit.objects.bulk_create(Limit(tenant=tenant, name="tokens_per_hour", max=5) for tenant in made)
    with django_assert_max_num_queries(30):
        assert quota_plans.revise(plan, "trial", [limits.Limit("tokens_per_day", 7)], actor=operator)
    assert {(row.name, row.max) for row in Limit.objects.filter(tenant__in=made)} == {("tokens_per_day", 7)}
    assert not quota_plans.revise(plan, "trial", [limits.Limit("tokens_per_day", 7)], actor=operator)


def test_limits_of_its_own_take_a_tenant_off_its_plan(client_of_operator: Client, acme: Tenant) -> None:
    plan = quota_plans.create("trial", [limits.Limit("tokens_per_day", 5)], **BY)
    quota_plans.put(acme, plan, **BY)
    assert "leaves the plan" in page_of(client_of_operator, "acme/limits/")
    client_of_operator.post("/admin/tenants/acme/limits/", {"tokens_per_day": "6"})
    assert not PlannedTenant.objects.exists()
    event = last_event()
    assert (event.before, event.after) == (
        {"limits.tokens_per_day": "5", "plan": "trial"},
        {"limits.tokens_per_day": "6", "plan": None},
    )


def test_plan_in_use_is_not_deleted(client_of_operator: Client, acme: Tenant) -> None:
    plan = quota_plans.create("trial", [], **BY)
    quota_plans.put(acme, plan, **BY)
    client_of_operator.post(f"/admin/plans/{plan.pk}/delete/")
    assert QuotaPlan.objects.exists()
    client_of_operator.post("/admin/tenants/acme/plan/", {"plan": ""})
    client_of_operator.post(f"/admin/plans/{plan.pk}/delete/")
    assert not QuotaPlan.objects.exists()
    assert last_event().verb == "plan.deleted"


def test_second_plan_of_a_name_is_refused_at_its_field(client_of_operator: Client) -> None:
    quota_plans.create("trial", [], **BY)
    page = client_of_operator.post("/admin/plans/new/", {"name": "trial", "tokens_per_day": "77"}).content.decode()
    assert "already exists" in page
    assert 'value="77"' in page


# A new tenant


def walk(client: Client, **steps: dict[str, str]) -> None:
    said = {
        "details": {"name": "Search team", "slug": "search", "time_zone": "Asia/Tokyo", "priority": "0"},
        "aliases": {"form-TOTAL_FORMS": "5", "form-INITIAL_FORMS": "0", "form-0-name": "chat", "form-0-deployment": "tiny"},
        "limits": {"tokens_per_day": "1000"},
        "owner": {"email": "Boss@Search.example"},
    } | steps
    following = [*list(said)[1:], "summary"]
    for (name, data), after in zip(said.items(), following, strict=True):
        answer = client.post(f"/admin/tenants/_new/{name}/", data)
        assert answer.status_code == 302, text_of(answer.content.decode())
        assert answer["location"] == f"/admin/tenants/_new/{after}/"


def test_nothing_is_written_before_the_summary_and_all_of_it_there(
    client_of_operator: Client, operator: User, tiny: Deployment
) -> None:
    walk(client_of_operator)
    assert not Tenant.objects.exists()
    assert not AuditEvent.objects.exists()
    told = text_of(page_of(client_of_operator, "_new/summary/"))
    assert "Search team search" in told
    assert "chat → tiny" in told
    assert "Tokens per day: 1,000" in told
    assert 'value="chat"' in page_of(client_of_operator, "_new/aliases/")  # back works
    answer = client_of_operator.post("/admin/tenants/_new/summary/")
    tenant = Tenant.objects.get()
    assert (tenant.slug, tenant.limits.get().max, ModelAlias.objects.get().deployment) == ("search", 1000, tiny)
    invitation = Invitation.objects.get()
    assert (invitation.email, invitation.role, invitation.invited_by) == ("boss@search.example", "owner", operator)
    assert re.search(r"http://testserver/invite/[\w-]{40,}/", answer.content.decode())
    assert "no-store" in answer["cache-control"]
    verbs = list(AuditEvent.objects.order_by("sequence").values_list("verb", flat=True))
    assert verbs == ["tenant.created", "alias.created", "member.invited"]
    first = AuditEvent.objects.get(verb="tenant.created")
    assert first.after["limits.tokens_per_day"] == "1000"
    assert client_of_operator.post("/admin/tenants/_new/summary/").status_code == 302
    assert Tenant.objects.count() == 1


def test_new_tenant_begins_on_a_plan(client_of_operator: Client, tiny: Deployment) -> None:
    quota_plans.create("trial", [limits.Limit("tokens_per_hour", 9)], **BY)
    walk(client_of_operator, limits={"plan": "trial", "tokens_per_day": "1000"}, owner={"email": ""})
    assert "Those of the plan trial" in page_of(client_of_operator, "_new/summary/")
    answer = client_of_operator.post("/admin/tenants/_new/summary/")
    assert "Nobody is invited yet" in answer.content.decode()
    tenant = Tenant.objects.get()
    assert [(row.name, row.max) for row in tenant.limits.all()] == [("tokens_per_hour", 9)]
    assert tenant.planned.plan.name == "trial"


def test_summary_leads_back_to_what_is_missing(client_of_operator: Client) -> None:
    assert client_of_operator.get("/admin/tenants/_new/summary/")["location"] == "/admin/tenants/_new/details/"
    assert client_of_operator.get("/admin/tenants/_new/nonsense/").status_code == 404


@pytest.mark.parametrize(
    ("step", "data", "told"),
    [
        ("details", {"name": "A", "slug": "acme", "time_zone": "Asia/Tokyo", "priority": "0"}, "of this short name already"),
        ("details", {"name": "A", "slug": "b", "time_zone": "Mars", "priority": "0"}, "is no time zone"),
        ("aliases", {"form-TOTAL_FORMS": "5", "form-INITIAL_FORMS": "0", "form-0-name": "chat"}, "Choose what serves it"),
        ("aliases", {"form-TOTAL_FORMS": "5", "form-INITIAL_FORMS": "0", "form-0-deployment": "tiny"}, "Give the name"),
        ("limits", {"tokens_per_day": "0"}, "greater than or equal to 1"),
        ("owner", {"email": "nobody"}, "valid email"),
    ],
)
@pytest.mark.usefixtures("acme", "tiny")
def test_what_cannot_be_is_told_at_its_field_with_the_input_kept(
    client_of_operator: Client, step: str, data: dict[str, str], told: str
) -> None:
    answer = client_of_operator.post(f"/admin/tenants/_new/{step}/", data)
    page = answer.content.decode()
    assert answer.status_code == 200
    assert told in page
    assert 'aria-invalid="true"' in page


def test_giving_up_forgets_what_was_said(client_of_operator: Client, tiny: Deployment) -> None:
    walk(client_of_operator)
    assert client_of_operator.post("/admin/tenants/_new/limits/", {"discard": "1"})["location"] == "/admin/tenants/"
    assert 'value="Search team"' not in page_of(client_of_operator, "_new/")


def test_tenant_taken_meanwhile_leads_back_and_writes_nothing(client_of_operator: Client, tiny: Deployment) -> None:
    walk(client_of_operator)
    Tenant.objects.create(slug="search", name="Another")
    answer = client_of_operator.post("/admin/tenants/_new/summary/")
    assert answer["location"] == "/admin/tenants/_new/details/"
    assert not Invitation.objects.exists()


# Limits


def test_limits_of_a_tenant_are_changed_with_what_is_used_in_sight(
    client_of_operator: Client, acme: Tenant, quota: Quota
) -> None:
    use(quota, acme, of_tenant(acme.limits.create(name="tokens_per_day", max=1000)), tokens=600)
    acme.limits.create(name="tokens_per_hour", max=70)
    said = {"tokens_per_day": "500", "money_per_month": "12.5", "money_per_month_beyond": "shadow"}
    page = text_of(client_of_operator.post("/admin/tenants/acme/limits/", said | {"say": "1"}).content.decode())
    assert "Tokens per day : 1,000 → 500 . Used now: 600." in page
    assert "Used up at once" in page
    assert "Tokens per hour : 70 → none . It holds nothing back any more." in page
    assert acme.limits.count() == 2
    client_of_operator.post("/admin/tenants/acme/limits/", said)
    held = {row.name: (row.max, row.mode) for row in acme.limits.all()}
    assert held == {"tokens_per_day": (500, "enforce"), "money_per_month": (12_500_000_000, "shadow")}
    event = last_event()
    assert (event.verb, event.before, event.after) == (
        "tenant.changed",
        {"limits.tokens_per_hour": "70", "limits.tokens_per_day": "1000", "limits.money_per_month": None},
        {"limits.tokens_per_hour": None, "limits.tokens_per_day": "500", "limits.money_per_month": "12.5 shadow"},
    )
    client_of_operator.post("/admin/tenants/acme/limits/", said)
    assert AuditEvent.objects.count() == 1


def test_limits_of_an_alias_are_changed(client_of_operator: Client, acme: Tenant, globex: Tenant, tiny: Deployment) -> None:
    alias = ModelAlias.objects.create(tenant=acme, name="org/general", deployment=tiny)
    path = f"acme/aliases/{alias.pk}/limits/"
    assert "Limits of the alias org/general" in page_of(client_of_operator, path)
    assert client_of_operator.get(f"/admin/tenants/globex/aliases/{alias.pk}/limits/").status_code == 404
    client_of_operator.post(f"/admin/tenants/{path}", {"concurrent_requests": "4"})
    assert alias.limits.get().max == 4
    assert (last_event().verb, last_event().target) == ("alias.changed", "alias acme/org/general")


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", str(2**60)])
def test_limit_that_is_no_number_is_told_at_its_field(client_of_operator: Client, acme: Tenant, value: str) -> None:
    page = client_of_operator.post("/admin/tenants/acme/limits/", {"tokens_per_day": value}).content.decode()
    assert 'id="id_tokens_per_day_error"' in page
    assert not acme.limits.exists()


def test_keys_last_used_orders_tenants(client_of_operator: Client, acme: Tenant, globex: Tenant) -> None:
    for tenant, days in ((acme, 3), (globex, 1)):
        key, _ = issuing.issue(tenant, issuing.Terms("ci"), **BY)
        ApiKey.objects.filter(pk=key.pk).update(last_used_at=timezone.now() - timedelta(days=days))
    assert names_of(page_of(client_of_operator, "?sort=-used")) == ["Globex", "Acme"]


def test_pages_are_japanese_where_they_are_asked_to_be(client_of_operator: Client, acme: Tenant) -> None:
    page = page_of(client_of_operator, headers={"accept-language": "ja"})
    assert "テナント" in page
    assert "New tenant" not in page


# The end of a tenant


@pytest.mark.usefixtures("acme_owner")
def test_deleting_tells_what_follows_and_asks_for_the_short_name(
    client_of_operator: Client, acme: Tenant, acme_key: tuple[ApiKey, str]
) -> None:
    told = text_of(page_of(client_of_operator, "acme/delete/"))
    assert "1 key goes with it" in told
    assert "1 person is no member any more; the account stays" in told
    assert "suspend it instead" in told
    answer = client_of_operator.post("/admin/tenants/acme/delete/", {"slug": "Acme"})
    assert "This is not its short name. Type: acme" in text_of(answer.content.decode())
    assert Tenant.objects.filter(pk=acme.pk).exists()
    assert not AuditEvent.objects.filter(verb="tenant.deleted").exists()


def test_deleted_tenant_is_gone_with_all_it_holds_but_its_usage_and_its_trail(
    client_of_operator: Client, acme: Tenant, globex: Tenant, acme_owner: User, acme_key: tuple[ApiKey, str], operator: User
) -> None:
    furnish(acme)
    kept = UsageRecord.objects.filter(tenant_id=acme.pk).count()
    told = AuditEvent.objects.filter(tenant_slug="acme").count()
    answer = client_of_operator.post("/admin/tenants/acme/delete/", {"slug": "acme"})
    assert answer["location"] == "/admin/tenants/"
    assert client_of_operator.get("/t/acme/").status_code == client_of_operator.get("/admin/tenants/acme/").status_code == 404
    assert not ApiKey.objects.filter(tenant_id=acme.pk).exists()
    assert User.objects.filter(pk=acme_owner.pk, is_active=True).exists()
    assert Tenant.objects.filter(pk=globex.pk).exists()
    assert kept == UsageRecord.objects.filter(tenant_id=acme.pk).count() == 1
    events = AuditEvent.objects.filter(tenant_slug="acme")
    assert events.count() == told + 1
    deleted = events.get(verb="tenant.deleted")
    assert (deleted.actor, deleted.before["keys"], deleted.before["aliases"]) == (operator, 2, 1)
    assert audit.verify() is None
    trail = client_of_operator.get("/admin/audit/?tenant=acme&verb=key.issued").content.decode()
    assert f"key {acme_key[0]}" in unescape(trail)


@pytest.mark.django_db(transaction=True)
def test_key_of_a_deleted_tenant_opens_nothing(
    client_of_operator: Client, acme_key: tuple[ApiKey, str], valkey: redis.Redis
) -> None:
    publish.publish_all()
    held = key_key(acme_key[0].lookup_id)
    assert valkey.exists(held)
    client_of_operator.post("/admin/tenants/acme/delete/", {"slug": "acme"})
    assert not valkey.exists(held)


@pytest.mark.parametrize("slug", ["new", "delete", "audit"])
def test_a_tenant_of_any_name_has_its_page(client_of_operator: Client, slug: str) -> None:
    Tenant.objects.create(slug=slug, name="By a file")
    assert "By a file" in text_of(page_of(client_of_operator, f"{slug}/"))
    assert "New tenant" in text_of(page_of(client_of_operator, "_new/"))
