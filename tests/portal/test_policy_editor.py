"""The editor of a policy's draft: rules as blocks and as text, and nothing lost between them."""

import re
from collections.abc import Callable, Mapping
from html import unescape
from typing import Any

import pytest
from django.http import QueryDict
from django.test import Client
from django.utils import translation

from accounts.models import AuditEvent, Tenant, User
from gateway.config import policies
from gateway.models import ContentPolicy
from gateway.policy.problems import SENTENCES, Problem
from gateway.policy.rules import KINDS
from portal import wording
from portal.forms.blocks import TEXT, blocks_of, blocks_sent
from tests.e2e.conftest import BY

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
DRAFT = "/t/acme/policies/no-secrets/draft/"
EVIL = "<script>alert(1)</script>"
EVERY_KIND: list[dict[str, Any]] = [
    {
        "name": "words",
        "kind": "keywords",
        "words": ["機密 コード", " ALPHA-77"],
        "where": ["input", "output"],
        "action": "block",
    },
    {"kind": "pattern", "pattern": r"案件[A-Z]{3}\b", "where": ["output.content"], "action": "redact", "label": "CASE"},
    {"kind": "detector", "detector": "jp_phone", "where": ["input"], "action": "redact", "restore": True},
    {"kind": "size", "max_characters": 100_000, "max_images": 2, "where": ["input"], "action": "block"},
    {"kind": "script", "scripts": ["latin", "japanese"], "where": ["input.user"], "action": "flag"},
    {"kind": "roles", "roles": ["system", "user"], "action": "block"},
    {"kind": "tools", "tools": ["search", "weather"], "action": "block"},
    {"kind": "judge", "alias": "guard", "where": ["input.user"], "action": "block", "timeout_ms": 800, "on_failure": "open"},
]


@pytest.fixture
def policy(acme: Tenant) -> ContentPolicy:
    return policies.create(acme, "no-secrets", **BY)


def fields_of(page: str) -> dict[str, list[str]]:
    """What the form of the editor would send, as a browser reads it from the page."""
    form = page[page.index('<form id="editor"') : page.index("</form>", page.index('<form id="editor"'))]
    sent: dict[str, list[str]] = {}
    for tag in re.findall(r"<input\b[^>]*>", form):
        given = dict(re.findall(r'([a-z-]+)="([^"]*)"', tag))
        if given.get("type") in ("checkbox", "radio") and not re.search(r"\schecked\b", tag):
            continue
        sent.setdefault(given["name"], []).append(unescape(given.get("value", "on" if given.get("type") == "checkbox" else "")))
    for name, text in re.findall(r'<textarea name="([^"]+)"[^>]*>\n?(.*?)</textarea>', form, re.DOTALL):
        sent[name] = [unescape(text)]
    for name, options in re.findall(r'<select [^>]*?name="([^"]+)"[^>]*>(.*?)</select>', form, re.DOTALL):
        chosen = re.findall(r'<option value="([^"]*)" selected', options) or re.findall(r'<option value="([^"]*)"', options)[:1]
        sent[name] = chosen
    return sent


def post(client: Client, act: str, fields: Mapping[str, Any], **more: Any) -> str:
    answer = client.post(DRAFT, {**fields, "do": act, **more}, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


def titles(page: str) -> list[str]:
    return re.findall(r'<h3 id="block-\d+">\d+\. ([^<]*)</h3>', page)


def draft(policy: ContentPolicy) -> list[Any] | None:
    row = policy.versions.filter(is_draft=True).first()
    return None if row is None else row.rules


def test_rules_of_every_kind_go_through_the_blocks_unchanged(
    signed_in: SignedIn, acme_admin: User, policy: ContentPolicy
) -> None:
    assert {rule["kind"] for rule in EVERY_KIND} == set(KINDS)
    policies.save_draft(policy, EVERY_KIND, **BY)
    client = signed_in(acme_admin)
    page = client.get(DRAFT).content.decode()
    assert len(titles(page)) == len(EVERY_KIND)
    assert "Rule as text" not in page
    post(client, "keep", fields_of(page))
    assert draft(policy) == EVERY_KIND


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "keywords", "words": ["two\nlines"], "where": ["input"], "action": "block"},
        {"kind": "from_a_newer_release", "where": ["input"], "action": "block"},
        {"kind": "size", "max_characters": 5, "where": ["input"], "action": "block", "of_a_newer_release": 1},
    ],
    ids=["line-end", "kind", "field"],
)
def test_a_rule_that_no_block_can_show_stays_as_text(rule: dict[str, Any]) -> None:
    (block,) = blocks_of([rule])
    assert block.kind == TEXT
    data = QueryDict(mutable=True)
    data.update({"blocks": "1", "0-kind": TEXT, "0-text": block["text"].value()})
    assert [again.rule() for again in blocks_sent(data)] == [rule]


