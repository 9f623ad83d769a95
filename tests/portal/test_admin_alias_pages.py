"""The pages of every tenant's aliases: found, made, changed, deleted; and what of the platform a tenant reads of its own."""

import re
from collections.abc import Callable
from decimal import Decimal
from html import unescape
from typing import Any

import pytest
from django.test import Client

from accounts import issuing
from accounts.models import AuditEvent, Tenant, User
from gateway.config import policies
from gateway.models import Deployment, Limit, ModelAlias
from tests.e2e.conftest import BY
from usage import limits

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("valkey")]
SignedIn = Callable[[User], Client]
RULES = [{"kind": "keywords", "words": ["ALPHA-77"], "where": ["input"], "action": "block"}]


@pytest.fixture
def chief(signed_in: SignedIn, operator: User) -> Client:
    return signed_in(operator)


@pytest.fixture
def tiny() -> Deployment:
    return Deployment.objects.create(name="tiny", served_model="tiny")


@pytest.fixture
def general(acme: Tenant, tiny: Deployment) -> ModelAlias:
    texts = {"ja": "汎用", "en": "General"}
    return ModelAlias.objects.create(
        tenant=acme, name="general", deployment=tiny, display_name=texts, grants=["use_beam_search"]
    )


def publish(tenant: Tenant | None, name: str, *, is_everywhere: bool = False) -> None:
    policy = policies.create(tenant, name, is_everywhere=is_everywhere, **BY)
    policies.save_draft(policy, RULES, **BY)
    policies.publish(policy, **BY)


def fields(to: Deployment, /, **changed: Any) -> dict[str, Any]:
    """The form of `general` as a browser sends it."""
    return {
        "deployment": str(to.pk), "canary": "", "canary_percent": "0", "max_output_tokens": "", "max_choices": "8",
        "max_stops": "4", "price_prompt": "", "price_cached": "", "price_completion": "", "display_name_ja": "汎用",
        "display_name_en": "General", "description_ja": "", "description_en": "", "defaults": "", "grants": ["use_beam_search"],
        **changed,
    }  # fmt: skip


def post(client: Client, path: str, said: dict[str, Any]) -> str:
    answer = client.post(f"/admin/aliases/{path}", said, follow=True)
    assert answer.status_code == 200
    return unescape(answer.content.decode())


def names_of(client: Client, query: str) -> list[str]:
    page = client.get(f"/admin/aliases/{query}").content.decode()
    return re.findall(r"<strong>([^<]*)</strong></a>", page)


def events() -> list[str]:
    return list(AuditEvent.objects.exclude(verb__startswith="policy.").order_by("sequence").values_list("verb", flat=True))


def test_aliases_are_found_by_tenant_name_text_and_deployment(
    chief: Client, general: ModelAlias, globex: Tenant, tiny: Deployment
) -> None:
    other = Deployment.objects.create(name="other", served_model="other")
    ModelAlias.objects.create(tenant=globex, name="fast", deployment=other, canary=tiny, canary_percent=5)
    ModelAlias.objects.create(tenant=globex, name="slow", deployment=other)
    assert names_of(chief, "") == ["general", "fast", "slow"]
    assert names_of(chief, "?q=glob") == ["fast", "slow"]
    assert names_of(chief, "?q=fas") == ["fast"]
    assert names_of(chief, "?q=汎用") == ["general"]
    assert names_of(chief, "?deployment=tiny") == ["general", "fast"]
    assert "No alias like this" in chief.get("/admin/aliases/?q=nothing").content.decode()


def test_whose_it_shall_be_is_asked_first(chief: Client, acme: Tenant, tiny: Deployment) -> None:
    assert '<option value="acme">' in chief.get("/admin/aliases/_new/").content.decode()
    unknown = unescape(chief.get("/admin/aliases/_new/?tenant=nobody").content.decode())
    assert "There is no tenant “nobody”." in unknown
    page = post(chief, "_new/?tenant=acme", fields(tiny, name="quick", display_name_ja="", display_name_en=""))
    assert "Made: clients of Acme may call it" in page
    row = ModelAlias.objects.get()
    assert (row.tenant, row.name, row.display_name) == (acme, "quick", {})
    event = AuditEvent.objects.get()
    assert (event.verb, event.target, event.tenant) == ("alias.created", "alias acme/quick", acme)


def test_a_change_is_one_event_of_what_changed(chief: Client, general: ModelAlias, tiny: Deployment) -> None:
    publish(general.tenant, "calm")
    other = Deployment.objects.create(name="other", served_model="other")
    said = fields(
        other, canary=str(tiny.pk), canary_percent="5", price_prompt="0.50", price_completion="1.5", max_output_tokens="512",
        policies=["calm"], defaults='{"temperature": 0.2}', display_name_en="All-round",
    )  # fmt: skip
    assert "Changed" in post(chief, f"{general.pk}/", said)
    general.refresh_from_db()
    assert (general.deployment, general.canary, general.canary_percent) == (other, tiny, 5)
    assert (general.price_prompt, general.price_cached) == (Decimal("0.5"), None)
    assert (general.policies, general.defaults, general.grants) == (["calm"], {"temperature": 0.2}, ["use_beam_search"])
    assert general.display_name == {"ja": "汎用", "en": "All-round"}
    event = AuditEvent.objects.get(verb="alias.changed")
    assert event.after["deployment"] == "other"
    assert event.before["deployment"] == "tiny"
    assert "grants" not in event.after


