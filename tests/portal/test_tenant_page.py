"""Home and the first page of a tenant: the way to the first call, then what was used, what limits, what went wrong."""

import ast
import json
import re
import shlex
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts import issuing, tenants
from accounts.models import ApiKey, Membership, Tenant, User
from accounts.roles import Role
from gateway.models import Deployment, Limit, ModelAlias
from portal import overview
from portal.standing import Standing
from tests.conftest import PASSWORD
from tests.portal.paging import turned
from tests.usage.made import OTHER_KEY_ID, event
from usage import ledger
from usage.limits import BoundLimit
from usage.reservation import LimitState
from usage.traffic import last_minutes

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]


@pytest.fixture
def general(acme: Tenant) -> ModelAlias:
    return ModelAlias.objects.create(
        tenant=acme,
        name="general",
        deployment=Deployment.objects.create(name="gpu-pool-7", served_model="acme/secret-model"),
        max_output_tokens=131072,
        display_name={"en": "General", "ja": "汎用"},
        description={"en": "For everyday work.", "ja": "日々の業務に。"},
    )


def page_of(client: Client, path: str = "/t/acme/", **options: Any) -> str:
    answer = client.get(path, **options)
    assert answer.status_code == 200
    return answer.content.decode()


def text_of(page: str) -> str:
    """What a person reads: no tags, one space where there are many."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


def test_home_leads_to_the_only_tenant(signed_in: SignedIn, acme_viewer: User) -> None:
    assert signed_in(acme_viewer).get("/")["location"] == "/t/acme/"


def test_home_lists_just_the_tenants_of_a_member(signed_in: SignedIn, acme_viewer: User, globex: Tenant) -> None:
    Tenant.objects.create(slug="initech", name="Initech")
    globex.memberships.create(user=acme_viewer, role=Role.VIEWER)
    page = page_of(signed_in(acme_viewer), "/")
    assert re.findall(r'href="/t/([^/]*)/"', page) == ["acme", "globex"]


def test_home_lists_a_members_tenants_in_pages(signed_in: SignedIn, acme_viewer: User) -> None:
    made = Tenant.objects.bulk_create(Tenant(slug=f"tenant-{n:03}", name=f"Tenant {n}") for n in range(59))
    acme_viewer.memberships.bulk_create(Membership(user=acme_viewer, tenant=tenant, role=Role.VIEWER) for tenant in made)
    client = signed_in(acme_viewer)
    first = page_of(client, "/")
    assert first.count('href="/t/') == 25
    assert turned(client, "/", turned(client, "/", first)).count('href="/t/') == 10


def test_home_leads_an_operator_to_all_tenants(signed_in: SignedIn, operator: User) -> None:
    assert signed_in(operator).get("/")["location"] == "/admin/tenants/"


def test_person_without_a_tenant_learns_what_to_do(client: Client, signed_in: SignedIn) -> None:
    newcomer = User.objects.create_user("new@acme.example", PASSWORD)
    assert "Ask an admin of your tenant to add new@acme.example as a member." in page_of(signed_in(newcomer), "/")


def test_first_call_can_be_pasted(signed_in: SignedIn, acme_viewer: User, general: ModelAlias, settings: Any) -> None:
    settings.GATEWAY_PUBLIC_URL = "https://llm.acme.example/"
    page = page_of(signed_in(acme_viewer), headers={"accept-language": "ja"})
    snippets = dict(re.findall(r'<code id="(base-url|snippet-\w+)">(.*?)</code>', page, re.DOTALL))
    assert snippets["base-url"] == "https://llm.acme.example/v1"
    arguments = shlex.split(unescape(snippets["snippet-curl"]).replace("\\\n", ""))
    assert arguments[:2] == ["curl", "https://llm.acme.example/v1/chat/completions"]
    body = json.loads(arguments[arguments.index("-d") + 1])
    assert body == {"model": "general", "messages": [{"role": "user", "content": "こんにちは！"}]}
    program = ast.unparse(ast.parse(unescape(snippets["snippet-python"])))
    assert "base_url='https://llm.acme.example/v1'" in program
    assert "model='general'" in program


OPEN_TO_ALL = ["", "usage/", "requests/", "keys/", "policies/", "aliases/", "limits/", "members/", "docs/"]


@pytest.mark.parametrize("path", OPEN_TO_ALL)
def test_suspended_tenant_says_on_every_page_by_whom_why_and_whom_to_ask(
    signed_in: SignedIn, acme: Tenant, acme_viewer: User, operator: User, path: str
) -> None:
    tenants.suspend(acme, "The contract <b>ended</b>.", actor=operator)
    page = page_of(signed_in(acme_viewer), f"/t/acme/{path}")
    told = text_of(page)
    assert page.count("This tenant is suspended.") == 1
    assert "Reason: The contract <b>ended</b>." in told
    assert f"Suspended by {operator.email} on" in told
    assert f'<a href="mailto:{operator.email}">Ask {operator.email}</a>' in page
    assert "<b>ended" not in page
    assert f'href="/admin/tenants/{acme.slug}/"' in page_of(signed_in(operator), f"/t/acme/{path}")
    tenants.resume(acme, actor=operator)
    assert "This tenant is suspended" not in page_of(signed_in(acme_viewer), f"/t/acme/{path}")


def test_tenant_that_a_command_suspended_asks_the_operator(signed_in: SignedIn, acme: Tenant, acme_viewer: User) -> None:
    acme.is_active = False
    acme.save()
    assert "Ask the operator of this installation." in text_of(page_of(signed_in(acme_viewer)))
    tenants.suspend(acme, "Over.", actor=None, actor_label="command: apply")
    page = text_of(page_of(signed_in(acme_viewer)))
    assert "Suspended on" in page
    assert "command" not in page
    assert "Ask the operator of this installation." in page


def test_docs_tell_that_calls_of_a_suspended_tenant_are_refused(
    signed_in: SignedIn, acme_viewer: User, general: ModelAlias
) -> None:
    errors = text_of(page_of(signed_in(acme_viewer), "/t/acme/docs/"))
    assert "or its tenant is suspended" in errors


def test_three_steps_light_up_as_they_happen(
    signed_in: SignedIn, acme: Tenant, acme_viewer: User, acme_developer: User, general: ModelAlias
) -> None:
    def done(client: Client) -> int:
        return page_of(client, "/t/acme/now/?of=steps").count("step-done")

    assert "Ask an admin of this tenant" in page_of(signed_in(acme_viewer))
    client = signed_in(acme_developer)
    assert "/t/acme/keys/new/" in page_of(client)
    assert general.name in page_of(client)
    assert done(client) == 0
    key, _text = issuing.issue(acme, issuing.Terms("first"), actor=None, actor_label="test")
    assert done(client) == 1
    ApiKey.objects.update(last_used_at=timezone.now())
    assert done(client) == 2
    ledger.post([event(acme, timezone.now(), key_id=str(key.pk))])
    answer = client.get("/t/acme/now/?of=steps")
    assert answer["hx-refresh"] == "true"
    assert "snippet-curl" not in page_of(client)


def test_last_day_is_told_beside_the_day_before(signed_in: SignedIn, acme: Tenant, acme_viewer: User) -> None:
    now = timezone.now().replace(minute=30)
    ledger.post([
        *[event(acme, now - timedelta(minutes=n), alias="chat", first_token_ms=500) for n in range(6)],
        event(acme, now, alias="code", outcome="failed", error_code="upstream_timeout", status=504, first_token_ms=None),
        *[event(acme, now - timedelta(hours=24)) for _ in range(2)],
    ])  # fmt: skip
    client = signed_in(acme_viewer)
    told = text_of(page_of(client))
    for words in ("Requests 7 +250 % against", "Tokens 840 +250 %", "Errors 1 14.3%", "chat code The day before"):
        assert words in told, words
    assert "Tokyo" in told
    live = page_of(client, "/t/acme/now/")
    assert "Requests 7" in text_of(live)
    assert "<html" not in live
    (failed,) = [unescape(url) for url in re.findall(r'<a class="plain" href="([^"]*)"', live) if "ending=failed" in url]
    assert page_of(client, failed).count("upstream_timeout") == 1


def test_what_went_wrong_is_grouped_with_what_to_do(signed_in: SignedIn, acme: Tenant, acme_viewer: User) -> None:
    now = timezone.now()
    early = now - timedelta(minutes=1)
    refused = {"outcome": "refused", "error_code": "token_quota_exceeded", "status": 429}
    latest = event(acme, now, **refused)
    ledger.post([
        *[event(acme, early, **refused) for _ in range(2)],
        latest,
        event(acme, early, outcome="refused", error_code="content_blocked", status=403),
        event(acme, early, outcome="client_left", error_code="client_left", status=499),
        event(acme, now - timedelta(hours=30), outcome="failed", error_code="internal_error", status=500),
    ])  # fmt: skip
    page = page_of(signed_in(acme_viewer))
    problems = re.findall(r'<p class="problem-head">(.*?)</p>', page, re.DOTALL)
    assert [text_of(problem).strip() for problem in problems] == [
        "Refused token_quota_exceeded 3 requests",
        "Blocked content_blocked 1 request",
    ]
    assert "tokens or the money" in text_of(page)
    assert f"/t/acme/requests/{latest.request_id}/" in page


def test_limit_tells_when_it_is_reached_at_this_pace(acme: Tenant) -> None:
    noon = datetime(2026, 11, 21, 3, tzinfo=UTC)  # in Tokyo

    def reached(used: int, most: int, name: str = "tokens_per_day") -> datetime | None:
        row = Limit(tenant=acme, name=name, max=most)
        bound = BoundLimit("tenant", str(acme.pk), row.configured)
        return overview.reached_at(Standing(row, LimitState(bound, used, 0, 0)), "Asia/Tokyo", noon)

    assert reached(600, 900) == noon + timedelta(hours=6)
    assert reached(600, 1300) is None
    assert reached(900, 900) is None
    assert reached(0, 900) is None
    assert reached(600, 900, "tokens_per_hour") is None
    assert overview.reached_at(Standing(Limit(tenant=acme, name="tokens_per_day", max=5)), "Asia/Tokyo", noon) is None


@pytest.mark.usefixtures("valkey")
def test_limits_that_slide_tell_it_too(acme: Tenant) -> None:
    now = timezone.now().replace(second=30, microsecond=0)
    ledger.post(
        [event(acme, now - timedelta(minutes=n), alias="a", prompt_tokens=80) for n in range(1, 11) for _ in range(11 - n)]
    )
    alias = ModelAlias(tenant=acme, name="a")

    def reached(name: str, most: int, used: int, alias: ModelAlias | None = None) -> datetime | None:
        row = Limit(tenant=acme, alias=alias, name=name, max=most)
        subject = ("alias", "a") if alias else ("tenant", str(acme.pk))
        (lately,) = last_minutes(acme.pk, [subject], now, 60)
        return overview.reached_at(
            Standing(row, LimitState(BoundLimit(*subject, row.configured), used, 0, 0)), "UTC", now, lately
        )

    # 55 calls of 100 tokens in ten minutes are 5,500, which is 550 a minute.
    for of in (None, alias):
        at = reached("tokens_per_hour", 11_000, 5500, of)
        assert at is not None
        assert round((at - now).total_seconds()) == 600
        at = reached("requests_per_minute", 15, 10, of)  # one more each minute
        assert at is not None
        assert round((at - now).total_seconds()) == 300
    assert reached("tokens_per_hour", 5_000_000, 5500) is None
    assert reached("requests_per_minute", 5000, 10) is None
    (nobodys,) = last_minutes(acme.pk, [("key", OTHER_KEY_ID)], now, 60)
    assert sum(nobodys.tokens) == 0


def test_lost_calls_are_among_what_went_wrong(signed_in: SignedIn, acme: Tenant, acme_viewer: User) -> None:
    lost = event(acme, timezone.now(), outcome="lost", status=200)
    ledger.post(
        [lost, event(acme, timezone.now()), event(acme, timezone.now(), outcome="failed", error_code="upstream_timeout")]
    )
    client = signed_in(acme_viewer)
    page = page_of(client)
    assert "ended before the call did" in page
    assert "?ending=failed&amp;code=lost" in page
    calls = client.get("/t/acme/requests/?ending=failed&code=lost").content.decode()
    assert calls.count('class="call-time"') == 1
    assert lost.request_id in calls
    assert "ended before the call did" in client.get(f"/t/acme/requests/{lost.request_id}/").content.decode()


@pytest.mark.usefixtures("valkey")
def test_limits_stand_on_the_page(signed_in: SignedIn, acme: Tenant, acme_viewer: User) -> None:
    ledger.post([event(acme, timezone.now())])
    client = signed_in(acme_viewer)
    assert "not limited" in page_of(client)
    Limit.objects.create(tenant=acme, name="tokens_per_day", max=5000)
    told = text_of(page_of(client))
    assert "Tokens per day The whole tenant" in told


def test_names_of_people_are_escaped_and_strangers_not_there(
    signed_in: SignedIn, acme: Tenant, acme_viewer: User, globex: Tenant
) -> None:
    evil = "<script>alert(1)</script>"
    acme.name = evil
    acme.save()
    client = signed_in(acme_viewer)
    assert evil not in page_of(client)
    key, _text = issuing.issue(acme, issuing.Terms(evil), actor=None, actor_label="test")
    ours = event(acme, timezone.now(), alias=evil, key_id=str(key.pk), outcome="failed", error_code=evil)
    ledger.post([ours, event(globex, timezone.now(), alias="globex-alias")])
    page = page_of(client)
    assert evil not in page
    assert "globex" not in page
    for path in ("/t/globex/now/", "/t/globex/now/?of=steps"):
        assert client.get(path).status_code == 404


@pytest.mark.usefixtures("valkey")
def test_page_costs_a_handful_of_queries_however_many_rows(
    signed_in: SignedIn, acme: Tenant, acme_viewer: User, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    client = signed_in(acme_viewer)
    with django_assert_max_num_queries(13):
        page_of(client)
    keys = [issuing.issue(acme, issuing.Terms(f"key-{n}"), actor=None, actor_label="test")[0] for n in range(60)]
    Limit.objects.bulk_create(Limit(key=key, name="tokens_per_day", max=5000) for key in keys)
    ledger.post([event(acme, timezone.now(), key_id=str(key.pk), alias=f"a{n}") for n, key in enumerate(keys)])
    with django_assert_max_num_queries(19):
        page_of(client)
    with django_assert_max_num_queries(8):
        page_of(client, "/t/acme/now/")