def test_text_and_blocks_are_two_views_of_one_draft(signed_in: SignedIn, acme_admin: User, policy: ContentPolicy) -> None:
    policies.save_draft(policy, EVERY_KIND, **BY)
    client = signed_in(acme_admin)
    as_text = post(client, "text", fields_of(client.get(DRAFT).content.decode()))
    as_blocks = post(client, "blocks", fields_of(as_text))
    assert titles(as_blocks) == titles(client.get(DRAFT).content.decode())
    post(client, "keep", fields_of(as_blocks))
    assert draft(policy) == EVERY_KIND
    post(client, "keep", fields_of(as_text))
    assert draft(policy) == EVERY_KIND


def test_blocks_are_added_moved_and_removed_without_a_write(
    signed_in: SignedIn, acme_admin: User, policy: ContentPolicy
) -> None:
    client = signed_in(acme_admin)
    page = post(client, "remove-0", fields_of(client.get(DRAFT).content.decode()))
    assert titles(page) == []
    for kind in ("keywords", "size", "judge"):
        page = post(client, "add", fields_of(page), kind=kind)
    page = post(client, "keep", {**fields_of(page), "1-max_characters": "77"})
    page = post(client, "up-1", fields_of(page))
    assert titles(page) == ["Size", "Keywords", "Guard model"]
    page = post(client, "down-1", fields_of(page))
    assert titles(page) == ["Size", "Guard model", "Keywords"]
    page = post(client, "remove-1", fields_of(page))
    assert titles(page) == ["Size", "Keywords"]
    assert fields_of(page)["0-max_characters"] == ["77"]
    for act in ("up-0", "down-1", "up-9", "remove-9", "remove-x", "nothing"):
        assert titles(post(client, act, fields_of(page))) == ["Size", "Keywords"], act
    assert draft(policy) is None
    assert not AuditEvent.objects.filter(verb="policy.drafted").exists()


def test_what_is_wrong_is_told_at_its_block_and_field_in_the_readers_language(
    signed_in: SignedIn, acme_admin: User, policy: ContentPolicy
) -> None:
    client = signed_in(acme_admin)
    fields = {
        "blocks": "2", "0-kind": "pattern", "0-pattern": "(?=a)b", "0-where": "input", "0-action": "block",
        "1-kind": "size", "1-max_characters": "many", "1-where": "input", "1-action": "block",
    }  # fmt: skip
    page = post(client, "keep", fields)
    assert "(?=a)b" in page
    assert "many" in page
    errors = dict(re.findall(r'id="(id_[^"]*)_error">.*?<span>(.*?)</span>', page, re.DOTALL))
    assert errors["id_0-pattern"].startswith("RE2 refuses it")
    assert errors["id_1-max_characters"] == "Must be a whole number from 1 to 1000000000."
    assert draft(policy) is None
    acme_admin.language = "ja"
    acme_admin.save()
    page = client.post(DRAFT, {**fields, "do": "keep"}, headers={"accept-language": "ja"}).content.decode()
    assert "RE2 で使えません" in page
    assert "整数にしてください" in page


