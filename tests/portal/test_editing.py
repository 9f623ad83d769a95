"""Two people edit one thing: the second one is told, keeps what was entered, and decides whose it shall be."""

import re
import threading
from collections.abc import Callable
from dataclasses import fields
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.test import Client, RequestFactory
from django.utils import translation

from accounts import issuing, tenant_settings
from accounts.models import AuditEvent, Tenant, User
from accounts.tenant_settings import TenantSettings
from gateway.config import aliases, backends, deployments, limit_changes, policies, quota_plans
from gateway.config.pools import Terms
from gateway.models import ContentPolicy, Limit
from portal import editing
from tests.portal.test_policy_editor import DRAFT, fields_of
from usage import limits

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
BY: dict[str, Any] = {"actor": None, "actor_label": "kyoko@acme.example"}
TOLD = "Somebody else saved while you were editing"
RULES = [{"kind": "keywords", "words": ["alpha"], "where": ["input"], "action": "block"}]
EVIL = "<script>alert(1)</script>"


def form_of(page: str) -> dict[str, list[str]]:
    """What the form with a fingerprint would send, as a browser reads it from the page."""
    start = page.rindex("<form", 0, page.index('name="seen"'))
    return fields_of('<form id="editor"' + page[start + len("<form") :])


def opened(client: Client, path: str) -> dict[str, list[str]]:
    answer = client.get(path)
    assert answer.status_code == 200
    return form_of(answer.content.decode())


def text_of(page: str) -> str:
    return " ".join(unescape(re.sub("<[^>]+>", " ", page)).split())


def sent(client: Client, path: str, fields: dict[str, Any]) -> str:
    return client.post(path, fields, follow=True).content.decode()


@pytest.fixture
def things(acme: Tenant) -> dict[str, Any]:
    backend = backends.create("gpu-1", "http://127.0.0.1:1", None, **BY)
    deployment = deployments.create("tiny", {"served_model": "tiny"}, {"gpu-1": Terms()}, **BY)
    alias = aliases.create(acme, "general", {"deployment": deployment}, **BY)
    key, _text = issuing.issue(acme, issuing.Terms(name="ci"), **BY)
    plan = quota_plans.create("standard", [limits.Limit("requests_per_minute", 60)], **BY)
    for holder in (acme, alias):
        Limit.replace_all(holder, [limits.Limit("requests_per_minute", 60)])
    return {"backend": backend, "deployment": deployment, "alias": alias, "key": key, "plan": plan, "tenant": acme}


def change_settings(tenant: Tenant) -> None:
    held = {each.name: getattr(tenant, each.name) for each in fields(TenantSettings)}
    tenant_settings.change(tenant, TenantSettings(**held | {"name": "Theirs"}), **BY)


def limit_to(holder: Any, most: int) -> None:
    limit_changes.change(holder, [limits.Limit("requests_per_minute", most)], **BY)


