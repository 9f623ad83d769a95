"""The playground in a browser, with real portal and gateway: it streams, stops, shows a refusal, and is labelled."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from django.test import override_settings
from playwright.sync_api import expect

from accounts import issuing
from accounts.models import ApiKey, Membership, Tenant, User
from accounts.roles import Role
from gateway.config import policies
from gateway.models import Limit, ModelAlias
from tests import processes
from tests.conftest import PASSWORD
from tests.e2e.browser import CHROMIUM, PHONE, Window, windows
from tests.e2e.conftest import BY, Stand, publish
from usage import limits
from usage.models import UsageRecord
from usage.posting import drain_journal, post_journal

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
DASHBOARDS_S = 5.0


@pytest.fixture(scope="module")
def portal_url(
    django_db_setup: None, gateway_process: processes.Gateway, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("portal")
    with processes.portal(folder, SEKISHO_GATEWAY_INNER_URL=gateway_process.url, SEKISHO_DATABASE_POOL="2") as url:
        yield url


def user_of(email: str, **rights: bool) -> User:
    """Who can sign in at a portal that runs in earnest, not with the tests' quick hasher."""
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.Argon2PasswordHasher"]):
        return User.objects.create_user(email, PASSWORD, **rights)


@pytest.fixture
def person(stand: Stand) -> User:
    user = user_of("developer@acme.example")
    Membership.objects.create(tenant=stand.acme, user=user, role=Role.DEVELOPER)
    return user


@pytest.fixture
def seen(portal_url: str, stand: Stand, person: User) -> Iterator[Window]:
    with windows(portal_url) as window:
        window.sign_in(person)
        window.open("/t/acme/playground/")
        yield window


def ask(seen: Window, text: str = "Hello") -> None:
    seen.page.fill("[name=text] >> nth=-1", text)
    seen.page.click("[data-send]")


def part(seen: Window, name: str, pane: str = "a") -> Any:
    return seen.page.locator(f"[data-pane={pane}] [data-part={name}]")


def ended(seen: Window, state: str, pane: str = "a") -> None:
    expect(part(seen, "state", pane)).to_have_text(state)


def key_of(person: User) -> ApiKey:
    return ApiKey.objects.get(created_by=person, is_playground=True)


def test_the_answer_streams_in_and_the_gateways_account_follows(seen: Window, stand: Stand, person: User) -> None:
    stand.vllm.knobs(says="One two three four five six seven eight", tokens_per_s=4)
    ask(seen)
    expect(part(seen, "output")).to_contain_text("One two")
    assert "eight" not in str(part(seen, "output").text_content())  # it came piece by piece
    ended(seen, "Answered")
    expect(part(seen, "output")).to_contain_text("eight")
    expect(part(seen, "told")).to_contain_text("Nothing was found.")
    raw = str(part(seen, "raw").text_content())
    assert raw.startswith("data: {")
    assert raw.endswith("data: [DONE]\n\n")
    assert "x-request-id: " in str(part(seen, "head").text_content())
    drain_journal()
    record = UsageRecord.objects.get()
    assert (record.key_name, record.key_id) == (f"Playground: {person.email}", key_of(person).pk)
    assert str(record.request_id) in str(part(seen, "told").text_content())
    part(seen, "told").get_by_role("link", name="The whole story").click()
    expect(seen.page.locator("#call")).to_contain_text(record.key_name)
    assert seen.complaints == []


def test_stop_ends_what_the_backend_generates(seen: Window, stand: Stand) -> None:
    stand.vllm.knobs(tokens=4000, tokens_per_s=20)
    ask(seen)
    expect(part(seen, "output")).not_to_be_empty()
    assert stand.running() == 1
    seen.page.click("[data-stop]")
    ended(seen, "Stopped")
    stand.until(lambda: stand.running() == 0, "the backend generates on")
    stand.until(lambda: bool(stand.events_of_acme()), "no usage event")
    event = stand.events_of_acme()[-1]
    assert event.outcome == "client_left"
    assert 0 < event.completion_tokens < 4000
    ask(seen)  # and the turn is free again
    seen.page.click("[data-stop]")
    assert seen.complaints == []


