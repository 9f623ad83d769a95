"""A real call's own stretches of time: gateway, journal, ledger, and the page that shows where it went."""

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import Membership, User
from accounts.roles import Role
from gateway.config import publish as configuration
from gateway.models import Limit
from portal.views.requests import stretches
from tests.e2e.conftest import Stand
from tests.e2e.test_policies_input import policy, said
from tests.portal.test_usage_pages import text_of
from usage.models import UsageRecord
from usage.posting import drain_journal

MESSAGES = [{"role": "user", "content": "Tell me of the barrier at Hakone. " * 200}]


@pytest.fixture
def guarded(stand: Stand) -> Stand:
    """Its calls pass a policy and are counted against a limit, on all workers."""
    policy(stand, {"name": "words", "kind": "keywords", "words": ["ALPHA-77"], "where": ["input.user"], "action": "block"})
    Limit.objects.create(tenant=stand.acme, name="tokens_per_day", max=1_000_000)
    configuration.publish_all()
    for _ in stand.gateway.each_worker():
        stand.until(lambda: "x-ratelimit-limit-tokens" in stand.post().headers, "the limit did not arrive")
    return stand


def record_of(stand: Stand, request_id: str) -> UsageRecord:
    stand.event(request_id)  # once it is on the journal
    drain_journal()
    return UsageRecord.objects.get(request_id=request_id)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_gateways_own_checks_are_timed_and_fit_into_the_call(guarded: Stand, is_streamed: bool) -> None:
    answer = guarded.post({"messages": MESSAGES, "stream": is_streamed})
    assert answer.status_code == 200
    record = record_of(guarded, answer.headers["x-request-id"])
    spent_us = [record.auth_us, record.policy_us, record.admission_us]
    assert all(spent is not None and spent > 0 for spent in spent_us), spent_us
    assert sum(spent or 0 for spent in spent_us) <= (record.duration_ms + 1) * 1000  # which is told in whole ms
    assert record.first_token_ms is None or record.first_token_ms <= record.duration_ms

    reader = User.objects.create_user("reader@acme.example")
    Membership.objects.create(tenant=guarded.acme, user=reader, role=Role.VIEWER)
    client = Client()
    client.force_login(reader)
    page = client.get(reverse("request", args=["acme", record.request_id])).content.decode()
    told = text_of(page)
    parts = stretches(record)
    assert len(parts) >= 4
    assert page.split('class="waterfall"')[1].split("</svg>")[0].count("<rect") == len(parts)
    for name in ("The key", "Content policies", "Limits"):
        assert name in told
    assert "not timed apart" not in told
    assert sum(part.ms for part in parts) == pytest.approx(record.duration_ms)


def test_call_that_a_policy_blocks_was_never_admitted(guarded: Stand) -> None:
    answer = guarded.post(said("ALPHA-77"))
    assert answer.status_code == 403
    record = record_of(guarded, answer.headers["x-request-id"])
    assert (record.policy_us or 0) > 0
    assert (record.admission_us, record.attempts) == (None, 0)