# What is edited: its page, how another person changes it, what this one changes, and what each then reads.
CASES: dict[
    str, tuple[Callable[[dict[str, Any]], str], Callable[[dict[str, Any]], object], dict[str, str], tuple[str, str]]
] = {
    "settings": (
        lambda _things: "/t/acme/settings/",
        lambda things: change_settings(things["tenant"]),
        {"name": "Mine"},
        ("Theirs", "Mine"),
    ),
    "key": (
        lambda things: f"/t/acme/keys/{things['key'].pk}/edit/",
        lambda things: issuing.revise(things["key"], issuing.Terms(name="ci", networks=["10.0.0.0/8"]), **BY),
        {"networks": "192.0.2.0/24"},
        ("10.0.0.0/8", "192.0.2.0/24"),
    ),
    "alias": (
        lambda things: f"/admin/aliases/{things['alias'].pk}/",
        lambda things: aliases.change(things["alias"], {"max_choices": 3}, **BY),
        {"max_choices": "2"},
        ("3", "2"),
    ),
    "deployment": (
        lambda _things: "/admin/deployments/tiny/",
        lambda things: deployments.change(things["deployment"], {"served_model": "theirs"}, {"gpu-1": Terms()}, **BY),
        {"served_model": "mine", "pool-gpu-1-weight": "7"},
        ("theirs", "mine"),
    ),
    "backend": (
        lambda _things: "/admin/backends/gpu-1/edit/",
        lambda things: backends.change(things["backend"], url="http://127.0.0.1:2", credential=None, **BY),
        {"url": "http://127.0.0.1:3"},
        ("http://127.0.0.1:2", "http://127.0.0.1:3"),
    ),
    "limits of a tenant": (
        lambda _things: "/admin/tenants/acme/limits/",
        lambda things: limit_to(things["tenant"], 70),
        {"requests_per_minute": "80"},
        ("70", "80"),
    ),
    "limits of an alias": (
        lambda things: f"/admin/tenants/acme/aliases/{things['alias'].pk}/limits/",
        lambda things: limit_to(things["alias"], 70),
        {"requests_per_minute": "80"},
        ("70", "80"),
    ),
    "plan": (
        lambda things: f"/admin/plans/{things['plan'].pk}/",
        lambda things: quota_plans.revise(things["plan"], "standard", [limits.Limit("requests_per_minute", 70)], **BY),
        {"requests_per_minute": "80"},
        ("70", "80"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_another_person_saved_meanwhile_is_not_written_over_unasked(
    signed_in: SignedIn, operator: User, things: dict[str, Any], case: str
) -> None:
    path_of, change, mine, (held, entered) = CASES[case]
    client, path = signed_in(operator), path_of(things)
    form = opened(client, path)
    change(things)
    before = AuditEvent.objects.count()
    page = sent(client, path, form | mine)
    assert TOLD in page
    assert AuditEvent.objects.count() == before
    told = text_of(page[page.index("overtaken") :])
    assert "kyoko@acme.example saved on" in told
    assert f"{held} {entered}" in told
    again = form_of(page)
    assert all(again[name] == [value] for name, value in mine.items())  # what was entered stands there still
    assert TOLD not in sent(client, path, again)  # sent once more it is saved
    assert AuditEvent.objects.count() == before + 1


@pytest.mark.parametrize("case", CASES)
def test_nobody_else_saved_and_nothing_is_said(signed_in: SignedIn, operator: User, things: dict[str, Any], case: str) -> None:
    path_of, _change, mine, _told = CASES[case]
    client, path = signed_in(operator), path_of(things)
    before = AuditEvent.objects.count()
    assert TOLD not in sent(client, path, opened(client, path) | mine)
    assert AuditEvent.objects.count() == before + 1


@pytest.fixture
def drafted(acme: Tenant) -> ContentPolicy:
    policy = policies.create(acme, "no-secrets", **BY)
    policies.save_draft(policy, RULES, **BY)
    return policy


def rules_of(policy: ContentPolicy) -> Any:
    return policy.versions.get(is_draft=True).rules


@pytest.mark.parametrize("view", ["", "?view=text"])
def test_a_draft_that_another_person_kept_is_shown_as_a_difference(
    signed_in: SignedIn, acme_admin: User, drafted: ContentPolicy, view: str
) -> None:
    client = signed_in(acme_admin)
    name = "rules" if view else "0-words"
    form = fields_of(client.get(DRAFT + view).content.decode())
    theirs = [RULES[0] | {"words": [EVIL]}]
    policies.save_draft(drafted, theirs, **BY)
    mine = form[name][0].replace("alpha", "gamma")
    page = sent(client, DRAFT, form | {name: mine, "do": "keep"})
    assert TOLD in page
    assert EVIL not in page
    assert rules_of(drafted) == theirs
    assert "kyoko@acme.example saved on" in text_of(page)
    assert re.search(r"<del>.*alert\(1\).*</del>", page)
    assert re.search(r"<ins>.*gamma.*</ins>", page)
    again = fields_of(page)
    assert again[name] == [mine]
    assert TOLD not in sent(client, DRAFT, again | {"do": "keep"})
    assert rules_of(drafted)[0]["words"] == ["gamma"]


def test_what_a_draft_began_with_is_remembered_while_it_is_edited(
    signed_in: SignedIn, acme_admin: User, drafted: ContentPolicy
) -> None:
    client = signed_in(acme_admin)
    form = fields_of(client.get(DRAFT).content.decode())
    policies.save_draft(drafted, [RULES[0] | {"words": ["beta"]}], **BY)
    form = fields_of(sent(client, DRAFT, form | {"do": "add", "kind": "detector"}))
    assert TOLD in sent(client, DRAFT, form | {"0-words": "gamma", "do": "keep"})


def test_the_same_rules_as_the_other_persons_are_no_matter(
    signed_in: SignedIn, acme_admin: User, drafted: ContentPolicy
) -> None:
    client = signed_in(acme_admin)
    form = fields_of(client.get(DRAFT).content.decode())
    policies.save_draft(drafted, [RULES[0] | {"words": ["beta"]}], **BY)
    assert TOLD not in sent(client, DRAFT, form | {"0-words": "beta", "do": "keep"})


def test_it_is_told_in_japanese(signed_in: SignedIn, acme_admin: User, drafted: ContentPolicy) -> None:
    client = signed_in(acme_admin)
    form = fields_of(client.get(DRAFT).content.decode())
    policies.save_draft(drafted, [RULES[0] | {"words": ["beta"]}], **BY)
    client.cookies["django_language"] = "ja"
    page = sent(client, DRAFT, form | {"0-words": "gamma", "do": "keep"})
    with translation.override("ja"):
        assert translation.gettext(TOLD) in page
    assert TOLD not in page


def test_a_form_that_only_asks_for_its_words_keeps_what_it_began_with(
    signed_in: SignedIn, operator: User, things: dict[str, Any]
) -> None:
    client, path = signed_in(operator), "/admin/tenants/acme/limits/"
    form = opened(client, path)
    page = sent(client, path, form | {"requests_per_minute": "80", "say": "1"})
    limit_to(things["tenant"], 70)
    assert TOLD in sent(client, path, form_of(page) | {"requests_per_minute": "80"})


@pytest.mark.django_db(transaction=True)
def test_of_two_at_the_same_moment_the_second_sees_what_the_first_did() -> None:
    request = RequestFactory().post("/")
    order: list[str] = []
    is_in = threading.Event()

    def first() -> None:
        with editing.alone(request, "thing"):
            is_in.set()
            while not waits_for_the_lock():
                pass
            order.append("first")
        connection.close()

    other = threading.Thread(target=first)
    other.start()
    is_in.wait(30)
    with editing.alone(request, "thing"):
        order.append("second")
    other.join(30)
    assert order == ["first", "second"]


def waits_for_the_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        return bool(cursor.fetchone()[0])
