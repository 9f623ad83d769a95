"""The portal's pages in a real browser: signing in, themes, languages, copying, and that nothing breaks on a phone."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from pytest_django.live_server_helper import LiveServer

from accounts import issuing, keys
from accounts.models import ApiKey, Tenant, User
from gateway.models import Deployment, ModelAlias
from tests.conftest import PASSWORD
from tests.e2e.browser import CHROMIUM, Browser

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.django_db(transaction=True),
]

WIDE, PHONE = 1280, 390

# Text that is harder to read than WCAG AA allows (4.5:1), as `ratio tag text`. Backgrounds here are opaque or none.
FAINT_TEXT = """
(() => {
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = (text) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = parts(text).slice(0, 3).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const isClear = (text) => parts(text)[3] === 0;
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode()); ) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility() || element.closest(".unseen")) continue;
    let under = element;
    while (under.parentElement && isClear(getComputedStyle(under).backgroundColor)) under = under.parentElement;
    const colours = [getComputedStyle(element).color, getComputedStyle(under).backgroundColor];
    const [light, dark] = colours.map(luminance).sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (!(ratio >= 4.5)) faint.push(`${ratio.toFixed(2)} ${element.tagName} ${node.data.trim()}`);
  }
  return faint;
})()
"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    opened = Browser(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def busy_acme(acme: Tenant, acme_viewer: User) -> Tenant:
    """Acme with what makes pages burst: long names, many scopes, every state of a key."""
    deployment = Deployment.objects.create(name="tiny", served_model="tiny")
    texts = {"en": "A general model for everyday work. " * 3, "ja": "日々の業務に広く使える汎用のモデルです。" * 3}
    for name in ("general", "a-very-long-alias-name/of-a-team:with-a-version-2026.11.20"):
        ModelAlias.objects.create(
            tenant=acme,
            name=name,
            deployment=deployment,
            display_name={"en": "General", "ja": "汎用"},
            description=texts,
            max_output_tokens=131072,
        )
    scopes = ("chat", "models", "embeddings", "completions", "responses", "usage", "usage:tenant")
    terms = issuing.Terms(
        "a key whose name is about as long as names of keys are allowed",
        scopes=scopes,
        networks=["192.0.2.0/24", "2001:db8::/32"],
    )
    rotated, _ = issuing.issue(acme, terms, actor=None, actor_label="test")
    issuing.rotate(rotated, overlap=timedelta(days=7), actor=None, actor_label="test")
    limited = issuing.Terms("limited", aliases=["general"], expires_at=timezone.now() + timedelta(days=90))
    issuing.issue(acme, limited, actor=None, actor_label="test")
    issuing.revoke(issuing.issue(acme, issuing.Terms("old"), actor=None, actor_label="test")[0], actor=None, actor_label="test")
    return acme


def sign_in(browser: Browser, live_server: LiveServer, user: User, **window: Any) -> None:
    browser.open(f"{live_server.url}/sign-in/", **window)
    browser.evaluate(f"document.querySelector('[name=login]').value = '{user.email}'")
    browser.evaluate(f"document.querySelector('[name=password]').value = {PASSWORD!r}")
    browser.evaluate("document.querySelector('form .primary').click()")
    browser.await_load()


