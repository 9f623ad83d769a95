"""The portal's pages in a real browser: signing in, themes, languages, copying, the keyboard; and that all pages are sound."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.db import transaction
from playwright.sync_api import expect
from pytest_django.live_server_helper import LiveServer

from accounts import keys
from accounts.models import Tenant, User
from gateway.config import policies
from gateway.models import Deployment, ModelAlias
from tests.conftest import PASSWORD
from tests.e2e.browser import CHROMIUM, PHONE, RULES, RULES_OF_LOOKS, WIDE, Window, windows
from tests.portal.furnished import furnish, places

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.django_db(transaction=True),
]

CANVAS = "getComputedStyle(document.documentElement).backgroundColor"
Open = Callable[..., Window]


@pytest.fixture
def window(live_server: LiveServer) -> Iterator[Open]:
    """A new browser, as often as it is called."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(windows(live_server.url, **options))


@pytest.fixture
def acme_with_alias(acme: Tenant) -> Tenant:
    deployment = Deployment.objects.create(name="tiny", served_model="tiny")
    ModelAlias.objects.create(tenant=acme, name="general", deployment=deployment)
    return acme


def test_person_signs_in_copies_the_base_url_and_signs_out(window: Open, acme_with_alias: Tenant, acme_viewer: User) -> None:
    seen = window()
    seen.sign_in(acme_viewer)
    assert seen.path == "/t/acme/"
    seen.page.click("[data-copies=base-url]")
    seen.page.wait_for_selector("[data-copies=base-url][data-copied]")
    assert seen.page.evaluate("navigator.clipboard.readText()") == seen.page.text_content("#base-url")
    assert seen.page.text_content("#announcement") == "Copied"
    seen.page.click(".menu summary")
    with seen.page.expect_navigation():
        seen.page.click(".menu form[action*=sign-out] button")
    assert seen.path == "/sign-in/"
    assert seen.complaints == []


def test_chosen_theme_is_in_force_at_once_and_in_the_next_page_as_sent(window: Open) -> None:
    seen = window()
    seen.open("/sign-in/")
    light = seen.page.evaluate(CANVAS)
    seen.page.check("[name=theme][value=dark]", force=True)
    dark = seen.page.evaluate(CANVAS)
    assert dark != light
    seen.open("/sign-in/")
    assert '<html lang="en" data-theme="dark">' in seen.page.evaluate("fetch(location.href).then((answer) => answer.text())")
    assert seen.page.evaluate(CANVAS) == dark
    seen.page.check("[name=theme][value=system]", force=True)
    assert seen.page.evaluate(CANVAS) == light


@pytest.mark.usefixtures("acme_with_alias")
def test_language_button_turns_the_same_page_into_japanese(window: Open, acme_viewer: User) -> None:
    seen = window(width=PHONE)
    seen.sign_in(acme_viewer)
    with seen.page.expect_navigation():
        seen.page.click("[name=language][value=ja]")
    assert seen.path == "/t/acme/"
    assert seen.page.evaluate("document.documentElement.lang") == "ja"
    assert "API キー" in str(seen.page.text_content("nav.rooms"))


@pytest.mark.usefixtures("acme_with_alias")
def test_key_is_told_in_words_while_it_is_chosen_made_and_copied(window: Open, acme_developer: User) -> None:
    seen = window()
    seen.sign_in(acme_developer)
    seen.open("/t/acme/keys/new/")
    assert "By every alias" in str(seen.page.text_content("#words"))
    assert not seen.page.is_visible(".if-some")
    seen.page.check("[name=reach][value=some]")
    assert seen.page.is_visible(".if-some")
    seen.page.check("[name=aliases][value=general]")
    expect(seen.page.locator("#words")).to_contain_text("alone: general")
    seen.page.fill("[name=name]", "from a browser")
    with seen.page.expect_navigation():
        seen.page.click("main form .primary")
    seen.page.click("[data-copies=key-text]")
    seen.page.wait_for_selector("[data-copies=key-text][data-copied]")
    assert keys.is_minted(seen.page.evaluate("navigator.clipboard.readText()"))
    assert seen.path == "/t/acme/keys/new/"
    assert seen.complaints == []


@pytest.mark.usefixtures("acme_key")
def test_the_keyboard_opens_rooms_help_and_the_filter(window: Open, acme_viewer: User) -> None:
    seen = window()
    seen.sign_in(acme_viewer)
    with seen.page.expect_navigation():
        seen.page.keyboard.type("gk")
    assert seen.path == "/t/acme/keys/"
    seen.page.keyboard.press("/")
    assert seen.page.evaluate("document.activeElement.form?.method") == "get"
    seen.page.keyboard.type("gk?")
    assert seen.page.evaluate("document.activeElement.value") == "gk?"
    seen.page.evaluate("document.activeElement.blur()")
    seen.page.keyboard.press("?")
    assert seen.page.is_visible("#help")
    seen.page.keyboard.press("Escape")
    assert not seen.page.is_visible("#help")