def test_every_sentence_of_the_engine_has_words_and_japanese() -> None:
    assert wording.PROBLEMS.keys() == SENTENCES.keys()
    for code, sentence in SENTENCES.items():
        with translation.override("en"):
            assert str(wording.PROBLEMS[code]) == sentence
        with translation.override("ja"):
            told = str(wording.PROBLEMS[code])
        assert told != sentence, code
        assert re.findall(r"%\((\w+)\)", told) == re.findall(r"%\((\w+)\)", sentence), code


def test_a_problem_is_told_with_its_facts() -> None:
    assert wording.problem(Problem("[0].words", "not_texts", {"most": 5})) == "Must be a list of 1 to 5 texts."


def test_rules_are_tried_as_they_stand_and_nothing_is_kept(
    signed_in: SignedIn, acme_admin: User, policy: ContentPolicy
) -> None:
    client = signed_in(acme_admin)
    fields = {
        "blocks": "1", "0-kind": "keywords", "0-words": "ALPHA-77\r\nBETA", "0-where": "input", "0-action": "block",
        "text": f"say alpha-77 {EVIL}", "surface": "input.user",
    }  # fmt: skip
    before = AuditEvent.objects.count()
    page = post(client, "try", fields)
    assert re.findall(r"<mark[^>]*>([^<]*)</mark>", page) == ["alpha-77"]
    assert "Blocked" in text_of(page)
    assert EVIL not in page
    page = post(client, "add", fields_of(page), kind="size")
    assert fields_of(page)["text"] == [fields["text"]]  # the sample goes along in the form
    assert (draft(policy), AuditEvent.objects.count()) == (None, before)


def test_markup_in_stored_rules_stays_text(signed_in: SignedIn, acme_admin: User, policy: ContentPolicy) -> None:
    rules = [
        {"kind": "keywords", "words": [EVIL, f"</textarea>{EVIL}"], "where": ["input"], "action": "block"},
        {"kind": "tools", "tools": [f'"{EVIL}'], "action": "block"},
    ]
    policies.save_draft(policy, rules, **BY)
    client = signed_in(acme_admin)
    for path in (DRAFT, f"{DRAFT}?view=text", "/t/acme/policies/no-secrets/", "/t/acme/policies/no-secrets/diff/"):
        assert EVIL not in client.get(path).content.decode(), path


@pytest.mark.parametrize(
    "fields",
    [{}, {"blocks": "x"}, {"blocks": "1"}, {"blocks": "99"}, {"blocks": "1", "0-kind": "nonsense"}],
    ids=["nothing", "no-number", "without-its-block", "too-many", "no-kind"],
)
def test_a_form_that_came_in_part_drops_no_rule(
    signed_in: SignedIn, acme_admin: User, policy: ContentPolicy, fields: dict[str, str]
) -> None:
    policies.save_draft(policy, EVERY_KIND, **BY)
    assert signed_in(acme_admin).post(DRAFT, fields).status_code == 400
    assert draft(policy) == EVERY_KIND


def test_more_rules_than_blocks_can_show_are_edited_as_text(
    signed_in: SignedIn, acme_admin: User, policy: ContentPolicy
) -> None:
    policies.save_draft(policy, [{**EVERY_KIND[0], "name": f"n{at}"} for at in range(51)], **BY)
    client = signed_in(acme_admin)
    page = client.get(DRAFT).content.decode()
    assert 'name="rules"' in page
    assert 'name="rules"' in post(client, "blocks", fields_of(page))


def test_every_button_is_a_plain_submit_of_the_form(signed_in: SignedIn, acme_admin: User, policy: ContentPolicy) -> None:
    policies.save_draft(policy, EVERY_KIND, **BY)
    page = signed_in(acme_admin).get(DRAFT).content.decode()
    form = page[page.index('<form id="editor"') :]
    form = form[: form.index("</form>")]
    buttons = re.findall(r"<button\b[^>]*>", form)
    assert all('name="do"' in button and "type=" not in button for button in buttons)
    assert 'value="keep"' in buttons[0]  # what Enter in a field presses
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
