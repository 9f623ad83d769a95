"""Policies of the platform; versions compared, whom a policy concerns, and what its rules found."""

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts import issuing
from accounts.models import AuditEvent, Tenant, User
from gateway.config import policies
from gateway.models import ContentPolicy, Deployment, ModelAlias
from portal.differences import LINES_MAX, Line, differences
from tests.e2e.conftest import BY
from tests.usage.made import event
from usage import ledger

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
HOME = "/admin/policies/"
RULES = [{"name": "words", "kind": "keywords", "words": ["ALPHA-77"], "where": ["input"], "action": "block"}]


def published(holder: Tenant | None, name: str = "house", rules: list[Any] = RULES, **more: Any) -> ContentPolicy:
    made = policies.create(holder, name, **more, **BY)
    policies.save_draft(made, rules, **BY)
    policies.publish(made, **BY)
    return made


def page_of(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, path
    return answer.content.decode()


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


def alias(tenant: Tenant, name: str = "general", **more: Any) -> ModelAlias:
    deployment, _made = Deployment.objects.get_or_create(name="tiny", defaults={"served_model": "tiny"})
    return ModelAlias.objects.create(tenant=tenant, name=name, deployment=deployment, **more)


def decision(action: str = "flag", policy: str = "house") -> dict[str, Any]:
    return {"policy": policy, "version": 1, "rule": "words", "kind": "keywords", "action": action, "surface": "input.user"}


PAGES = ["", "_new/", "house/", "house/draft/", "house/diff/", "house/report/", "house/everywhere/", "house/delete/"]
ACTS = ["house/publish/", "house/discard/", "house/roll-back/1/", "house/everywhere/", "house/delete/", "_new/", "house/draft/"]


@pytest.mark.parametrize("path", PAGES)
def test_only_operators_find_the_policies_of_the_platform(
    signed_in: SignedIn, operator: User, acme_owner: User, path: str
) -> None:
    published(None)
    assert signed_in(acme_owner).get(HOME + path).status_code == 404
    page = page_of(signed_in(operator), HOME + path)
    assert 'aria-label="The platform"' in page
    assert "/t/" not in re.sub(r'href="/t/[^"]*"', "", page)


@pytest.mark.parametrize("path", ACTS)
def test_only_operators_change_the_policies_of_the_platform(signed_in: SignedIn, acme_owner: User, path: str) -> None:
    published(None)
    before = AuditEvent.objects.count()
    assert signed_in(acme_owner).post(HOME + path, {"name": "house", "everywhere": "on"}).status_code == 404
    assert AuditEvent.objects.count() == before


@pytest.mark.parametrize("path", PAGES)
def test_a_tenants_pages_are_a_404_to_strangers(
    signed_in: SignedIn, acme: Tenant, globex_admin: User, acme_viewer: User, path: str
) -> None:
    published(acme)
    assert signed_in(globex_admin).get(f"/t/acme/policies/{path}").status_code == 404
    assert signed_in(globex_admin).get(f"/t/globex/policies/{path}").status_code in (200, 404)
    allowed = path in ("", "house/", "house/diff/", "house/report/")
    assert signed_in(acme_viewer).get(f"/t/acme/policies/{path}").status_code == (200 if allowed else 403)


def test_an_operator_makes_publishes_and_applies_a_policy_of_the_platform(
    signed_in: SignedIn, operator: User, acme: Tenant, globex: Tenant
) -> None:
    client = signed_in(operator)
    assert client.post(f"{HOME}_new/", {"name": "house"})["location"] == f"{HOME}house/draft/"
    block = {"blocks": "1", "0-kind": "keywords", "0-words": "X-1", "0-where": "input", "0-action": "block", "do": "keep"}
    assert client.post(f"{HOME}house/draft/", block)["location"] == f"{HOME}house/draft/"
    client.post(f"{HOME}house/publish/")
    asked = text_of(page_of(client, f"{HOME}house/everywhere/"))
    assert "every call of all 2 tenants" in asked
    assert client.post(f"{HOME}house/everywhere/", {"everywhere": "on"})["location"] == f"{HOME}house/"
    made = ContentPolicy.objects.get(tenant=None)
    assert made.is_everywhere
    assert "Every call of every tenant" in text_of(page_of(client, HOME))
    assert "all 2" not in text_of(page_of(client, f"{HOME}house/everywhere/"))
    client.post(f"{HOME}house/everywhere/", {})
    events = AuditEvent.objects.order_by("sequence").values_list("verb", "actor", "tenant")
    verbs = ["policy.created", "policy.drafted", "policy.published", "policy.changed", "policy.changed"]
    assert list(events) == [(verb, operator.pk, None) for verb in verbs]


def test_a_policy_is_deleted_by_its_name_and_not_while_it_is_named(signed_in: SignedIn, acme: Tenant, acme_admin: User) -> None:
    published(acme)
    user = alias(acme, policies=["house"])
    client, path = signed_in(acme_admin), "/t/acme/policies/house/delete/"
    assert "This is not its name" in client.post(path, {"name": "hose"}).content.decode()
    assert "is used by" in client.post(path, {"name": "house"}).content.decode()
    ModelAlias.objects.filter(pk=user.pk).update(policies=[])
    assert client.post(path, {"name": "house"}).status_code == 302
    assert not ContentPolicy.objects.exists()
    assert AuditEvent.objects.filter(verb="policy.deleted").count() == 1


def test_who_is_affected_is_told_and_a_tenants_own_policy_goes_before_the_platforms(
    signed_in: SignedIn, operator: User, acme: Tenant, globex: Tenant
) -> None:
    published(None)
    published(globex)
    alias(acme, policies=["house"])
    alias(globex, policies=["house"])
    issuing.issue(acme, issuing.Terms(name="ci", policies=["house"]), **BY)
    policies.save_draft(ContentPolicy.objects.get(tenant=None), [], **BY)
    client = signed_in(operator)
    for path in ("", "house/draft/", "house/delete/"):
        page = text_of(page_of(client, HOME + path))
        assert "acme/general acme/ci 1 alias, 1 key" in page, path
        assert "globex/general" not in page, path


def test_versions_are_compared_line_by_line(signed_in: SignedIn, acme: Tenant, acme_viewer: User) -> None:
    made = published(acme)
    policies.save_draft(
        made, [{**RULES[0], "words": ["ALPHA-77", "<b>BETA"]}, {"kind": "roles", "action": "flag", "roles": ["user"]}], **BY
    )
    client, path = signed_in(acme_viewer), "/t/acme/policies/house/diff/"
    page = page_of(client, path)
    added = [unescape(line) for line in re.findall(r"<ins>.*?</span>(.*?)</ins>", page)]
    assert "  - <b>BETA" in added
    assert "- kind: roles" in added
    assert "<del>" not in page
    assert "<del>" in page_of(client, f"{path}?before=2&after=1")
    assert "The rules are the same" in page_of(client, f"{path}?before=1&after=1")
    assert "field-error" in page_of(client, f"{path}?before=9&after=x")


def test_differences_leave_out_what_is_far_from_a_change_and_refuse_what_is_too_long() -> None:
    old = [f"rule {number}\n  end" for number in range(20)]
    lines = differences(old, [*old[:10], "rule new\n  end", *old[10:]])
    assert lines is not None
    assert [line.text for line in lines if line.sign == "+"] == ["rule new", "  end"]
    assert (lines[0], lines[-1]) == (Line("…", skipped=17), Line("…", skipped=17))
    changed = differences(["kind: a\naction: block"], ["kind: a\naction: flag"])
    assert changed == [Line(" ", "kind: a"), Line("-", "action: block"), Line("+", "action: flag")]
    assert differences(old, old) == []
    assert differences(["a\n" * LINES_MAX], ["b"]) is None


def test_report_tells_by_rule_and_day_what_was_and_what_would_have_been_stopped(
    signed_in: SignedIn, acme: Tenant, globex: Tenant, acme_viewer: User, operator: User
) -> None:
    published(acme)
    now = timezone.now()
    ledger.post([
        event(acme, now - timedelta(minutes=1), policy=[decision(), decision(), decision("block")]),
        event(acme, now - timedelta(minutes=1), policy=[decision(policy="another")]),
        event(acme, now - timedelta(days=10), policy=[decision("redact")]),
        event(globex, now - timedelta(minutes=1), policy=[decision(), decision(), decision(), decision()]),
    ])  # fmt: skip
    client, path = signed_in(acme_viewer), "/t/acme/policies/house/report/"
    week = text_of(page_of(client, path))
    assert "words Keywords 1 Monitor 1 2" in week
    assert "words Keywords 1 Block 1 1" in week
    assert "Mask 1 1" not in week
    assert "words Keywords 1 Mask 1 1" in text_of(page_of(client, f"{path}?days=30"))
    assert "words Keywords 1 Monitor 1 2" in text_of(page_of(client, f"{path}?days=nonsense"))
    # A tenant with one of its own by that name means that.
    published(None)
    client = signed_in(operator)
    assert "words Keywords 1 Monitor 1 4" in text_of(page_of(client, f"{HOME}house/report/"))


def test_report_without_findings_says_what_to_do(signed_in: SignedIn, acme: Tenant, acme_viewer: User) -> None:
    published(acme)
    page = page_of(signed_in(acme_viewer), "/t/acme/policies/house/report/")
    assert "Nothing was found in this time" in page
    assert 'href="/t/acme/policies/house/#trial"' in page


@pytest.mark.parametrize("path", ["", "house/", "house/draft/", "house/diff/", "house/report/"])
def test_pages_take_few_queries_however_much_there_is(
    signed_in: SignedIn, operator: User, acme: Tenant, django_assert_max_num_queries: Any, path: str
) -> None:
    made = published(None)
    for number in range(12):
        policies.save_draft(made, RULES, **BY)
        policies.publish(made, **BY)
        published(None, f"other-{number}")
        alias(acme, f"a-{number}", policies=["house", f"other-{number}"])
    policies.save_draft(made, [], **BY)
    client = signed_in(operator)
    with django_assert_max_num_queries(20):
        page_of(client, HOME + path)


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_japanese_where_they_are_asked_to_be(signed_in: SignedIn, operator: User, path: str) -> None:
    published(None)
    page = signed_in(operator).get(HOME + path, headers={"accept-language": "ja"}).content.decode()
    assert '<html lang="ja"' in page
    main = text_of(page[page.index("<main") : page.index("</main")])
    assert "プラットフォーム" in page
    assert re.search(r"[ぁ-ん]", main)
