"""The page on which the books stand beside each other: how they stand in words, what to look at, for operators alone."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from django.test import Client

from accounts.models import AuditEvent, Tenant, User
from portal.reconciliation import verdict_on
from tests.portal.test_usage_pages import EVIL, page_of, table_of, text_of
from tests.usage.made import event
from usage import ledger
from usage.backend_counts import Counted, Reading, note
from usage.models import Reconciliation

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
PATH = "/admin/reconciliation/"
NOW = datetime(2026, 11, 20, 12, 34, tzinfo=UTC)
DAY_S = 86_400


@pytest.fixture
def chief(signed_in: SignedIn, operator: User, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr("portal.views.reconciliation.timezone.now", lambda: NOW)
    return signed_in(operator)


def counted(**values: int) -> Counted:
    return Counted(**{"ledger_prompt": 100_000, "own_prompt": 100_000, "covered_s": DAY_S, **values})


@pytest.mark.parametrize(
    ("values", "level", "word"),
    [
        ({}, "ok", "agree"),
        ({"own_prompt": 101_900}, "ok", "agree"),
        ({"own_prompt": 103_000}, "warn", "3,000 tokens more"),
        ({"own_prompt": 90_000}, "error", "ledger holds 10,000 tokens more"),
        ({"own_prompt": 90_000, "own_completion": 9000}, "error", "opposite directions"),
        ({"covered_s": 0}, "", "were not read"),
        ({"covered_s": DAY_S // 2, "own_prompt": 5}, "", "Read for 50.0% of the time only"),
    ],
)
def test_differences_are_told_in_words(values: dict[str, int], level: str, word: str) -> None:
    verdict = verdict_on(counted(**values), DAY_S)
    assert verdict.level == level
    assert word in verdict.word
    assert bool(verdict.what) == (level != "ok")


def test_restarts_and_estimates_are_named_where_they_may_be_why() -> None:
    told = " ".join(verdict_on(counted(own_prompt=50_000, resets=2, left_tokens=700), DAY_S).what)
    assert "began anew 2 times" in told
    assert "700 tokens" in told


def test_page_shows_both_counts_and_the_hours_that_differ(chief: Client, acme: Tenant) -> None:
    ledger.post([event(acme, NOW - timedelta(hours=3), prompt_tokens=10_000, completion_tokens=500)])
    first = NOW - timedelta(hours=26)
    for minutes in range(0, 26 * 60, 30):
        own = 4000 if minutes >= 24 * 60 else 0
        note("gpu-1", Reading(own, own // 2, 0, None), first + timedelta(minutes=minutes))
    page = page_of(chief, path=PATH)
    assert "The ledger holds 6,000 tokens more" in text_of(page)
    assert ["Input tokens", "10,000", "4,000", "-6,000", "-60.0%"] in list(table_of(page, "backend-1"))
    assert "The hours that differ most" in page
    assert 'aria-current="true">24 hours' in page
    assert 'aria-current="true">7 days' in page_of(chief, "?range=7d", PATH)
    assert page_of(chief, "?range=nonsense", PATH)


def test_empty_page_says_so(chief: Client) -> None:
    page = text_of(page_of(chief, path=PATH))
    assert "Nothing to compare in this time" in page
    assert "The books were not compared yet" in page


def test_runs_tell_what_they_found_and_what_to_look_at(chief: Client, acme: Tenant) -> None:
    drift = {"where": "day", "tenant_id": str(acme.pk), "subject": f"key x alias {EVIL}", "name": "cost_nano"}
    drift |= {"ledger": 5, "found": 8}
    counter = drift | {"where": "counter", "name": "tokens_per_month", "subject": "tenant x"}
    values = {"day": NOW.date(), "tenants": 3, "counters": 7}
    Reconciliation.objects.create(ran_at=NOW, drifts=2, first=[drift, counter], **values)
    Reconciliation.objects.create(ran_at=NOW - timedelta(days=1), drifts=0, first=[], **values)
    page = page_of(chief, path=PATH)
    told = text_of(page)
    for words in (
        "2 differences",
        "Totals by day",
        "Tokens per month",
        "Restore ledger and totals",
        "was Redis restored",
        "They agree",
    ):
        assert words in told
    assert EVIL not in page


def test_operator_may_have_them_compared_now_and_that_is_on_record(chief: Client, valkey: redis.Redis) -> None:
    answer: Any = chief.post(f"{PATH}run/", follow=True)
    assert "The worker compares the books now" in answer.content.decode()
    assert AuditEvent.objects.get().verb == "usage.reconciliation_asked"
    assert valkey.llen("sekisho:celery:celery") == 1


def test_members_get_404(signed_in: SignedIn, acme_owner: User) -> None:
    client = signed_in(acme_owner)
    assert client.get(PATH).status_code == client.post(f"{PATH}run/").status_code == 404


def test_page_costs_a_handful_of_queries(
    chief: Client, acme: Tenant, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    ledger.post([event(acme, NOW - timedelta(hours=n % 20 + 1), backend=f"gpu-{n % 30}") for n in range(200)])
    for n in range(30):
        Reconciliation.objects.create(ran_at=NOW - timedelta(days=n), day=NOW.date(), tenants=1, counters=1, drifts=0, first=[])
    with django_assert_max_num_queries(12):
        page_of(chief, path=PATH)
