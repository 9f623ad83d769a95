"""The pages of calls: the list, its filters and its pages; the story of one call; and who may not."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import Tenant, User
from portal import measures
from portal.views.requests import stretches
from tests.usage.made import KEY_ID, OTHER_KEY_ID, event
from usage import history, ledger
from usage.models import UsageRecord

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def viewer(signed_in: SignedIn, acme_viewer: User) -> Client:
    return signed_in(acme_viewer)


@pytest.fixture
def now() -> datetime:
    return timezone.now()


def page_of(client: Client, path: str = "", slug: str = "acme") -> str:
    answer = client.get(f"/t/{slug}/requests/{path}")
    assert answer.status_code == 200
    return answer.content.decode()


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


def ids_of(page: str) -> list[str]:
    return re.findall(r'<a href="/t/acme/requests/([0-9a-f-]{36})/"', page)


def test_each_filter_leaves_the_calls_it_says(viewer: Client, acme: Tenant, now: datetime) -> None:
    variants: dict[str, dict[str, Any]] = {
        "alias=code": {"alias": "code"},
        f"key={OTHER_KEY_ID}": {"key_id": OTHER_KEY_ID},
        "ending=failed": {"outcome": "timeout", "error_code": "upstream_timeout"},
        "ending=refused": {"outcome": "refused", "error_code": "rate_limited"},
        "ending=blocked": {"outcome": "refused", "error_code": "content_blocked"},
        "status=499": {"outcome": "client_left", "error_code": "client_left", "status": 499},
        "stream=no": {"stream": False},
        "code=rate_limited": {"outcome": "refused", "error_code": "rate_limited", "alias": "x"},
        "end_user=abc": {"end_user": "abc"},
        "tag=team%3Dsearch": {"metadata": {"team": "search", "other": "1"}},
    }
    events = {query: event(acme, now, **changes) for query, changes in variants.items()}
    ledger.post(events.values())
    assert len(ids_of(page_of(viewer))) == len(variants)
    for query, one in events.items():
        assert one.request_id in ids_of(page_of(viewer, f"?{query}")), query
        if query not in ("ending=refused", "code=rate_limited"):
            assert len(ids_of(page_of(viewer, f"?{query}"))) == 1, query
    assert ids_of(page_of(viewer, "?ending=failed&alias=code")) == []
    assert "Write a name, =, and a value" in page_of(viewer, "?tag=nothing")


def test_pages_follow_each_other_without_gap_or_double(viewer: Client, acme: Tenant, now: datetime) -> None:
    at = now - timedelta(minutes=1)
    events = [event(acme, at - timedelta(seconds=n // 7)) for n in range(120)]  # seven to a moment
    ledger.post(events)
    seen: list[str] = []
    query = ""
    for _page in range(5):
        page = page_of(viewer, query)
        seen += ids_of(page)
        found = re.search(r'rel="next" href="([^"]*)"', page)
        query = unescape(found[1]) if found else ""
    assert query == ""
    assert len(seen) == len(set(seen)) == 120
    assert set(seen) == {one.request_id for one in events}


def test_search_that_looked_far_enough_says_so_and_goes_on(
    viewer: Client, acme: Tenant, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "LOOKED_AT_MOST", 10)
    rare = event(acme, now - timedelta(minutes=50), alias="rare")
    ledger.post([rare, *[event(acme, now - timedelta(minutes=n)) for n in range(15)]])
    page = page_of(viewer, "?alias=rare")
    assert "None among the latest of this time" in page
    found = re.search(r'rel="next" href="([^"]*)"', page)
    assert found is not None
    assert "Look further back" in page
    assert ids_of(page_of(viewer, unescape(found[1]))) == [rare.request_id]


def test_rare_calls_are_found_behind_many_others(
    viewer: Client, acme: Tenant, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The latest few are looked at first; where they hold too little of what is wanted, all."""
    monkeypatch.setattr(history, "LOOKED_AT_FIRST", 1)
    rare = [event(acme, now - timedelta(minutes=n), alias="rare") for n in (1, 40)]
    ledger.post([*rare, *[event(acme, now - timedelta(seconds=n)) for n in range(80)]])
    assert ids_of(page_of(viewer, "?alias=rare")) == [one.request_id for one in rare]
    assert 'rel="next"' not in page_of(viewer, "?alias=rare")


