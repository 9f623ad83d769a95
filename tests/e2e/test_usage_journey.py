"""From a question to a file, in a real browser: filter, zoom, compare, drill down, export, and open what was exported."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import expect
from pytest_django.live_server_helper import LiveServer

from accounts.models import AuditEvent, Tenant, User
from portal.tasks import make_export
from tests.e2e.browser import CHROMIUM, Window, windows
from tests.usage.made import event
from usage import ledger
from usage.models import Export

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.django_db(transaction=True),
]


@pytest.fixture
def window(live_server: LiveServer) -> Iterator[Callable[..., Window]]:
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
    failed = page.locator("section[aria-labelledby=breakdown] tbody a[href*='ending=failed']").first
    count = int(failed.inner_text())
    with page.expect_navigation():
        failed.click()
    assert page.locator(".call-time").count() == count == sum(int(row["errors"]) for row in rows)
    assert seen.complaints == []


def test_long_file_is_made_while_its_page_is_looked_at_and_holds_every_row(
    window: Callable[..., Window], acme: Tenant, acme_viewer: User, settings: Any
) -> None:
    settings.EXPORT_STREAMED_MAX_ROWS = 200
    now = timezone.now()
    calls = [event(acme, now - timedelta(seconds=n), alias="general") for n in range(450)]
    ledger.post([*calls, event(acme, now - timedelta(minutes=1), alias="code")])
    seen = window()
    seen.sign_in(acme_viewer)
    page = seen.page
    page.goto(page.url + "requests/?range=24h&alias=general")
    with page.expect_navigation():
        page.locator("a[href*='requests/ndjson/']").click()
    expect(page.locator("main")).to_contain_text("450")
    with page.expect_navigation():
        page.locator("main form button.primary").click()
    expect(page.locator("#state progress")).to_be_visible()
    export = Export.objects.get()
    make_export(str(export.pk))
    link = page.locator("#state a[download]")
    expect(link).to_be_visible()  # the page shows it by itself
    with page.expect_download() as download:
        link.click()
    rows = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
    assert {row["request_id"] for row in rows} == {call.request_id for call in calls}
    assert len(rows) == 450

    page.locator("main a", has_text="Back to the page it is of").click()
    with page.expect_navigation():
        page.locator("a[href*='requests/csv/']").click()
    with page.expect_navigation():
        page.locator("main form button.primary").click()
    with page.expect_navigation():
        page.locator("#state form button").click()
    expect(page.locator("#state")).to_contain_text("Cancelled")
    verbs = AuditEvent.objects.filter(verb__startswith="export.").order_by("sequence").values_list("verb", flat=True)
    assert list(verbs) == ["export.asked", "export.fetched", "export.asked", "export.cancelled"]
    assert seen.complaints == []