@pytest.mark.parametrize(
    ("language", "ways"),
    [("ja", [("light", WIDE), ("dark", PHONE)]), ("en", [("light", PHONE), ("dark", WIDE)])],
    ids=["ja", "en"],
)
def test_every_page_is_sound(window: Open, acme: Tenant, operator: User, language: str, ways: list[tuple[str, int]]) -> None:
    things = furnish(acme)
    acme.memberships.create(user=operator, role="owner")
    seen = window(language=language)
    seen.open("/nowhere/")
    seen.complaints.clear()  # the console names the page itself, for its status
    seen.assert_sound()
    seen.open("/sign-in/")
    seen.assert_sound()
    seen.sign_in(operator)
    with transaction.atomic():
        TOTP.activate(operator, generate_totp_secret())
    RecoveryCodes.activate(operator)
    looks = list(zip(ways, (RULES, RULES_OF_LOOKS), strict=True))
    opened, faults = 0, []
    for place in places():
        if place.access in ("public", "internal") or "GET" not in place.methods or place.name in OF_OTHERS:
            continue
        if place.name.endswith(DOWNLOADS):
            continue
        if "<!doctype html>" not in seen.open(place.url(things)):
            continue  # a part of a page
        assert seen.page.evaluate("document.documentElement.lang") == language
        for (theme, width), rules in looks:
            seen.turn(theme, width)
            faults += seen.faults(rules)
        looks.reverse()  # the next page comes as this one is left: a turn that changes nothing costs nothing
        opened += 1
    assert not faults, "\n".join(faults)
    assert opened > 60


@pytest.mark.parametrize(("language", "theme", "width"), [("en", "light", WIDE), ("ja", "dark", PHONE)])
def test_a_part_that_cannot_be_renewed_without_a_session_says_so_and_leads_back(
    window: Open, acme: Tenant, acme_viewer: User, language: str, theme: str, width: int
) -> None:
    seen = window(language=language, theme=theme, width=width)
    seen.sign_in(acme_viewer)
    seen.open("/t/acme/limits/?of=acme")
    seen.page.context.clear_cookies()
    seen.page.wait_for_selector(".cut-off")
    assert seen.page.is_visible("#limits-live")
    assert seen.page.query_selector("[name=password]") is None
    seen.complaints.clear()  # the console names the answer for its status
    seen.assert_sound()
    press(seen, ".cut-off a")
    seen.page.fill("[name=login]", acme_viewer.email)
    seen.page.fill("[name=password]", PASSWORD)
    press(seen, "form:has([name=password]) .primary")
    assert seen.page.evaluate("location.pathname + location.search") == "/t/acme/limits/?of=acme"


def test_an_editor_keeps_what_was_entered_when_it_gets_no_answer(window: Open, acme: Tenant, acme_admin: User) -> None:
    policies.create(acme, "house", actor=None, actor_label="test")
    seen = window()
    seen.sign_in(acme_admin)
    seen.open("/t/acme/policies/house/draft/")
    seen.page.fill("[name='0-words']", "hours of work")
    seen.page.route("**/draft/", lambda route: route.abort())
    seen.page.click("[value=add]")
    expect(seen.page.locator(".cut-off")).to_contain_text("still here")
    assert seen.page.input_value("[name='0-words']") == "hours of work"
    seen.page.unroute("**/draft/")
    seen.page.click("[value=add]")
    seen.page.wait_for_selector("[name='1-kind']", state="attached")
    assert seen.page.query_selector(".cut-off") is None
    seen.page.context.clear_cookies(name="sessionid")
    seen.page.click("[value=add]")
    seen.page.wait_for_selector(".cut-off.is-signed-out")
    assert seen.page.input_value("[name='0-words']") == "hours of work"


DOWNLOADS = ("_csv", "_ndjson", "_download_recovery_codes")
OF_OTHERS = {"mfa_remove_webauthn", "factor_name"}  # the furnished passkey is not the operator's


def test_a_page_that_is_not_sound_is_found_out(window: Open) -> None:
    seen = window()
    for _ in range(2):  # axe is given to the first page, and comes with the next
        seen.open("/sign-in/")
        seen.page.evaluate("document.querySelector('main').insertAdjacentHTML('beforeend', '<img src=\"data:,\">')")
        with pytest.raises(AssertionError, match="image-alt"):
            seen.assert_sound()


def press(seen: Window, selector: str) -> None:
    with seen.page.expect_navigation():
        seen.page.click(selector)


def sign_out(seen: Window) -> None:
    seen.page.click(".menu:has([action$='/sign-out/']) summary")
    press(seen, "[action$='/sign-out/'] button")


def test_passkey_is_made_and_signs_in_by_itself(window: Open, acme_viewer: User) -> None:
    seen = window()
    device = seen.page.context.new_cdp_session(seen.page)
    device.send("WebAuthn.enable")
    kind = {"protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True}
    device.send("WebAuthn.addVirtualAuthenticator", {"options": kind | {"isUserVerified": True}})
    seen.sign_in(acme_viewer)
    seen.open("/account/passkeys/add/")
    seen.page.fill("[name=name]", "work laptop")
    press(seen, "[data-passkey=make] .primary")
    assert seen.path == "/account/second-factor/codes/"
    sign_out(seen)
    seen.sign_in(acme_viewer)
    assert seen.path == "/sign-in/code/"
    press(seen, "[data-passkey=use] button")
    assert seen.path == "/t/acme/"
    sign_out(seen)
    seen.open("/sign-in/?next=/account/passkeys/")
    press(seen, "[data-passkey=sign-in] button")
    assert seen.path == "/account/passkeys/"
    assert "work laptop" in str(seen.page.text_content(".records"))
    assert seen.complaints == []


def test_passkey_that_cannot_be_used_is_said_beside_its_button(window: Open) -> None:
    seen = window()
    seen.open("/sign-in/")
    seen.page.evaluate("void (navigator.credentials.get = () => Promise.reject(new Error()))")
    seen.page.click("[data-passkey=sign-in] button")
    expect(seen.page.locator("[data-passkey-error]")).to_be_visible()