def test_call_is_found_by_its_id_whenever_it_was(viewer: Client, acme: Tenant, globex: Tenant, now: datetime) -> None:
    old, theirs = event(acme, now - timedelta(days=90)), event(globex, now)
    ledger.post([old, theirs])
    answer = viewer.get("/t/acme/requests/", {"id": old.request_id})
    assert (answer.status_code, answer["location"]) == (302, f"/t/acme/requests/{old.request_id}/")
    for other in (theirs.request_id, str(uuid4())):
        assert "No call of this id has ended" in page_of(viewer, f"?id={other}")


def test_place_that_is_none_begins_at_the_newest(viewer: Client, acme: Tenant, now: datetime) -> None:
    ledger.post([event(acme, now)])
    for place in ("x", "12", "[]", '["x","y"]', f'["9999999-01-01",{uuid4()}]', '["2026-11-21 00:00:00","x"]', "[" * 900):
        assert len(ids_of(page_of(viewer, "?" + urlencode({"after": place})))) == 1, place


def test_story_of_a_call(viewer: Client, acme: Tenant, now: datetime) -> None:
    limits = [
        {"subject": "tenant", "name": str(acme.pk), "limit": "tokens_per_day", "used": 900, "reserved": 100, "max": 1000,
         "mode": "enforce"},
        {"subject": "key", "name": KEY_ID, "limit": "money_per_month", "used": 10**9, "reserved": 0, "max": 5 * 10**9,
         "mode": "shadow"},
    ]  # fmt: skip
    policy = [
        {"policy": "calm", "version": 3, "rule": "words", "kind": "keywords", "action": "flag", "surface": "input.user"},
        {"more": 7},
    ]
    one = event(
        acme, now, outcome="refused", status=429, error_code="token_quota_exceeded", limits=limits, policy=policy,
        end_user="u-1", metadata={"team": EVIL}, client_request_id="mine", attempts=2, queue_ms=100, duration_ms=1000,
        first_token_ms=400,
    )  # fmt: skip
    ledger.post([one])
    page = page_of(viewer, f"{one.request_id}/")
    told = text_of(page)
    for words in (
        "429 token_quota_exceeded", "tokens or the money of an hour", "Tokens per day acme 900 100 1,000 No room",
        "Money per month ci 1 0 5 Counted, not refused", "calm v3 words Keywords Input: user messages Monitor",
        "and 7 more", "mine", "u-1",
        "Waiting for a place 100 ms", "Until the first token 300 ms", "The answer 600 ms", "1.00 s in all",
    ):  # fmt: skip
        assert words in told, words
    assert EVIL not in page
    assert "gpu-1" not in page


def test_the_gateways_own_checks_stand_apart_where_they_were_timed(viewer: Client, acme: Tenant, now: datetime) -> None:
    one = event(
        acme, now, auth_us=420, policy_us=1_500, admission_us=12_000, queue_ms=100, first_token_ms=400, duration_ms=1000
    )  # fmt: skip
    other = event(acme, now)
    ledger.post([one, other])
    told = text_of(page_of(viewer, f"{one.request_id}/"))
    for words in (
        "The key 0.42 ms",
        "Content policies 1.50 ms",
        "Limits 12",
        "Waiting for a place 100 ms",
        "The answer 600 ms",
    ):
        assert words in told, words
    assert "not timed apart" not in told
    assert "not timed apart" in text_of(page_of(viewer, f"{other.request_id}/"))
    (record,) = UsageRecord.objects.filter(request_id=one.request_id)
    parts = stretches(record)
    assert sum(part.ms for part in parts) == pytest.approx(1000)
    assert [part.x for part in parts] == sorted(part.x for part in parts)


@pytest.mark.parametrize(
    ("duration_ms", "english", "japanese"),
    [
        (0, "0 ms in all", "合計 0 ミリ秒"),
        (2, "2 ms in all", "合計 2 ミリ秒"),
        (999, "999 ms in all", "合計 999 ミリ秒"),
        (1000, "1.00 s in all", "合計 1.00 秒"),
        (61_250, "61.25 s in all", "合計 61.25 秒"),
    ],
)
def test_short_call_is_told_in_milliseconds(
    viewer: Client, acme: Tenant, now: datetime, duration_ms: int, english: str, japanese: str
) -> None:
    one = event(acme, now, duration_ms=duration_ms, first_token_ms=None)
    ledger.post([one])
    for language, said in (("en", english), ("ja", japanese)):
        page = viewer.get(f"/t/acme/requests/{one.request_id}/", headers={"accept-language": language}).content.decode()
        assert said in text_of(page)