def test_person_signs_in_copies_the_base_url_and_signs_out(
    browser: Browser, live_server: LiveServer, busy_acme: Tenant, acme_viewer: User
) -> None:
    sign_in(browser, live_server, acme_viewer, width=WIDE)
    assert browser.evaluate("location.pathname") == "/t/acme/"
    browser.send("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    browser.evaluate("document.querySelector('[data-copies=base-url]').click()")
    browser.await_true("document.querySelector('[data-copies=base-url]').hasAttribute('data-copied')")
    assert browser.evaluate("navigator.clipboard.readText()") == browser.evaluate(
        "document.getElementById('base-url').textContent"
    )
    assert browser.evaluate("document.getElementById('announcement').textContent") == "Copied"
    browser.evaluate("document.querySelector('.menu form button').click()")
    browser.await_load()
    assert browser.evaluate("location.pathname") == "/sign-in/"
    assert browser.complaints == []


def test_chosen_theme_is_in_force_at_once_and_in_the_next_page_as_sent(browser: Browser, live_server: LiveServer) -> None:
    canvas = "getComputedStyle(document.documentElement).backgroundColor"
    browser.prefer("light")
    browser.open(f"{live_server.url}/sign-in/", width=WIDE)
    light = browser.evaluate(canvas)
    browser.evaluate("document.querySelector('[name=theme][value=dark]').click()")
    dark = browser.evaluate(canvas)
    assert dark != light
    browser.open(f"{live_server.url}/sign-in/", width=WIDE)
    sent = browser.evaluate("fetch(location.href).then((answer) => answer.text())")
    assert '<html lang="en" data-theme="dark">' in sent
    assert browser.evaluate(canvas) == dark
    browser.evaluate("document.querySelector('[name=theme][value=system]').click()")
    assert browser.evaluate(canvas) == light


def test_language_button_turns_the_same_page_into_japanese(
    browser: Browser, live_server: LiveServer, busy_acme: Tenant, acme_viewer: User
) -> None:
    sign_in(browser, live_server, acme_viewer, width=PHONE)
    browser.evaluate("document.querySelector('[name=language][value=ja]').click()")
    browser.await_load()
    assert browser.evaluate("location.pathname") == "/t/acme/"
    assert browser.evaluate("document.documentElement.lang") == "ja"
    assert browser.evaluate("document.getElementById('keys').textContent") == "API キー"


@pytest.mark.parametrize("language", ["ja", "en"])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_pages_fit_the_window_and_are_readable(
    browser: Browser, live_server: LiveServer, busy_acme: Tenant, acme_viewer: User, language: str, theme: str, width: int
) -> None:
    browser.set_cookie(live_server.url, "django_language", language)
    browser.set_cookie(live_server.url, "sekisho_theme", theme)

    def assert_sound() -> None:
        assert browser.evaluate("document.documentElement.lang") == language
        assert browser.evaluate(OVERFLOW) <= 0
        assert browser.evaluate(FAINT_TEXT) == []
        # The console names the page itself when its status is 404; anything else is a fault.
        here = browser.evaluate("location.href")
        assert [line for line in browser.complaints if not line.endswith(here)] == []

    browser.open(f"{live_server.url}/nowhere/", width=width)
    assert_sound()
    browser.open(f"{live_server.url}/sign-in/", width=width)
    assert_sound()
    sign_in(browser, live_server, acme_viewer, width=width)
    browser.evaluate("document.querySelector('.menu').open = true")
    assert_sound()
    is_cards = browser.evaluate("getComputedStyle(document.querySelector('.records tr')).display") == "block"
    assert is_cards == (width == PHONE)


@pytest.mark.usefixtures("busy_acme")
def test_key_is_told_in_words_while_it_is_chosen_made_and_copied(
    browser: Browser, live_server: LiveServer, acme_developer: User
) -> None:
    sign_in(browser, live_server, acme_developer, width=WIDE)
    browser.open(f"{live_server.url}/t/acme/keys/new/", width=WIDE)
    words = "document.getElementById('words').textContent"
    assert "By every alias" in browser.evaluate(words)
    assert not browser.evaluate("document.querySelector('.if-some').checkVisibility()")
    browser.evaluate("document.querySelector('[name=reach][value=some]').click()")
    assert browser.evaluate("document.querySelector('.if-some').checkVisibility()")
    browser.evaluate("document.querySelector('[name=aliases][value=general]').click()")
    browser.await_true(f"{words}.includes('alone: general')")
    browser.evaluate("document.querySelector('[name=name]').value = 'from a browser'")
    browser.evaluate("document.querySelector('form .primary').click()")
    browser.await_load()
    browser.send("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    browser.evaluate("document.querySelector('[data-copies=key-text]').click()")
    browser.await_true("document.querySelector('[data-copies=key-text]').hasAttribute('data-copied')")
    copied = browser.evaluate("navigator.clipboard.readText()")
    assert keys.is_minted(copied)
    assert browser.evaluate("location.pathname") == "/t/acme/keys/new/"
    assert browser.complaints == []


@pytest.mark.parametrize(("language", "theme", "width"), [("ja", "dark", PHONE), ("en", "light", PHONE), ("ja", "light", WIDE)])
@pytest.mark.usefixtures("busy_acme")
def test_pages_of_keys_fit_the_window_and_are_readable(
    browser: Browser, live_server: LiveServer, acme_developer: User, language: str, theme: str, width: int
) -> None:
    browser.set_cookie(live_server.url, "django_language", language)
    browser.set_cookie(live_server.url, "sekisho_theme", theme)
    sign_in(browser, live_server, acme_developer, width=width)
    key = ApiKey.objects.in_state("active").get(name__startswith="a key whose name")
    for path in ("", "new/", f"{key.pk}/", f"{key.pk}/edit/", f"{key.pk}/rotate/", f"{key.pk}/revoke/"):
        browser.open(f"{live_server.url}/t/acme/keys/{path}", width=width)
        assert browser.evaluate("document.documentElement.lang") == language
        assert browser.evaluate(OVERFLOW) <= 0, path
        assert browser.evaluate(FAINT_TEXT) == [], path
        assert browser.complaints == []
    browser.open(f"{live_server.url}/t/acme/keys/{key.pk}/rotate/", width=width)
    browser.evaluate("document.querySelector('form .primary').click()")
    browser.await_load()
    assert browser.evaluate("document.getElementById('key-text').textContent.length") > 60
    assert browser.evaluate(OVERFLOW) <= 0
    assert browser.evaluate(FAINT_TEXT) == []


def press(browser: Browser, selector: str) -> None:
    browser.evaluate(f"document.querySelector({selector!r}).click()")
    browser.await_load()


def test_passkey_is_made_and_signs_in_by_itself(browser: Browser, live_server: LiveServer, acme_viewer: User) -> None:
    browser.send("WebAuthn.enable")
    key = {"protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True}
    browser.send("WebAuthn.addVirtualAuthenticator", options=key | {"isUserVerified": True})
    sign_in(browser, live_server, acme_viewer, width=WIDE)
    browser.open(f"{live_server.url}/account/passkeys/add/", width=WIDE)
    browser.evaluate("document.querySelector('[name=name]').value = 'work laptop'")
    press(browser, "[data-passkey=make] .primary")
    assert browser.evaluate("location.pathname") == "/account/second-factor/codes/"
    assert browser.complaints == []

    press(browser, ".menu form button")
    sign_in(browser, live_server, acme_viewer, width=WIDE)
    assert browser.evaluate("location.pathname") == "/sign-in/code/"
    press(browser, "[data-passkey=use] button")
    assert browser.evaluate("location.pathname") != "/sign-in/code/"

    press(browser, ".menu form button")
    browser.open(f"{live_server.url}/sign-in/?next=/account/passkeys/", width=WIDE)
    press(browser, "[data-passkey=sign-in] button")
    assert browser.evaluate("location.pathname") == "/account/passkeys/"
    assert "work laptop" in browser.evaluate("document.querySelector('.records').textContent")
    assert browser.complaints == []


def test_passkey_that_cannot_be_used_is_said_beside_its_button(browser: Browser, live_server: LiveServer) -> None:
    browser.open(f"{live_server.url}/sign-in/", width=WIDE)
    browser.evaluate("navigator.credentials.get = () => Promise.reject(new Error())")
    browser.evaluate("document.querySelector('[data-passkey=sign-in] button').click()")
    browser.await_true("!document.querySelector('[data-passkey-error]').hidden")


@pytest.mark.parametrize(("language", "theme", "width"), [("ja", "dark", PHONE), ("en", "light", PHONE), ("ja", "light", WIDE)])
def test_pages_of_the_account_fit_the_window_and_are_readable(
    browser: Browser, live_server: LiveServer, operator: User, language: str, theme: str, width: int
) -> None:
    browser.set_cookie(live_server.url, "django_language", language)
    browser.set_cookie(live_server.url, "sekisho_theme", theme)
    sign_in(browser, live_server, operator, width=width)
    account = ("", "password/", "second-factor/", "second-factor/app/", "passkeys/", "passkeys/add/", "sessions/")
    paths = [f"account/{path}" for path in account]
    for path in (*paths, "account/confirm/", "admin/access/", f"admin/access/operators/{operator.pk}/remove/"):
        browser.open(f"{live_server.url}/{path}", width=width)
        assert browser.evaluate("document.documentElement.lang") == language
        assert browser.evaluate(OVERFLOW) <= 0, path
        assert browser.evaluate(FAINT_TEXT) == [], path
        assert browser.complaints == [], path
