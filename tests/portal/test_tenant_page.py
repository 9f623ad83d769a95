"""Home and the page of a tenant: aliases, keys, the first call."""

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

from accounts import issuing
from accounts.models import ApiKey, Membership, Tenant, User
from accounts.roles import Role
from gateway.models import Deployment, ModelAlias
from tests.conftest import PASSWORD

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
    assert page_of(client, "/").count('href="/t/') == 50
    assert page_of(client, "/?page=2").count('href="/t/') == 10
    assert page_of(client, "/?page=nonsense").count('href="/t/') == 50


def test_home_leads_an_operator_to_all_tenants(signed_in: SignedIn, operator: User) -> None:
    assert signed_in(operator).get("/")["location"] == "/admin/tenants/"


def test_person_without_a_tenant_learns_what_to_do(client: Client, signed_in: SignedIn) -> None:
    newcomer = User.objects.create_user("new@acme.example", PASSWORD)
    assert "Ask an admin of your tenant to add new@acme.example as a member." in page_of(signed_in(newcomer), "/")


def test_alias_is_shown_in_the_language_of_the_reader(signed_in: SignedIn, acme_viewer: User, general: ModelAlias) -> None:
    client = signed_in(acme_viewer)
    english = text_of(page_of(client))
    assert "general" in english
    assert "General For everyday work." in english
    assert "131,072 tokens" in english
    japanese = text_of(page_of(client, headers={"accept-language": "ja"}))
    assert "汎用 日々の業務に。" in japanese
    assert "131,072 トークン" in japanese


def test_alias_without_a_text_in_the_language_shows_the_one_it_has(
    signed_in: SignedIn, acme_viewer: User, general: ModelAlias
) -> None:
    general.display_name, general.description = {"ja": "汎用"}, {}
    general.save()
    assert "汎用" in text_of(page_of(signed_in(acme_viewer)))


def test_what_backs_an_alias_is_shown_to_operators_alone(
    signed_in: SignedIn, acme_admin: User, operator: User, general: ModelAlias
) -> None:
    assert "gpu-pool-7" not in page_of(signed_in(acme_admin))
    as_operator = page_of(signed_in(operator))
    assert "gpu-pool-7" in as_operator
    assert "secret-model" not in as_operator


def test_keys_are_shown_with_what_they_may_do_and_without_their_text(
    signed_in: SignedIn, acme: Tenant, acme_viewer: User
) -> None:
    terms = issuing.Terms(
        "batch",
        scopes=["chat", "usage:tenant"],
        aliases=["general"],
        networks=["192.0.2.0/24", "2001:db8::/32"],
        expires_at=timezone.now() + timedelta(days=30),
    )
    key, secret = issuing.issue(acme, terms, actor=None, actor_label="test")
    key.last_used_at = datetime(2026, 11, 20, 15, 30, tzinfo=UTC)
    key.save()
    page = page_of(signed_in(acme_viewer))
    for shown in ("batch", key.hint, "usage:tenant", "general", "2 networks", "Active", "21 Nov 2026, 00:30"):
        assert shown in text_of(page), shown
    for hidden in (secret, secret[-36:], key.digest, key.lookup_id, str(key.id)):
        assert hidden not in page


def test_states_of_keys_are_told_in_words(signed_in: SignedIn, acme: Tenant, acme_viewer: User) -> None:
    def issue(name: str) -> ApiKey:
        return issuing.issue(acme, issuing.Terms(name), actor=None, actor_label="test")[0]

    issue("fresh")
    issuing.rotate(issue("turned"), overlap=timedelta(days=1), actor=None, actor_label="test")
    issuing.revoke(issue("gone"), actor=None, actor_label="test")
    ApiKey.objects.filter(pk=issue("late").pk).update(expires_at=timezone.now() - timedelta(days=1))
    rows = re.findall(r"<tr role=\"row\">\s*<td.*?</tr>", page_of(signed_in(acme_viewer)), re.DOTALL)
    assert [(text.split()[0], text.split()[2]) for text in map(text_of, rows)] == [
        ("fresh", "Active"),
        ("late", "Expired"),
        ("turned", "Retiring"),
        ("turned", "Active"),
        ("gone", "Revoked"),
    ]


def test_strangers_keys_and_aliases_are_not_on_the_page(
    signed_in: SignedIn, acme_viewer: User, general: ModelAlias, globex: Tenant
) -> None:
    issuing.issue(globex, issuing.Terms("globex-key"), actor=None, actor_label="test")
    ModelAlias.objects.create(tenant=globex, name="globex-alias", deployment=general.deployment)
    page = page_of(signed_in(acme_viewer))
    assert "globex" not in page.lower()


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


def test_empty_tenant_shows_whom_to_ask(signed_in: SignedIn, acme_viewer: User, operator: User) -> None:
    as_member = page_of(signed_in(acme_viewer))
    assert as_member.count("Ask an admin of this tenant") == 2
    assert "manage.py" not in as_member
    assert "snippet-curl" not in as_member
    assert "/t/acme/keys/new/" not in as_member
    assert "/t/acme/keys/new/" in page_of(signed_in(operator))


def test_suspended_tenant_says_so_and_why(signed_in: SignedIn, acme: Tenant, acme_viewer: User) -> None:
    acme.is_active, acme.suspension_reason = False, "The contract ended."
    acme.save()
    page = text_of(page_of(signed_in(acme_viewer)))
    assert "This tenant is suspended" in page
    assert "Reason: The contract ended." in page


def test_texts_of_people_are_escaped(signed_in: SignedIn, acme: Tenant, acme_viewer: User, general: ModelAlias) -> None:
    evil = "<script>alert(1)</script>"
    acme.name = evil
    acme.save()
    general.display_name = {"en": evil}
    general.save()
    issuing.issue(acme, issuing.Terms(evil), actor=None, actor_label="test")
    assert evil not in page_of(signed_in(acme_viewer))


def test_page_costs_a_handful_of_queries_however_many_rows(
    signed_in: SignedIn,
    acme: Tenant,
    acme_viewer: User,
    operator: User,
    general: ModelAlias,
    django_assert_max_num_queries: Callable[[int], Any],
) -> None:
    for n in range(60):
        issuing.issue(acme, issuing.Terms(f"key-{n:02}"), actor=None, actor_label="test")
        ModelAlias.objects.create(tenant=acme, name=f"alias-{n}", deployment=general.deployment)
    for user in (acme_viewer, operator):
        client = signed_in(user)
        with django_assert_max_num_queries(9):
            page = page_of(client)
        assert page.count("key-") == 50
        assert "Page 1 of 2" in page
