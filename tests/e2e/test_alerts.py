"""An alert in a real browser: made to go to a webhook, fired by a limit, once; the webhook verifies, and the bell rings."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import expect
from pytest_django.live_server_helper import LiveServer

from accounts.models import Tenant, User
from portal.alerts import signing, tasks
from portal.alerts.models import Alert
from tests.e2e.browser import CHROMIUM, Window, windows
from tests.portal.alerts.conftest import Receiver, daily, reachable, receiver, use

__all__ = ["daily", "reachable", "receiver", "use"]  # fixtures
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.django_db(transaction=True),
]


@pytest.fixture
def seen(live_server: LiveServer) -> Iterator[Window]:
    with windows(live_server.url) as window:
        yield window


def press(seen: Window, selector: str) -> None:
    with seen.page.expect_navigation():
        seen.page.click(selector)


@pytest.mark.usefixtures("reachable", "daily")
def test_alert_fires_once_and_its_webhook_verifies(
    seen: Window, acme: Tenant, acme_owner: User, receiver: Receiver, use: Callable[..., None]
) -> None:
    Tenant.objects.update(language="en")
    seen.sign_in(acme_owner)
    seen.open("/t/acme/alerts/webhooks/new/")
    seen.page.fill("[name=name]", "ops")
    seen.page.fill("[name=url]", receiver.url)
    press(seen, "main form .primary")
    secret = str(seen.page.text_content("#secret-text"))
    press(seen, "main .actions .primary")
    press(seen, "main form .primary")  # send a test
    tasks.deliver()
    expect(seen.page.locator("#latest .chip-ok")).to_be_visible()  # the page shows it by itself

    rule = acme.alert_rules.get(kind="limit")
    seen.open(f"/t/acme/alerts/rules/{rule.pk}/")
    seen.page.get_by_label("ops").check()
    press(seen, "main form .primary")
    use(850)
    for _ in range(3):
        tasks.watch()
        tasks.deliver()
    assert Alert.objects.count() == 1
    test, alert = receiver.got
    told: dict[str, Any] = json.loads(alert.body)
    assert (json.loads(test.body)["type"], told["type"]) == ("test", "alert.fired")
    assert told["text"] == "80% used: Tokens per day (the whole tenant)"
    assert signing.is_signed(alert.body, alert.headers[signing.HEADER], secret, now_s=time.time())
    program: dict[str, Any] = {}
    exec(signing.PYTHON, program)  # noqa: S102 - as the page offers it
    assert program["is_genuine"](alert.body, alert.headers[signing.HEADER], secret)

    expect(seen.page.locator(".bell-count")).to_have_text("1")  # by itself, too
    press(seen, "#bell")
    assert "80% used" in str(seen.page.text_content(".alerts"))
    press(seen, ".alerts button")
    expect(seen.page.locator(".bell-count")).to_have_count(0)
    press(seen, ".alerts a")
    assert seen.path == "/t/acme/limits/"
    assert seen.complaints == []
    assert len(receiver.got) == 2
