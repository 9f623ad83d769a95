"""From a question to a file, in a real browser: filter, zoom, compare, drill down, export, and open what was exported."""

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from pytest_django.live_server_helper import LiveServer

from accounts.models import Tenant, User
from tests.e2e.browser import CHROMIUM, Window, windows
from tests.usage.made import event
from usage import ledger

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.django_db(transaction=True),
]


@pytest.fixture
def window(live_server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Window]]:
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")  # playwright's loop runs in this thread, beside the tests' queries
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(windows(live_server.url, **options))


def test_question_leads_to_calls_and_to_a_file(window: Callable[..., Window], acme: Tenant, acme_viewer: User) -> None:
    now = timezone.now()
    ledger.post([
        event(acme, now - timedelta(hours=hours), alias=alias, outcome=outcome, error_code=code)
        for hours in (0, 1, 30)
        for alias, outcome, code in (("general", "completed", None), ("code", "failed", "upstream_timeout"))
    ])  # fmt: skip
    seen = window()
    seen.sign_in(acme_viewer)
    page = seen.page
    page.goto(page.url + "usage/")
    page.select_option("[name=group]", "alias")
    page.select_option("[name=compare]", "previous")
    with page.expect_navigation():
        page.click(".filter-bar button.primary")
    assert page.locator("path.before").count() == 1
    plot = page.locator("[data-plot]")
    plot.focus()
    page.keyboard.press("End")
    page.keyboard.press("Shift+ArrowLeft")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert "from=" in page.url
    with page.expect_download() as download:
        page.locator("a[href*='usage/csv/']").click()
    text = Path(download.value.path()).read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["name"] for row in rows} == {"general", "code"}
    failed = page.locator("tbody a.plain[href*='ending=failed']").first
    count = int(failed.inner_text())
    with page.expect_navigation():
        failed.click()
    assert page.locator(".call-time").count() == count == sum(int(row["errors"]) for row in rows)
    assert seen.complaints == []
