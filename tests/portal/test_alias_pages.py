"""The page of aliases: what a tenant may call, in the reader's language, and what of it is nobody else's to know."""

import re
from collections.abc import Callable
from decimal import Decimal
from html import unescape
from typing import Any

import pytest
from django.test import Client

from accounts.models import Tenant, User
from gateway.config import policies
from gateway.models import Deployment, ModelAlias
from tests.e2e.conftest import BY

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
EVIL = "<script>alert(1)</script>"
RULES = [{"name": "words", "kind": "keywords", "words": ["ALPHA-77"], "where": ["input"], "action": "block"}]


@pytest.fixture
def deployment() -> Deployment:
    return Deployment.objects.create(name="gpu-pool-7", served_model="acme/secret-model")


@pytest.fixture
def general(acme: Tenant, deployment: Deployment) -> ModelAlias:
    return ModelAlias.objects.create(
        tenant=acme,
        name="general",
        deployment=deployment,
        max_output_tokens=131072,
        max_choices=3,
        grants=["logprobs"],
        defaults={"temperature": 0.2},
        policies=["no-secrets", "platforms"],
        price_prompt=Decimal("12.50"),
        price_completion=Decimal(100),
        display_name={"en": "General", "ja": "汎用"},
        description={"en": "For everyday work.", "ja": "日々の業務に。"},
    )


def publish(tenant: Tenant | None, name: str, *, is_everywhere: bool = False) -> None:
    made = policies.create(tenant, name, is_everywhere=is_everywhere, **BY)
    policies.save_draft(made, RULES, **BY)
    policies.publish(made, **BY)


def page_of(client: Client, path: str = "/t/acme/aliases/", **options: Any) -> str:
    answer = client.get(path, **options)
    assert answer.status_code == 200
    return answer.content.decode()


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


def test_alias_is_told_whole(signed_in: SignedIn, acme: Tenant, acme_viewer: User, general: ModelAlias) -> None:
    publish(acme, "no-secrets")
    publish(acme, "always", is_everywhere=True)
    publish(None, "platforms")
    general.limits.create(name="tokens_per_day", max=2000)
    general.limits.create(name="money_per_month", max=1_500_000_000, mode="shadow")
    page = page_of(signed_in(acme_viewer))
    text = text_of(page)
    for told in (
        "General",
        "For everyday work.",
        "Tokens per day: 2,000",
        "Money per month: 1.5 Only counted",
        "Prompt: 12.5 Answer: 100",
        "131,072 tokens",
        "n : 3 at most",
        "Also allowed: logprobs",
        "temperature: 0.2",
    ):
        assert told in text, told
    assert re.findall(r'href="/t/acme/policies/([^"/]+)/"', page) == ["always", "no-secrets"]
    assert "platforms" in text
    assert "Cached prompt" not in text


def test_alias_reads_in_the_language_of_the_reader(signed_in: SignedIn, acme_viewer: User, general: ModelAlias) -> None:
    page = text_of(page_of(signed_in(acme_viewer), headers={"accept-language": "ja"}))
    assert general.name in page
    assert "汎用" in page
    assert "日々の業務に。" in page
    assert "100 万トークンあたりの価格" in page
    assert "For everyday work." not in page


def test_alias_with_nothing_set_says_what_that_means(
    signed_in: SignedIn, acme: Tenant, acme_viewer: User, deployment: Deployment
) -> None:
    ModelAlias.objects.create(tenant=acme, name="plain", deployment=deployment)
    page = text_of(page_of(signed_in(acme_viewer)))
    for told in ("None of its own", "Calls cost nothing", "As the model allows"):
        assert told in page


def test_what_backs_an_alias_is_shown_to_operators_alone(
    signed_in: SignedIn, acme_admin: User, operator: User, general: ModelAlias
) -> None:
    general.canary = Deployment.objects.create(name="gpu-pool-8", served_model="next")
    general.canary_percent = 5
    general.save()
    assert "gpu-pool" not in page_of(signed_in(acme_admin))
    page = text_of(page_of(signed_in(operator)))
    assert "gpu-pool-7" in page
    assert "canary gpu-pool-8: 5 percent" in page
    assert "secret-model" not in page


def test_no_alias_yet_says_what_to_do(signed_in: SignedIn, acme_viewer: User, operator: User, acme: Tenant) -> None:
    assert "Ask an admin of this tenant" in page_of(signed_in(acme_viewer))
    assert "/admin/aliases/_new/?tenant=acme" in page_of(signed_in(operator))
    assert acme.slug == "acme"


def test_a_strangers_aliases_are_a_404_and_not_on_the_page(
    signed_in: SignedIn, acme_admin: User, globex: Tenant, deployment: Deployment, client: Client
) -> None:
    assert client.get("/t/acme/aliases/").status_code == 302
    ModelAlias.objects.create(tenant=globex, name="theirs", deployment=deployment)
    client = signed_in(acme_admin)
    assert client.get("/t/globex/aliases/").status_code == 404
    assert "theirs" not in page_of(client)


def test_markup_in_stored_text_stays_text(signed_in: SignedIn, acme: Tenant, acme_viewer: User, general: ModelAlias) -> None:
    acme.name = EVIL
    acme.save()
    general.display_name, general.description = {"en": EVIL}, {"en": f"{EVIL}\n{EVIL}"}
    general.defaults = {"user": EVIL}
    general.policies = [EVIL]
    general.save()
    page = page_of(signed_in(acme_viewer))
    assert EVIL in text_of(page)
    assert EVIL not in page
    assert " style=" not in page


def test_page_costs_a_handful_of_queries_however_many_aliases(
    signed_in: SignedIn,
    acme: Tenant,
    acme_viewer: User,
    operator: User,
    deployment: Deployment,
    django_assert_max_num_queries: Callable[[int], Any],
) -> None:
    for n in range(25):
        alias = ModelAlias.objects.create(tenant=acme, name=f"alias-{n:02}", deployment=deployment, canary=deployment)
        alias.limits.create(name="tokens_per_day", max=2000)
    for user in (acme_viewer, operator):
        client = signed_in(user)
        with django_assert_max_num_queries(12):
            page = page_of(client)
        assert page.count('aria-labelledby="alias-') == 10
        assert "25 in all" in page
        assert "alias-07" in page_of(client, "/t/acme/aliases/?q=S-07")
