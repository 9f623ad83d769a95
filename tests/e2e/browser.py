"""A headless Chromium as people have it set: language, theme, width. What every page must keep is asked of each at once."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.db import connections
from playwright.sync_api import ConsoleMessage, Page, sync_playwright

from accounts.models import User
from tests.conftest import PASSWORD

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENSHOTS = os.environ.get("SEKISHO_SCREENSHOTS")  # a folder, for eyes
WIDE, PHONE, HEIGHT = 1280, 390, 900
PATIENCE_MS = 60_000
# Asked in one go: each question passes through three processes. Without axe, `violations` is null.
LOOK = """async (options) => ({
  path: location.pathname,
  over: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  violations: 'axe' in window ? (await axe.run(document, options)).violations : null,
})"""
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# Of these, what theme and width alone can break on a page that has kept all of them.
RULES_OF_LOOKS = ["color-contrast", "link-in-text-block", "scrollable-region-focusable", "target-size"]


class Window:
    """One person's window. complaints: what the console and the content security policy said, of pages that were found."""

    def __init__(self, page: Page, base_url: str, name: str, ways: dict[str, Any]) -> None:
        self.page = page
        self._ways = ways
        self.complaints: list[str] = []
        self._base_url = base_url
        self._name = name
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _note(self, message: ConsoleMessage) -> None:
        where = str(message.location.get("url", ""))
        if message.type == "error" and not where.endswith("/favicon.ico"):  # asked for where a part is opened as a page
            self.complaints.append(f"{message.text} {where}")

    def open(self, path: str) -> str:
        """What the server sent."""
        answer = self.page.goto(self._base_url + path)
        assert answer is not None
        return answer.text()

    def turn(self, theme: str, width: int) -> None:
        """The same page, as it is after a person has changed both."""
        self.page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        self.page.set_viewport_size({"width": width, "height": HEIGHT})
        self._name = f" {self._name.split()[0]} {theme} {width}"

    @property
    def path(self) -> str:
        return str(self.page.evaluate("location.pathname"))

    def another(self) -> "Window":
        """Of another person: the same browser and ways, no cookies."""
        browser = self.page.context.browser
        assert browser is not None
        return Window(browser.new_context(**self._ways).new_page(), self._base_url, self._name, self._ways)

    def status(self, path: str) -> int:
        """What the server answers this person, without going there."""
        return self.page.request.get(self._base_url + path).status

    def sign_in(self, user: User | str, password: str = PASSWORD) -> None:
        self.open("/sign-in/")
        self.page.fill("[name=login]", user if isinstance(user, str) else user.email)
        self.page.fill("[name=password]", password)
        with self.page.expect_navigation():
            self.page.click("form:has([name=password]) .primary")

    def assert_sound(self) -> None:
        faults = self.faults()
        assert faults == [], faults

    def faults(self, rules: list[str] = RULES) -> list[str]:
        """What hangs over the edge, what axe finds, what the console said: of this page."""
        if SCREENSHOTS:
            name = re.sub(r"[^a-z0-9]+", "-", f"{self.path}{self._name}").strip("-")
            self.page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=True)
        options = {"runOnly": rules, "resultTypes": ["violations"]}
        seen = self.page.evaluate(LOOK, options)
        if seen["violations"] is None:
            axe = Axe().axe_script
            self.page.evaluate(axe)
            self.page.add_init_script(axe)  # so the next pages bring it along, and the browser compiles it only once
            seen = self.page.evaluate(LOOK, options)
        found = [f"{seen['over']} px too wide"] if seen["over"] > 0 else []
        for item in seen["violations"]:
            found += [f"{item['id']}: {node['html'][:200]} {node['failureSummary']}" for node in item["nodes"]]
        found += self.complaints
        self.complaints.clear()
        return [f"{seen['path']} {self._name}: {text}" for text in found]


@contextmanager
def windows(base_url: str, *, language: str = "en", theme: str = "light", width: int = WIDE) -> Iterator[Window]:
    """A browser with one window, as a person who set nothing in the portal itself."""
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")  # playwright's loop runs in this thread, beside the tests' queries
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        ways: dict[str, Any] = {
            "locale": {"ja": "ja-JP", "en": "en-US"}[language],
            "color_scheme": "dark" if theme == "dark" else "light",
            "viewport": {"width": width, "height": HEIGHT},
            "permissions": ["clipboard-read", "clipboard-write"],
        }
        page = browser.new_context(**ways).new_page()
        try:
            yield Window(page, base_url, f" {language} {theme} {width}", ways)
        finally:
            connections.close_all()  # those made while the loop ran are nobody's afterwards
            browser.close()