def test_a_person_who_leaves_while_nothing_has_come_yet_stops_it_too(seen: Window, stand: Stand) -> None:
    stand.vllm.knobs(hang=True)
    ask(seen)
    stand.until(lambda: len(stand.vllm.requests()) == 1, "the call did not arrive")
    seen.open("/t/acme/")
    stand.until(lambda: bool(stand.events_of_acme()), "the call goes on")
    assert stand.events_of_acme()[0].outcome == "client_left"


def test_a_key_that_an_admin_revoked_is_followed_by_another(seen: Window, stand: Stand, person: User) -> None:
    ask(seen)
    ended(seen, "Answered")
    issuing.revoke(key_of(person), **BY)
    publish()
    expect(part(seen, "told")).to_contain_text("Output tokens")
    ask(seen)
    ended(seen, "Answered")
    assert ApiKey.objects.filter(created_by=person, is_playground=True, revoked_at=None).count() == 1
    assert seen.complaints == []


def test_two_aliases_answer_side_by_side(seen: Window, stand: Stand) -> None:
    ModelAlias.objects.create(tenant=stand.acme, name="second", deployment=stand.deployment)
    publish()
    seen.open("/t/acme/playground/?compare=second")
    stand.vllm.knobs(says="Good day")
    ask(seen)
    for pane, alias in (("a", "general"), ("b", "second")):
        ended(seen, "Answered", pane)
        expect(part(seen, "output", pane)).to_have_text("Good day")
        expect(part(seen, "alias", pane)).to_have_text(alias)
    expect(part(seen, "told", "b")).to_contain_text("Output tokens")
    assert {event.alias for event in stand.events_of_acme()} == {"general", "second"}
    assert len({event.key_id for event in stand.events_of_acme()}) == 1
    seen.page.click("[data-pane=b] [name=do]")  # go on with the second's
    expect(seen.page.locator("[name=text]")).to_have_count(3)
    assert seen.page.locator("[name=text]").nth(1).input_value() == "Good day"
    ask(seen, "And now?")
    ended(seen, "Answered")
    assert [m["role"] for m in stand.vllm.requests()[-1]["body"]["messages"]] == ["user", "assistant", "user"]
    assert seen.complaints == []


def test_a_policys_no_is_shown_as_a_program_gets_it(seen: Window, stand: Stand) -> None:
    rule = {"name": "words", "kind": "keywords", "words": ["ALPHA-77"], "where": ["input"], "action": "block"}
    policy = policies.create(stand.acme, "no-secrets", is_everywhere=True, **BY)
    policies.save_draft(policy, [rule], **BY)
    policies.publish(policy, **BY)
    publish()
    stand.until(lambda: stand.post({"messages": [{"role": "user", "content": "ALPHA-77"}]}).status_code == 403, "not in force")
    ask(seen, "about ALPHA-77")
    ended(seen, "Refused")
    assert str(part(seen, "head").text_content()).startswith("HTTP 403")
    assert '"content_blocked"' in str(part(seen, "raw").text_content())
    expect(part(seen, "told")).to_contain_text("A content policy said no.")
    expect(part(seen, "told")).to_contain_text("no-secrets")
    assert seen.complaints == []


def test_limits_hold_and_the_refusal_says_what_to_do(seen: Window, stand: Stand) -> None:
    Limit.replace_all(stand.acme, [limits.Limit("requests_per_minute", 1)])
    publish()
    ask(seen)
    expect(part(seen, "told")).to_contain_text("1 of 1")
    ask(seen)
    ended(seen, "Refused")
    head = str(part(seen, "head").text_content())
    assert head.startswith("HTTP 429")
    assert "retry-after: " in head
    assert "x-ratelimit-remaining-requests: 0" in head
    expect(part(seen, "told")).to_contain_text("More requests came in a minute")


