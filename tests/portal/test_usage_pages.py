"""The pages of usage: what was asked, in the tenant's own days, to those who may; the same figures as table and file."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db.models import Sum
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts import issuing
from accounts.models import Tenant, User
from accounts.roles import Role
from tests.usage.made import KEY_ID, OTHER_KEY_ID, event
from usage import ledger
from usage.events import UsageEvent
from usage.models import UsageRecord

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def viewer(signed_in: SignedIn, acme_viewer: User) -> Client:
    return signed_in(acme_viewer)


@pytest.fixture
def morning(monkeypatch: pytest.MonkeyPatch) -> datetime:
    """08:30 in Tokyo: yesterday still, in UTC."""
    now = datetime.fromisoformat("2026-11-21T08:30:00+09:00")
    monkeypatch.setattr("portal.views.usage.timezone.now", lambda: now)
    return now


def page_of(client: Client, query: str = "", path: str = "/t/acme/usage/") -> str:
    answer = client.get(f"{path}{query}")
    assert answer.status_code == 200
    return answer.content.decode()


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


def lines_of(client: Client, query: str = "", path: str = "/t/acme/usage/ndjson/") -> list[dict[str, Any]]:
    answer: Any = client.get(f"{path}{query}")
    assert answer.status_code == 200
    return [json.loads(line) for line in b"".join(answer.streaming_content).splitlines()]


def table_of(page: str, label: str) -> Iterator[list[str]]:
    """The rows of the table in the region of that name."""
    found = re.search(rf'<div class="scrolls"[^>]*aria-label(?:ledby)?="{re.escape(label)}">(.*?)</table>', page, re.DOTALL)
    assert found is not None
    for row in re.findall(r"<tr[^>]*>(.*?)</tr>", found[1], re.DOTALL):
        yield [text_of(cell).strip() for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]


def test_today_is_not_empty_in_the_morning_of_tokyo(viewer: Client, acme: Tenant, morning: datetime) -> None:
    ledger.post([event(acme, morning - timedelta(minutes=5)), event(acme, morning - timedelta(hours=10))])
    rows = {label: total for label, total, *_ in table_of(page_of(viewer, "?range=30d&group=none"), "Requests")}
    assert rows["Time (Asia/Tokyo)"] == "Requests"
    assert (rows["21 Nov 2026"], rows["20 Nov 2026"], rows["19 Nov 2026"]) == ("1", "1", "0")
    assert "Times are in Asia/Tokyo." in text_of(page_of(viewer))


def test_filters_groups_and_shares(viewer: Client, acme: Tenant, morning: datetime) -> None:
    key, _text = issuing.issue(acme, issuing.Terms("batch"), actor=None, actor_label="test")
    ledger.post([
        event(acme, morning, alias="a", key_id=str(key.pk)),
        event(acme, morning, alias="a", key_id=str(key.pk), outcome="failed", error_code="upstream_timeout", status=504),
        event(acme, morning, alias="b", outcome="refused", error_code="rate_limited", status=429),
        event(acme, morning, alias="b", error_code="content_blocked", status=403, outcome="refused"),
    ])  # fmt: skip

    def names(query: str) -> dict[str, str]:
        rows = list(table_of(page_of(viewer, query), "Breakdown"))[1:-1]
        return {name: requests for name, _share, requests, *_ in rows}

    assert names("") == {"a": "2", "b": "2"}
    assert names("?group=key") == {"batch": "2", KEY_ID: "2"}
    assert names("?group=ending") == {"Completed": "1", "Failed": "1", "Refused": "1", "Blocked": "1"}
    assert names("?group=status&alias=b") == {"429": "1", "403": "1"}
    assert names("?key=bat") == names(f"?key={key.pk}") == {"a": "2"}
    assert names("?ending=failed&group=status") == {"504": "1"}
    assert names("?status=200") == {"a": "1"}
    rows = list(table_of(page_of(viewer, "?metric=errors"), "Breakdown"))
    assert [row[:2] for row in rows[1:-1]] == [["a", "100.0%"], ["b", "0.0%"]]
    assert rows[-1][2] == "4"


def test_calls_that_named_no_alias_have_a_row_and_hide_no_other(viewer: Client, acme: Tenant, morning: datetime) -> None:
    refused = event(acme, morning, alias="", outcome="refused", error_code="model_not_found", status=404)
    ledger.post([refused, event(acme, morning), event(acme, morning)])
    rows = list(table_of(page_of(viewer), "Breakdown"))[1:-1]
    assert [(row[0], row[2]) for row in rows] == [("general", "2"), ("Without an alias", "1")]


def test_two_groups_make_a_row_of_each_pair(viewer: Client, acme: Tenant, morning: datetime) -> None:
    ledger.post([
        event(acme, morning, alias="a"), event(acme, morning, alias="a", stream=False), event(acme, morning, alias="b"),
        event(acme, morning, alias="a"),
    ])  # fmt: skip
    page = page_of(viewer, "?group=alias&sub=stream")
    rows = [row[:4] for row in table_of(page, "Breakdown")]
    assert rows == [
        ["Alias", "Answer", "Share", "Requests"], ["a", "Streamed", "50.0%", "2"], ["a", "Whole", "25.0%", "1"],
        ["b", "Streamed", "25.0%", "1"], ["Total", "", "", "4"],
    ]  # fmt: skip
    assert next(table_of(page, "Requests"))[1:] == ["a · Streamed", "a · Whole", "b · Streamed", "Total"]
    assert {(row["group"], row["subgroup"], row["subname"]) for row in lines_of(viewer, "?group=alias&sub=stream")} == {
        ("a", "yes", "Streamed"), ("a", "no", "Whole"), ("b", "yes", "Streamed"),
    }  # fmt: skip
    assert [row[0] for row in table_of(page_of(viewer, "?sub=alias"), "Breakdown")][1:] == ["a", "b", "Total"]
    assert list(table_of(page_of(viewer, "?stream=no"), "Breakdown"))[-1][2] == "1"


def test_end_users_and_tags_have_totals_of_their_own(viewer: Client, acme: Tenant, morning: datetime) -> None:
    ledger.post([
        event(acme, morning, end_user="u1", metadata={"team": "search", "run": "7"}), event(acme, morning),
        event(acme, morning, end_user="u2", metadata={"team": "search"}), event(acme, morning, end_user="u1"),
    ])  # fmt: skip

    def rows(query: str) -> list[list[str]]:
        return [row[:3] for row in table_of(page_of(viewer, query), "Breakdown")][1:]

    assert rows("?group=end_user") == [["u1", "50.0%", "2"], ["u2", "25.0%", "1"], ["Total", "", "4"]]
    assert rows("?group=tag") == [["team=search", "50.0%", "2"], ["run=7", "25.0%", "1"], ["Total", "", "4"]]
    assert rows("?group=tag&range=1h") == rows("?group=tag&range=30d") == rows("?group=tag")
    assert "Requests: 2" in text_of(page_of(viewer, "?end_user=u1"))
    assert "Requests: 2" in text_of(page_of(viewer, "?tag=team%3Dsearch&group=alias"))
    assert [row["requests"] for row in lines_of(viewer, "?tag=team%3Dsearch")] == [2]
    assert "&amp;end_user=u1" in page_of(viewer, "?group=end_user")
    for query in ("?end_user=u1&alias=general", "?group=tag&stream=yes", "?end_user=u1&tag=a%3Db"):
        assert "kept apart from all others" in text_of(page_of(viewer, query))
    for metric in ("concurrency", "first_p95"):
        assert "not kept by end user" in text_of(page_of(viewer, f"?group=tag&metric={metric}"))
    assert "Write a name, =, and a value" in text_of(page_of(viewer, "?tag=team"))


def test_every_figure_of_the_table_leads_to_the_calls_it_counts(viewer: Client, acme: Tenant, morning: datetime) -> None:
    ledger.post([
        event(acme, morning, alias="a"), event(acme, morning, alias="a", outcome="lost", status=200),
        event(acme, morning, alias="a", stream=False), event(acme, morning, alias="b"),
    ])  # fmt: skip
    page = page_of(viewer, "?stream=yes&sub=ending")
    found = re.findall(r'<td><a href="(/t/acme/requests/[^"]*)">([0-9]+)</a>', page)
    assert found
    for url, figure in found:
        if "prompt" not in url and int(figure) < 10:
            calls = page_of(viewer, unescape(url), "")
            assert calls.count('class="call-time"') == int(figure)


@pytest.mark.parametrize("metric", ["requests", "tokens", "errors", "first_p95"])
def test_every_figure_of_the_charts_table_leads_to_the_calls_it_counts(
    viewer: Client, acme: Tenant, morning: datetime, metric: str
) -> None:
    ledger.post([
        *(event(acme, morning - timedelta(minutes=20 * n), alias="a & b") for n in range(5)),
        *(event(acme, morning - timedelta(days=1, hours=n), alias="c") for n in range(2)),
        event(acme, morning - timedelta(hours=2), alias="c", outcome="failed", error_code="upstream_timeout", status=504),
    ])  # fmt: skip
    query = "?range=24h&compare=previous&ending=failed" if metric == "errors" else "?range=24h&compare=previous"
    table = page_of(viewer, f"{query}&metric={metric}").split('class="as-table"')[1].split("</table>")[0]
    found = re.findall(r'<a href="(/t/acme/requests/[^"]*)">([^<]+)</a>', table)
    assert found
    for url, shown in found:
        calls = page_of(viewer, path=unescape(url)).count('class="call-time"')
        assert calls == int(shown) if metric in ("requests", "errors") else calls > 0, (url, shown)


def test_concurrency_is_how_many_calls_ran_at_the_same_time(viewer: Client, acme: Tenant, morning: datetime) -> None:
    ledger.post([event(acme, morning.replace(hour=7, minute=30), duration_ms=90 * 60_000) for _ in range(4)])
    page = page_of(viewer, "?metric=concurrency&group=none")
    rows = {row[0]: row[1] for row in table_of(page, "Concurrent calls (average)")}
    assert (rows["21 Nov 2026, 07:00"], rows["21 Nov 2026, 08:00"]) == ("2.0", "4.0")
    assert [row["concurrency"] for row in lines_of(viewer, "?group=none")] == [2.0, 4.0]


def test_table_is_sorted_as_the_url_says(viewer: Client, acme: Tenant, morning: datetime) -> None:
    ledger.post([event(acme, morning, alias=alias) for alias in ("a", "b", "b", "c", "c", "c")])

    def order(sort: str) -> str:
        return "".join(row[0] for row in list(table_of(page_of(viewer, f"?sort={sort}"), "Breakdown"))[1:-1])

    orders = [order(sort) for sort in ("", "requests", "-requests", "name", "-name", "nonsense")]
    assert orders == ["cba", "abc", "cba", "abc", "cba", "cba"]
    assert 'aria-sort="descending"><a href="?sort=requests"' in page_of(viewer, "?sort=-requests")


def test_seventh_group_is_among_the_others_in_the_chart_and_by_itself_in_the_table(
    viewer: Client, acme: Tenant, morning: datetime
) -> None:
    ledger.post([event(acme, morning, alias=f"alias-{n}") for n in range(9) for _ in range(9 - n)])
    page = page_of(viewer)
    head = next(table_of(page, "Requests"))
    assert head == ["Time (Asia/Tokyo)", *(f"alias-{n}" for n in range(6)), "Other", "Total"]
    assert len(list(table_of(page, "Breakdown"))) == 11
    assert list(table_of(page, "Requests"))[-1][1:] == ["9", "8", "7", "6", "5", "4", "6", "45"]


def test_comparison_is_with_the_time_before_or_the_same_weekdays(viewer: Client, acme: Tenant, morning: datetime) -> None:
    ledger.post([
        event(acme, morning),
        *[event(acme, morning - timedelta(days=1)) for _ in range(4)],
        *[event(acme, morning - timedelta(days=7)) for _ in range(2)],
    ])  # fmt: skip
    assert "before: 4 (-75 %)" in text_of(page_of(viewer, "?compare=previous"))
    page = page_of(viewer, "?compare=weekdays")
    assert "before: 2 (-50 %)" in text_of(page)
    assert "stroke before" in page
    assert "stroke before" not in page_of(viewer)
    assert list(table_of(page, "Requests"))[-1][1:] == ["1", "2"]


def test_dragged_time_is_taken_from_the_url(viewer: Client, acme: Tenant, morning: datetime) -> None:
    ledger.post([event(acme, morning - timedelta(minutes=minutes)) for minutes in (5, 20, 90)])
    page = page_of(viewer, "?from=2026-11-21T08:00&to=2026-11-21T08:20&group=none")
    rows = list(table_of(page, "Requests"))
    assert len(rows) == 21
    assert [row[0] for row in rows if row[1] == "1"] == ["21 Nov 2026, 08:10"]
    assert 'value="2026-11-21T08:00"' in page
    assert 'data-from="2026-11-21T08:00"' in page


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("from=2026-11-21T08:00&to=2026-11-21T07:00", "The end is not after the beginning"),
        ("from=yesterday", "write it like"),
        ("from=9999-12-31T00:00", "Take a year from 2000"),
        ("from=2001-01-01T00:00", "more than ten years"),
        ("range=1y", "1y"),
        ("metric=secrets", "secrets"),
        ("status=1", "greater than or equal"),
        ("key=nobody", "No key has such a name"),
        ("alias=%00", "Null characters"),
    ],
)
def test_what_cannot_be_asked_is_told(viewer: Client, query: str, told: str) -> None:
    page = page_of(viewer, f"?{query}")
    if "metric" not in query:
        assert told in text_of(page)
    assert "breakdown" not in page
    assert viewer.get(f"/t/acme/usage/csv/?{query}").status_code == 302


def test_nothing_used_says_what_to_do(viewer: Client) -> None:
    assert "Look at the last 30 days" in page_of(viewer)
    assert "Show everything" in page_of(viewer, "?alias=nowhere")


def test_files_hold_what_the_page_shows(viewer: Client, acme: Tenant, morning: datetime) -> None:
    ledger.post([event(acme, morning, alias=f"=evil-{n}", cost_nano=1_500_000_000) for n in range(9)])
    ledger.post([event(acme, morning - timedelta(hours=30), alias="elsewhere")])
    rows = lines_of(viewer)
    assert [row["name"] for row in rows] == [f"=evil-{n}" for n in range(9)]
    assert rows[0] == {
        "start": "2026-11-21T08:00:00+09:00", "end": "2026-11-21T09:00:00+09:00", "group": "=evil-0", "name": "=evil-0",
        "subgroup": "", "subname": "", "concurrency": 0.0, "requests": 1, "prompt_tokens": 100, "cached_tokens": 40,
        "completion_tokens": 20, "errors": 0, "refused": 0, "blocked": 0, "cost": "1.5",
        "first_token_p50_ms": rows[0]["first_token_p50_ms"], "first_token_p95_ms": rows[0]["first_token_p95_ms"],
    }  # fmt: skip
    answer: Any = viewer.get("/t/acme/usage/csv/")
    text = b"".join(answer.streaming_content).decode()
    assert answer["content-disposition"] == 'attachment; filename="usage-acme.csv"'
    assert text.startswith("\ufeff")
    cells = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    assert [row["name"] for row in cells] == [f"'=evil-{n}" for n in range(9)]


def test_markup_in_names_stays_text(viewer: Client, acme: Tenant, morning: datetime) -> None:
    key, _text = issuing.issue(acme, issuing.Terms(EVIL), actor=None, actor_label="test")
    ledger.post([event(acme, morning, alias=EVIL, key_id=str(key.pk))])
    for query in ("", "?group=key", f"?alias={EVIL}"):
        assert EVIL not in page_of(viewer, query)
    assert "&lt;script&gt;" in page_of(viewer)


def test_strangers_get_404_and_see_nothing_of_others(
    viewer: Client, signed_in: SignedIn, globex_admin: User, acme: Tenant, globex: Tenant, morning: datetime
) -> None:
    ledger.post([event(acme, morning, alias="acme-only"), event(globex, morning, alias="theirs", key_id=OTHER_KEY_ID)])
    for path in ("", "csv/", "ndjson/"):
        assert viewer.get(f"/t/globex/usage/{path}").status_code == 404
    assert "theirs" not in page_of(viewer, f"?key={OTHER_KEY_ID}") + page_of(viewer)
    assert [row["name"] for row in lines_of(viewer)] == ["acme-only"]
    for path in ("", "csv/", "ndjson/"):
        assert viewer.get(f"/admin/usage/{path}").status_code == 404
    assert "acme-only" not in page_of(signed_in(globex_admin), path="/t/globex/usage/")


@pytest.mark.parametrize("role", Role)
def test_every_member_may_look(signed_in: SignedIn, acme: Tenant, acme_viewer: User, role: Role) -> None:
    acme.memberships.update(role=role)
    assert signed_in(acme_viewer).get("/t/acme/usage/").status_code == 200


def test_operators_see_all_tenants_by_tenant_and_backend(
    signed_in: SignedIn, operator: User, acme: Tenant, globex: Tenant, morning: datetime
) -> None:
    globex.time_zone = "Asia/Kolkata"
    globex.save()
    ledger.post([event(acme, morning), event(acme, morning, backend="gpu-2"), event(globex, morning)])
    client = signed_in(operator)
    rows = list(table_of(page_of(client, path="/admin/usage/"), "Breakdown"))
    assert [(row[0], row[2]) for row in rows[1:-1]] == [("acme", "2"), ("globex", "1")]
    rows = list(table_of(page_of(client, "?group=backend&tenant=acme&range=7d", path="/admin/usage/"), "Breakdown"))
    assert [(row[0], row[2]) for row in rows[1:-1]] == [("gpu-1", "1"), ("gpu-2", "1")]
    assert "There is no such tenant" in text_of(page_of(client, "?tenant=initech", path="/admin/usage/"))
    days = lines_of(client, "?range=30d&group=none", path="/admin/usage/ndjson/")
    assert [(day["start"], day["requests"]) for day in days] == [("2026-11-20T00:00:00+00:00", 3)]


def test_page_costs_a_handful_of_queries_however_many_rows(
    viewer: Client, acme: Tenant, morning: datetime, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    keys = [issuing.issue(acme, issuing.Terms(f"key-{n}"), actor=None, actor_label="test")[0] for n in range(120)]
    ledger.post([event(acme, morning - timedelta(hours=n % 60), key_id=str(key.pk)) for n, key in enumerate(keys)])
    with django_assert_max_num_queries(17):
        page = page_of(viewer, "?group=key&compare=previous&range=7d")
    assert "120 in all" in page
    assert '<input type="text" name="key"' in page


ZONES = ("Asia/Tokyo", "Asia/Kolkata", "Australia/Lord_Howe", "America/New_York", "America/St_Johns", "UTC")
# Around the ends of summer time in New York and Lord Howe.
FIRST = datetime(2026, 10, 2, 12, tzinfo=UTC)
MOMENTS = st.integers(0, 32 * 86400).map(lambda at_s: FIRST + timedelta(seconds=at_s))
CALLS = st.lists(
    st.fixed_dictionaries({
        "at": MOMENTS,
        "alias": st.sampled_from(["a", "b", "c"]),
        "key_id": st.sampled_from([KEY_ID, OTHER_KEY_ID]),
        "ended": st.sampled_from([
            ("completed", None, 200), ("failed", "upstream_timeout", 504), ("lost", None, 200),
            ("refused", "rate_limited", 429), ("refused", "content_blocked", 403), ("client_left", "client_left", 499),
        ]),
        "stream": st.booleans(),
        "end_user": st.sampled_from([None, "u1", "u2"]),
        "metadata": st.sampled_from([None, {"team": "a"}, {"team": "b"}]),
        "duration_ms": st.integers(0, 7_200_000),
        "prompt_tokens": st.integers(0, 5000),
        "completion_tokens": st.integers(0, 900),
    }),
    max_size=25,
)  # fmt: skip


@given(zone=st.sampled_from(ZONES), calls=CALLS, span=st.sampled_from([1, 6, 33]), ends=st.integers(0, 33 * 24))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_figures_equal_sums_over_the_ledger(
    viewer: Client, zone: str, calls: list[dict[str, Any]], span: int, ends: int
) -> None:
    tenant = Tenant.objects.create(slug=f"t{timezone.now().timestamp():.6f}".replace(".", "-"), name="T", time_zone=zone)
    tenant.memberships.create(user=User.objects.get(), role=Role.VIEWER)
    ledger.post([_call(tenant, call) for call in calls])
    # From and until as people say it: on the clock of the wall, on whole hours.
    last = (FIRST + timedelta(hours=ends)).astimezone(ZoneInfo(zone)).replace(minute=0, fold=0)
    first = last - timedelta(days=span)
    query = f"?from={first:%Y-%m-%dT%H:%M}&to={last:%Y-%m-%dT%H:%M}"
    for group, column in (("alias", "alias"), ("key", "key_id"), ("none", None)):
        rows = lines_of(viewer, f"{query}&group={group}", path=f"/t/{tenant.slug}/usage/ndjson/")
        for row in rows:
            within = UsageRecord.objects.filter(
                tenant_id=tenant.pk, created_at__gte=datetime.fromisoformat(row["start"]), created_at__lt=row["end"]
            )
            within = within.filter(**{column: row["group"]}) if column else within
            sums = within.aggregate(Sum("prompt_tokens"), Sum("completion_tokens"))
            assert row["requests"] == within.count()
            assert (row["prompt_tokens"], row["completion_tokens"]) == tuple(value or 0 for value in sums.values())
            assert row["refused"] == within.filter(error_code="rate_limited").count()
            assert row["blocked"] == within.filter(error_code="content_blocked").count()
            assert row["errors"] == within.filter(outcome__in=["failed", "lost"]).count()
    for row in lines_of(viewer, f"{query}&group=alias&sub=stream", path=f"/t/{tenant.slug}/usage/ndjson/"):
        within = UsageRecord.objects.filter(
            tenant_id=tenant.pk, created_at__gte=datetime.fromisoformat(row["start"]), created_at__lt=row["end"]
        ).filter(alias=row["group"], stream=row["subgroup"] == "yes")
        assert row["requests"] == within.count()
        assert row["prompt_tokens"] == sum(within.values_list("prompt_tokens", flat=True))
    for group, column in (("end_user", "end_user"), ("tag", "metadata__team")):
        rows_of_labels = lines_of(viewer, f"{query}&group={group}", path=f"/t/{tenant.slug}/usage/ndjson/")
        for row in rows_of_labels:
            within = UsageRecord.objects.filter(
                tenant_id=tenant.pk, created_at__gte=datetime.fromisoformat(row["start"]), created_at__lt=row["end"]
            ).filter(**{column: row["group"].removeprefix("team=")})
            assert row["requests"] == within.count()
            assert row["completion_tokens"] == sum(within.values_list("completion_tokens", flat=True))
    start, end = _shown(page := page_of(viewer, f"{query}&group=none", path=f"/t/{tenant.slug}/usage/"))
    asked = UsageRecord.objects.filter(tenant_id=tenant.pk, created_at__gte=start, created_at__lt=end).count()
    assert f"Requests: {asked}" in text_of(page)
    assert sum(row["requests"] for row in rows) == asked
    assert start <= first.astimezone(UTC)
    assert end >= last.astimezone(UTC)


def _call(tenant: Tenant, call: dict[str, Any]) -> UsageEvent:
    outcome, error_code, status = call["ended"]
    values = {name: value for name, value in call.items() if name not in ("at", "ended")}
    return event(tenant, call["at"], outcome=outcome, error_code=error_code, status=status, cached_tokens=0, **values)


def _shown(page: str) -> list[datetime]:
    head = page[page.index('<h2 id="chart">') :]
    return [datetime.fromisoformat(text) for text in re.findall(r'<time datetime="([^"]*)"', head)[:2]]