def test_what_is_so_already_writes_nothing(chief: Client, general: ModelAlias, tiny: Deployment) -> None:
    assert "Nothing was changed." in post(chief, f"{general.pk}/", fields(tiny))
    assert not events()


@pytest.mark.parametrize(
    ("changed", "place", "told"),
    [
        ({"deployment": ""}, "id_deployment_error", "required"),
        ({"canary_percent": "5"}, "id_canary_error", "Choose the deployment that gets this share"),
        ({"price_prompt": "1"}, "id_price_completion_error", "A price needs both"),
        ({"price_prompt": "-1", "price_completion": "1"}, "id_price_prompt_error", ""),
        ({"defaults": "{"}, "id_defaults_error", "JSON"),
        ({"defaults": '{"model": "x"}'}, "id_defaults_error", "is not a field that an alias can set"),
        ({"grants": ["everything"]}, "id_grants_error", ""),
        ({"policies": ["nobodys"]}, "id_policies_error", ""),
        ({"max_choices": "0"}, "id_max_choices_error", ""),
    ],
)
def test_what_is_wrong_is_told_at_its_field_and_kept(
    chief: Client, general: ModelAlias, tiny: Deployment, changed: dict[str, Any], place: str, told: str
) -> None:
    page = post(chief, f"{general.pk}/", fields(tiny, **{"description_en": "kept words", **changed}))
    assert place in page
    assert told in page
    assert "kept words" in page
    assert not events()


def test_a_key_in_a_text_is_refused(chief: Client, general: ModelAlias, tiny: Deployment) -> None:
    _, text = issuing.issue(general.tenant, issuing.Terms("ci"), **BY)
    page = post(chief, f"{general.pk}/", fields(tiny, description_en=f"use {text}"))
    assert "holds an API key" in page
    assert "alias.changed" not in events()


def test_a_strangers_policy_cannot_be_named(chief: Client, general: ModelAlias, globex: Tenant, tiny: Deployment) -> None:
    publish(globex, "of-globex")
    assert "of-globex" not in chief.get(f"/admin/aliases/{general.pk}/").content.decode()
    assert "id_policies_error" in post(chief, f"{general.pk}/", fields(tiny, policies=["of-globex"]))


def test_deleting_tells_what_stops_and_wants_the_name(chief: Client, general: ModelAlias) -> None:
    issuing.issue(general.tenant, issuing.Terms("narrow", aliases=["general"]), **BY)
    before = events()
    page = chief.get(f"/admin/aliases/{general.pk}/delete/").content.decode()
    assert "1 key was narrowed to it" in page
    assert "This is not its name." in post(chief, f"{general.pk}/delete/", {"name": "genral"})
    assert ModelAlias.objects.exists()
    assert "Deleted: acme/general." in post(chief, f"{general.pk}/delete/", {"name": "general"})
    assert not ModelAlias.objects.exists()
    assert events() == [*before, "alias.deleted"]


def test_a_tenant_reads_the_names_of_the_platforms_policies_alone(
    signed_in: SignedIn, general: ModelAlias, acme_viewer: User
) -> None:
    publish(None, "platform-wide", is_everywhere=True)
    publish(None, "platform-named")
    page = signed_in(acme_viewer).get("/t/acme/aliases/").content.decode()
    assert "platform-wide" in page
    assert "platform-named" not in page
    assert "ALPHA-77" not in page
    assert "policies/platform-wide" not in page


def test_limits_are_changed_on_the_page_of_the_alias(chief: Client, general: ModelAlias, acme: Tenant) -> None:
    Limit.replace_all(general, [limits.Limit("requests_per_minute", 60)])
    page = chief.get(f"/admin/aliases/{general.pk}/").content.decode()
    form = page[page.index('<form id="limits"') :]
    assert f'action="/admin/tenants/acme/aliases/{general.pk}/limits/"' in form
    assert 'name="requests_per_minute" value="60"' in form
    seen = re.search(r'name="seen" value="(\w+)"', form)
    assert seen is not None
    said = {"from": "alias", "seen": seen[1], "requests_per_minute": "80"}
    answer = chief.post(f"/admin/tenants/acme/aliases/{general.pk}/limits/", said)
    assert answer["location"] == f"/admin/aliases/{general.pk}/"
    assert [row.max for row in general.limits.all()] == [80]
    assert [event.after for event in AuditEvent.objects.filter(verb="alias.changed")] == [{"limits.requests_per_minute": "80"}]
    listed = chief.get("/admin/aliases/").content.decode()
    assert f'href="/admin/aliases/{general.pk}/#limits"' in listed
    assert ": 80<" in listed
    assert f'href="/admin/aliases/{general.pk}/#limits"' in chief.get("/t/acme/aliases/").content.decode()


def test_members_are_told_who_sets_limits(signed_in: SignedIn, general: ModelAlias, acme_owner: User) -> None:
    client = signed_in(acme_owner)
    for path in ("aliases/", "limits/"):
        page = client.get(f"/t/acme/{path}").content.decode()
        assert "The operator of this installation sets" in page
        assert "/admin/aliases/" not in page


def test_many_take_as_few_queries(chief: Client, tiny: Deployment, acme: Tenant, django_assert_max_num_queries: Any) -> None:
    for number in range(60):
        row = ModelAlias.objects.create(tenant=acme, name=f"alias-{number}", deployment=tiny, canary=tiny)
    for path, most in (("", 9), (f"{row.pk}/", 12), ("_new/?tenant=acme", 10)):
        with django_assert_max_num_queries(most):
            assert chief.get(f"/admin/aliases/{path}").status_code == 200