@pytest.mark.parametrize(
    ("value_ms", "said"),
    [
        (0.42, "0.42 ms"),
        (1.5, "1.50 ms"),
        (2.001, "2 ms"),
        (9.999, "10 ms"),
        (12.4, "12 ms"),
        (999.4, "999 ms"),
        (999.6, "1.00 s"),
    ],
)
def test_parts_of_a_millisecond_are_told_of_short_stretches(value_ms: float, said: str) -> None:
    assert measures.duration(value_ms) == said


def test_backend_is_told_to_operators_alone(
    signed_in: SignedIn, acme_admin: User, operator: User, acme: Tenant, now: datetime
) -> None:
    one = event(acme, now)
    ledger.post([one])
    for path in ("", f"{one.request_id}/"):
        assert "gpu-1" not in page_of(signed_in(acme_admin), path)
    assert "gpu-1" in page_of(signed_in(operator), f"{one.request_id}/")


def test_call_that_was_lost_and_ended_after_all_is_one_call(viewer: Client, acme: Tenant, now: datetime) -> None:
    lost = event(acme, now, outcome="lost", prompt_tokens=100, completion_tokens=5)
    ledger.post([lost])
    ledger.post([event(acme, now, request_id=lost.request_id, part=1, prompt_tokens=0, completion_tokens=15)])
    page = page_of(viewer, "?ending=failed")
    assert ids_of(page) == [lost.request_id]
    story = text_of(page_of(viewer, f"{lost.request_id}/"))
    assert "Output tokens 20" in story
    assert "Posted as lost first" in story


def test_strangers_get_404_and_find_nothing(
    viewer: Client, signed_in: SignedIn, globex_admin: User, acme: Tenant, globex: Tenant, now: datetime
) -> None:
    ours, theirs = event(acme, now), event(globex, now)
    ledger.post([ours, theirs])
    assert ids_of(page_of(viewer)) == [ours.request_id]
    for path in ("globex/requests/", f"globex/requests/{theirs.request_id}/", f"acme/requests/{theirs.request_id}/"):
        assert viewer.get(f"/t/{path}").status_code == 404, path
    client = signed_in(globex_admin)
    assert client.get(f"/t/acme/requests/{ours.request_id}/").status_code == 404
    assert ours.request_id not in page_of(client, slug="globex")


def test_markup_in_stored_text_stays_text(viewer: Client, acme: Tenant, now: datetime) -> None:
    one = event(acme, now, alias=EVIL, key_name=EVIL, error_code=EVIL, outcome="failed", end_user=EVIL)
    ledger.post([one])
    for path in ("", f"{one.request_id}/", "?alias=%3Cscript%3E", "?tag=%3Cscript%3E"):
        assert EVIL not in page_of(viewer, path)


def test_empty_list_has_a_next_step(viewer: Client) -> None:
    assert "Look at the last 30 days" in page_of(viewer)
    assert "Show everything" in page_of(viewer, "?alias=none")


def test_page_costs_a_handful_of_queries_however_many_rows(
    viewer: Client, acme: Tenant, now: datetime, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    ledger.post([event(acme, now - timedelta(seconds=n)) for n in range(80)])
    with django_assert_max_num_queries(12):
        assert len(ids_of(page_of(viewer))) == 25


def test_troubles_are_of_the_time_and_the_tenant_alone(acme: Tenant, globex: Tenant) -> None:
    at = datetime(2026, 11, 20, 12, tzinfo=UTC)
    failed = {"outcome": "failed", "error_code": "upstream_timeout"}
    ledger.post([event(acme, at, **failed), event(acme, at - timedelta(days=2), **failed), event(globex, at, **failed)])
    found = history.troubles(acme, at - timedelta(hours=1), at + timedelta(hours=1))
    assert [(trouble.ending, trouble.code, trouble.calls) for trouble in found] == [("failed", "upstream_timeout", 1)]
