"""The pages of content policies: who may do what, a text tried, versions made, published and gone back to."""

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.test import Client

from accounts.models import AuditEvent, Tenant, User
from gateway.config import policies
from gateway.models import ContentPolicy, Deployment, ModelAlias
from tests.e2e.conftest import BY

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
RULES = [
    {"name": "words", "kind": "keywords", "words": ["ALPHA-77"], "where": ["input", "output"], "action": "block"},
    {"name": "mail", "kind": "detector", "detector": "email", "where": ["output"], "action": "redact"},
]
WRITTEN = "- {name: words, kind: keywords, words: [BETA-88], where: [input], action: block}\n"


@pytest.fixture
def policy(acme: Tenant) -> ContentPolicy:
    made = policies.create(acme, "no-secrets", **BY)
    policies.save_draft(made, RULES, **BY)
    policies.publish(made, **BY)
    return made


def post(client: Client, path: str, **fields: Any) -> str:
    answer = client.post(path, fields, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


@pytest.mark.usefixtures("policy")
def test_list_tells_what_is_in_force_and_for_whom(signed_in: SignedIn, acme: Tenant, acme_viewer: User) -> None:
    deployment = Deployment.objects.create(name="tiny", served_model="tiny")
    ModelAlias.objects.create(tenant=acme, name="general", deployment=deployment, policies=["no-secrets"])
    page = text_of(signed_in(acme_viewer).get("/t/acme/policies/").content.decode())
    assert "no-secrets Version 1 general" in page
    assert "New policy" not in page


def test_no_policy_yet_says_what_to_do(signed_in: SignedIn, acme: Tenant, acme_admin: User) -> None:
    page = signed_in(acme_admin).get("/t/acme/policies/").content.decode()
    assert acme.slug in page
    assert "Make the first one" in page


def test_a_policy_is_made_drafted_published_and_rolled_back(signed_in: SignedIn, acme: Tenant, acme_admin: User) -> None:
    client = signed_in(acme_admin)
    assert 'name="blocks"' in post(client, "/t/acme/policies/_new/", name="no-names", is_everywhere="on")
    made = ContentPolicy.objects.get(tenant=acme, name="no-names")
    assert made.is_everywhere
    for number in (1, 2):
        post(client, "/t/acme/policies/no-names/draft/", rules=WRITTEN.replace("88", str(number)))
        page = post(client, "/t/acme/policies/no-names/publish/")
        assert f"Version {number}" in page
    post(client, "/t/acme/policies/no-names/roll-back/1/")
    made.refresh_from_db()
    assert made.published is not None
    assert made.published.number == 1
    assert made.published.rules[0]["words"] == ["BETA-1"]
    verbs = AuditEvent.objects.filter(tenant=acme, actor=acme_admin).order_by("sequence").values_list("verb", flat=True)
    assert list(verbs) == [
        "policy.created", *["policy.drafted", "policy.published"] * 2, "policy.rolled_back",
    ]  # fmt: skip


def test_wrong_rules_are_told_one_by_one_and_nothing_typed_is_lost(
    signed_in: SignedIn, acme_admin: User, policy: ContentPolicy
) -> None:
    written = (
        "- {kind: pattern, pattern: '(?=a)b', where: [input], action: block}\n- {kind: keywords, words: [], where: [here]}\n"
    )
    page = text_of(post(signed_in(acme_admin), "/t/acme/policies/no-secrets/draft/", rules=written))
    for told in ("rules[0].pattern: RE2 refuses it", "rules[1].words", "rules[1].where[0]", "rules[1].action"):
        assert told in page
    assert "(?=a)b" in page
    assert not policy.versions.filter(is_draft=True).exists()


@pytest.mark.parametrize("written", ["a: [", "\x00", "&a [*a, *a]", "text", "- 1", "!!python/object:os.system {}"])
@pytest.mark.usefixtures("policy")
def test_what_is_no_list_of_rules_is_refused(signed_in: SignedIn, acme_admin: User, written: str) -> None:
    assert "field-error" in post(signed_in(acme_admin), "/t/acme/policies/no-secrets/draft/", rules=written)


@pytest.mark.parametrize(
    ("surface", "text", "verdict", "marked"),
    [
        ("input.user", "say Ａｌｐｈａ－７７ now", "Blocked", "Ａｌｐｈａ－７７"),
        ("output.content", "ask taro@example.com", "Masked", "taro@example.com"),
        ("input.user", "ask taro@example.com", "Nothing found", ""),
        ("input.user", "<script>alert(1)</script> ALPHA-77", "Blocked", "ALPHA-77"),
    ],
    ids=["block", "mask", "clean", "markup"],
)
@pytest.mark.usefixtures("policy")
def test_a_text_is_tried_and_what_is_found_marked(
    signed_in: SignedIn, acme_viewer: User, surface: str, text: str, verdict: str, marked: str
) -> None:
    before = AuditEvent.objects.count()
    page = post(signed_in(acme_viewer), "/t/acme/policies/no-secrets/", text=text, surface=surface, version=1)
    assert verdict in text_of(page)
    assert re.findall(r"<mark[^>]*>([^<]*)</mark>", page) == ([marked] if marked else [])
    assert "<script>alert" not in page
    assert AuditEvent.objects.count() == before
    if verdict == "Masked":
        assert "ask [EMAIL_1]" in page


def test_a_draft_is_tried_before_it_is_published(signed_in: SignedIn, acme_admin: User, policy: ContentPolicy) -> None:
    client = signed_in(acme_admin)
    post(client, "/t/acme/policies/no-secrets/draft/", rules=WRITTEN)
    path, said = "/t/acme/policies/no-secrets/", {"text": "BETA-88", "surface": "input.user"}
    assert "Blocked" in text_of(post(client, path, version=2, **said))
    assert "Nothing found" in text_of(post(client, path, version=1, **said))
    assert "field-error" in post(client, path, version=3, **said)
    assert policy.published is not None


@pytest.mark.parametrize("path", ["_new/", "no-secrets/draft/"])
@pytest.mark.usefixtures("policy")
def test_a_viewer_may_look_and_not_change(signed_in: SignedIn, acme_viewer: User, path: str) -> None:
    client = signed_in(acme_viewer)
    assert client.get("/t/acme/policies/no-secrets/").status_code == 200
    assert client.get(f"/t/acme/policies/{path}").status_code == 403
    for changed in ("publish/", "discard/", "roll-back/1/", "draft/"):
        assert client.post(f"/t/acme/policies/no-secrets/{changed}", {"rules": WRITTEN}).status_code == 403


def test_a_strangers_policy_is_a_404(signed_in: SignedIn, acme_admin: User, globex: Tenant, policy: ContentPolicy) -> None:
    policies.create(globex, "theirs", **BY)
    policies.create(None, "platforms", **BY)
    client = signed_in(acme_admin)
    for path in (
        "/t/globex/policies/",
        "/t/globex/policies/theirs/",
        "/t/acme/policies/theirs/",
        "/t/acme/policies/platforms/",
    ):
        assert client.get(path).status_code == 404, path
    assert client.post("/t/acme/policies/theirs/publish/").status_code == 404
    assert policy.tenant is not None


def test_publishing_without_a_draft_says_so(signed_in: SignedIn, acme_admin: User, policy: ContentPolicy) -> None:
    assert "has no draft" in text_of(post(signed_in(acme_admin), "/t/acme/policies/no-secrets/publish/"))
    assert "no published version 9" in text_of(post(signed_in(acme_admin), "/t/acme/policies/no-secrets/roll-back/9/"))
    assert policy.versions.count() == 1


@pytest.mark.usefixtures("policy")
def test_pages_are_japanese_where_they_are_asked_to_be(signed_in: SignedIn, acme_admin: User) -> None:
    client = signed_in(acme_admin)
    for path in ("", "_new/", "no-secrets/", "no-secrets/draft/"):
        page = client.get(f"/t/acme/policies/{path}", headers={"accept-language": "ja"}).content.decode()
        assert '<html lang="ja"' in page
        assert "ポリシー" in page
