"""A platform's first day, in a browser and with the official client, on a whole installation started by `deploy/up`."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import openai
import pytest
from playwright.sync_api import expect

from tests.e2e.browser import CHROMIUM, PHONE, WIDE, Window, windows
from tests.portal.installation import Running

pytestmark = [
    pytest.mark.xdist_group("installation"),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]

OWNER_PASSWORD = "another traveller's permit, please"
GREETING: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "こんにちは"}]
SECRET_WORD = "ALPHA-77"


@pytest.fixture
def people(installation: Running) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def send(seen: Window, form: str = "main form") -> None:
    """Press the form's own button, and follow it."""
    with seen.page.expect_navigation():
        seen.page.locator(f"{form} .primary").first.click()


def text_of(seen: Window, selector: str) -> str:
    return str(seen.page.text_content(selector)).strip()


def found_tenant(operator: Window, slug: str, owner: str) -> str:
    """The wizard, from its first step to the link that it shows once."""
    operator.open("/admin/tenants/_new/")
    operator.page.fill("[name=name]", "Search team")
    operator.page.fill("[name=slug]", slug)
    send(operator)
    operator.page.fill("[name=form-0-name]", "general")
    operator.page.select_option("[name=form-0-deployment]", "demo")
    send(operator)
    operator.page.fill("[name=requests_per_minute]", "40")
    send(operator)
    operator.page.fill("[name=email]", owner)
    send(operator)
    assert slug in text_of(operator, "main")
    send(operator)
    return text_of(operator, "#link")


def join(seen: Window, link: str) -> None:
    seen.page.goto(link)
    seen.page.fill("[name=name]", "Owner")
    seen.page.fill("[name=password]", OWNER_PASSWORD)
    seen.page.fill("[name=again]", OWNER_PASSWORD)
    send(seen)


def make_key(seen: Window, slug: str) -> str:
    seen.open(f"/t/{slug}/keys/new/")
    seen.page.fill("[name=name]", "search")
    send(seen)
    return text_of(seen, "#key-text")


def rotate(seen: Window, slug: str) -> str:
    seen.open(f"/t/{slug}/keys/")
    with seen.page.expect_navigation():
        seen.page.locator("main tbody a").first.click()
    with seen.page.expect_navigation():
        seen.page.locator("main a[href$='/rotate/']").first.click()
    send(seen)
    return text_of(seen, "#key-text")


def publish_policy(seen: Window, slug: str) -> None:
    """Written as a block, tried before it is kept, published for every call."""
    seen.open(f"/t/{slug}/policies/_new/")
    seen.page.fill("[name=name]", "no-secrets")
    seen.page.check("[name=is_everywhere]")
    send(seen)
    if not seen.page.locator("[name='0-words']").count():
        seen.page.select_option("[name=kind]", "keywords")
        seen.page.click("[name=do][value=add]")
    seen.page.fill("[name='0-words']", SECRET_WORD)
    for box in seen.page.locator("[name='0-where'][value='input']").all():
        box.check()
    seen.page.select_option("[name='0-action']", "block")
    seen.page.fill("[name=text]", f"about {SECRET_WORD}")
    seen.page.click("[name=do][value=try]")
    expect(seen.page.locator("mark").first).to_contain_text(SECRET_WORD)
    with seen.page.expect_navigation():
        seen.page.locator("[name=do][value=keep].primary").click()
    if not seen.page.locator("form[action$='/publish/'] button").count():
        seen.open(f"/t/{slug}/policies/no-secrets/draft/")
    with seen.page.expect_navigation():
        seen.page.locator("form[action$='/publish/'] button").first.click()


def call_until_refused(client: openai.OpenAI, text: str, *, pause_s: float) -> None:
    for _ in range(45):
        client.chat.completions.create(model="general", messages=[{"role": "user", "content": text}])
        time.sleep(pause_s)


@pytest.mark.parametrize(
    ("language", "theme", "width"), [("ja", "dark", PHONE), ("en", "light", WIDE)], ids=["ja-dark-phone", "en-light-wide"]
)
def test_from_an_empty_platform_to_a_call_that_a_policy_blocks(
    installation: Running, people: ExitStack, language: str, theme: str, width: int
) -> None:
    told, slug = installation.told, f"search-{language}"

    operator = people.enter_context(windows(told["portal"], language=language, theme=theme, width=width))
    operator.sign_in(told["admin_email"], told["admin_password"])
    link = found_tenant(operator, slug, f"owner@{slug}.example")

    owner = operator.another()
    join(owner, link)
    first = make_key(owner, slug)
    expect(owner.page.locator("#first-use .chip-ok")).to_have_count(0)
    client = openai.OpenAI(base_url=f"{told['api']}/v1", api_key=first, max_retries=0)
    assert client.chat.completions.create(model="general", messages=GREETING).choices[0].message.content
    expect(owner.page.locator("#first-use .chip-ok")).to_be_visible()  # the light, without a reload

    stream = client.chat.completions.create(model="general", messages=GREETING, stream=True)
    chunks = [next(stream)]
    second = rotate(owner, slug)
    chunks += stream
    assert any(choice.finish_reason == "stop" for chunk in chunks for choice in chunk.choices)  # rotation cuts nothing
    client = openai.OpenAI(base_url=f"{told['api']}/v1", api_key=second, max_retries=0)
    assert client.chat.completions.create(model="general", messages=GREETING).choices

    publish_policy(owner, slug)
    with pytest.raises(openai.APIStatusError) as blocked:  # in force within a moment
        call_until_refused(client, f"about {SECRET_WORD}", pause_s=0.5)
    assert blocked.value.code == "content_blocked"

    with pytest.raises(openai.RateLimitError):
        call_until_refused(client, "こんにちは", pause_s=0)
    owner.open(f"/t/{slug}/limits/")
    assert "40" in text_of(owner, "main table")

    owner.open(f"/t/{slug}/members/invite/")
    owner.page.fill("[name=email]", f"viewer@{slug}.example")
    owner.page.check("[name=role][value=viewer]")
    send(owner)
    viewer = operator.another()
    join(viewer, text_of(owner, "#link"))
    for path in ("keys/new/", "policies/_new/", "members/invite/", "settings/"):
        assert viewer.status(f"/t/{slug}/{path}") == 403, path
    assert viewer.status("/admin/tenants/") == 404
    viewer.open(f"/t/{slug}/")
    assert owner.complaints == operator.complaints == []