def test_without_javascript_the_answer_comes_whole(portal_url: str, stand: Stand, person: User) -> None:
    stand.vllm.knobs(says="Good <b>day</b>")
    with requests.Session() as session:
        page = session.get(f"{portal_url}/sign-in/")
        token = session.cookies["csrftoken"]
        page = session.post(
            f"{portal_url}/sign-in/", {"login": person.email, "password": PASSWORD, "csrfmiddlewaretoken": token}
        )
        for stream in ({"stream": "on"}, {}):
            token = session.cookies["csrftoken"]
            sent = {"alias": "general", "role": "user", "text": "Hello", "csrfmiddlewaretoken": token, **stream}
            page = session.post(f"{portal_url}/t/acme/playground/", sent, timeout=60)
            assert page.status_code == 200
            assert "Good &lt;b&gt;day&lt;/b&gt;" in page.text
            assert "Nothing was found." in page.text
            assert "sk-sekisho-" not in page.text


def test_nothing_of_what_was_said_is_kept(seen: Window, stand: Stand) -> None:
    stand.vllm.knobs(says="UNHEARD-OF")
    ask(seen, "UNSPOKEN")
    ended(seen, "Answered")
    expect(part(seen, "told")).to_contain_text("Output tokens")
    drain_journal()
    kept = b"".join(stand.store.dump(key) or b"" for key in stand.store.scan_iter("*"))
    assert b"UNSPOKEN" not in kept
    assert b"UNHEARD-OF" not in kept


def test_a_strangers_call_has_no_story_here(seen: Window, stand: Stand, person: User) -> None:
    globex = Tenant.objects.create(slug="globex", name="Globex")
    ModelAlias.objects.create(tenant=globex, name="general", deployment=stand.deployment)
    _key, secret = stand.issue(globex, name="ci")
    publish()
    stand.until(lambda: stand.get("/v1/models", secret=secret).ok, "the key did not arrive")
    request_id = stand.post(secret=secret).headers["x-request-id"]
    assert seen.status(f"/t/acme/playground/calls/{request_id}/") == 404
    assert seen.status("/t/globex/playground/") == 404


def test_the_page_is_sound_on_a_phone_in_the_dark(portal_url: str, stand: Stand, person: User) -> None:
    with windows(portal_url, language="ja", theme="dark", width=PHONE) as seen:
        seen.sign_in(person)
        seen.open("/t/acme/playground/")
        seen.page.click(".parameters summary")
        ask(seen)
        expect(part(seen, "told")).to_contain_text("出力トークン")
        seen.page.fill("[name=temperature]", "0.5")
        seen.page.click("[data-send]")
        expect(seen.page.locator("#snippet-curl")).to_contain_text('"temperature": 0.5')
        ended(seen, "応答完了")
        part(seen, "raw-box").locator("summary").click()
        seen.assert_sound()


def test_what_a_call_did_is_on_the_dashboards_within_five_seconds(seen: Window, portal_url: str, stand: Stand) -> None:
    user_of("operator@sekisho.example", is_operator=True)
    operator = seen.another()
    operator.sign_in("operator@sekisho.example")
    operator.open("/admin/fleet/")
    expect(operator.page.locator("#card-requests + p strong")).to_have_text("0")
    ask(seen)
    ended(seen, "Answered")
    began_s = time.monotonic()
    while not post_journal(max_s=5):  # as the worker does every second
        assert time.monotonic() - began_s < DASHBOARDS_S
        time.sleep(1)
    operator.page.mouse.move(100, 100)
    expect(operator.page.locator("#card-requests + p strong")).to_have_text("1", timeout=DASHBOARDS_S * 1000)
    assert operator.page.locator("#fleet-tenants").count() == 1
    seen.open("/t/acme/")
    expect(seen.page.locator("#card-requests + p strong")).to_have_text("1")
    record = UsageRecord.objects.get()
    expect(operator.page.locator(".figures tbody")).to_contain_text("Acme")
    cells = operator.page.locator("section:has(#fleet-tenants) td.figure").all_text_contents()
    assert cells[0] == "1"
    assert cells[2] == str(record.prompt_tokens + record.completion_tokens)
    assert operator.complaints == []
