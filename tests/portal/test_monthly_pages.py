"""The report of a month: the tenant's own month, its own figures, to read and as a file; and all tenants' for operators."""

import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db.models import Sum
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts import issuing
from accounts.models import Tenant, User
from accounts.roles import Role
from tests.portal.test_usage_pages import EVIL, ZONES, page_of, table_of, text_of
from tests.usage.made import KEY_ID, OTHER_KEY_ID, event
from usage import ledger
from usage.models import UsageRecord

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
PATH = "/t/acme/monthly/"
NOVEMBER = datetime.fromisoformat("2026-11-01T00:00:00+09:00")


@pytest.fixture
def viewer(signed_in: SignedIn, acme_viewer: User) -> Client:
    return signed_in(acme_viewer)


@pytest.fixture(autouse=True)
def morning(monkeypatch: pytest.MonkeyPatch) -> datetime:
    now = datetime.fromisoformat("2026-11-21T08:30:00+09:00")
    monkeypatch.setattr("portal.views.monthly.timezone.now", lambda: now)
    return now


def file_of(client: Client, path: str) -> list[dict[str, str]]:
    answer: Any = client.get(path)
    assert answer.status_code == 200
    text = b"".join(answer.streaming_content).decode()
    assert text.startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))


def test_month_is_cut_by_the_tenants_clock(viewer: Client, acme: Tenant) -> None:
    ledger.post([event(acme, NOVEMBER - timedelta(seconds=1), alias="october"), event(acme, NOVEMBER, alias="november")])
    assert [row[0] for row in table_of(page_of(viewer, path=PATH), "Alias")] == ["Alias", "november", "Total"]
    assert [row[0] for row in table_of(page_of(viewer, "?month=2026-10", PATH), "Alias")] == ["Alias", "october", "Total"]
    assert "This month is not over" in text_of(page_of(viewer, path=PATH))
    assert "This month is not over" not in text_of(page_of(viewer, "?month=2026-10", PATH))


def test_aliases_and_keys_come_with_their_cost_and_its_share(viewer: Client, acme: Tenant) -> None:
    key, _text = issuing.issue(acme, issuing.Terms("batch"), actor=None, actor_label="test")
    ledger.post([
        event(acme, NOVEMBER, alias="a", key_id=str(key.pk), cost_nano=3_000_000_000),
        event(acme, NOVEMBER, alias="b", key_id=str(key.pk), cost_nano=0),
        event(acme, NOVEMBER, alias="b", cost_nano=1_000_000_000, outcome="failed", status=502),
    ])  # fmt: skip
    page = page_of(viewer, path=PATH)
    by_alias = list(table_of(page, "Alias"))
    assert by_alias[0] == [
        "Alias", "Requests", "Input tokens", "Cached input", "Output tokens", "Errors", "Cost", "Share",
    ]  # fmt: skip
    assert by_alias[1:] == [
        ["a", "1", "100", "40", "20", "0", "3.00", "75.0%"],
        ["b", "2", "200", "80", "40", "1", "1.00", "25.0%"],
        ["Total", "3", "300", "120", "60", "1", "4.00", "100.0%"],
    ]
    assert [(row[0], row[1], row[6]) for row in list(table_of(page, "Key"))[1:]] == [
        ("batch", "2", "3.00"), (KEY_ID, "1", "1.00"), ("Total", "3", "4.00"),
    ]  # fmt: skip


def test_each_figure_leads_to_the_calls_it_counts(viewer: Client, acme: Tenant) -> None:
    ledger.post([
        event(acme, NOVEMBER, alias="a b"),
        event(acme, NOVEMBER, alias="a b", outcome="failed"),
        event(acme, NOVEMBER, alias="c"),
    ])  # fmt: skip
    page = page_of(viewer, path=PATH)
    link = "/t/acme/requests/?from=2026-11-01T00%3A00&amp;to=2026-12-01T00%3A00&amp;alias=a+b&amp;ending=failed"
    assert f'href="{link}">1</a>' in page
    calls = page_of(viewer, link.replace("&amp;", "&"), "")
    assert calls.count('class="call-time"') == 1


def test_file_holds_every_line_and_the_total_and_no_formula(viewer: Client, acme: Tenant) -> None:
    ledger.post([
        event(acme, NOVEMBER, alias="=evil", cost_nano=1_500_000_000), event(acme, NOVEMBER, alias="b", key_id=OTHER_KEY_ID)
    ])  # fmt: skip
    rows = file_of(viewer, f"{PATH}csv/?month=2026-11")
    assert [(row["line"], row["alias"], row["key_id"], row["cost"]) for row in rows] == [
        ("alias and key", "'=evil", KEY_ID, "1.5"), ("alias and key", "b", OTHER_KEY_ID, "0.0015"), ("total", "", "", "1.5015"),
    ]  # fmt: skip
    assert rows[0]["month"] == "2026-11"
    assert rows[0]["time_zone"] == "Asia/Tokyo"


@pytest.mark.parametrize(
    ("month", "told"),
    [
        ("soon", "write it like 2026-11"),
        ("2026-13", "write it like"),
        ("1999-12", "from the year 2000"),
        ("2026-12", "has not begun"),
        ("%00", "Null characters"),
    ],
)
def test_what_is_no_month_is_told(viewer: Client, month: str, told: str) -> None:
    page = page_of(viewer, f"?month={month}", PATH)
    assert told in text_of(page)
    assert "by-alias" not in page
    assert viewer.get(f"{PATH}csv/?month={month}").status_code == 302


def test_month_without_use_leads_to_the_one_before(viewer: Client) -> None:
    page = page_of(viewer, path=PATH)
    assert "Nothing was used in this month" in page
    assert 'href="?month=2026-10"' in page


def test_markup_in_names_stays_text(viewer: Client, acme: Tenant) -> None:
    key, _text = issuing.issue(acme, issuing.Terms(EVIL), actor=None, actor_label="test")
    ledger.post([event(acme, NOVEMBER, alias=EVIL, key_id=str(key.pk))])
    assert EVIL not in page_of(viewer, path=PATH)


@pytest.mark.parametrize("role", Role)
def test_every_member_may_read_it(signed_in: SignedIn, acme: Tenant, acme_viewer: User, role: Role) -> None:
    acme.memberships.update(role=role)
    assert signed_in(acme_viewer).get(PATH).status_code == 200


def test_strangers_get_404(viewer: Client, globex: Tenant, acme: Tenant) -> None:
    for path in ("/t/globex/monthly/", "/t/globex/monthly/csv/", "/admin/monthly/", "/admin/monthly/csv/"):
        assert viewer.get(path).status_code == 404


def test_operators_see_every_tenant_in_its_own_month(signed_in: SignedIn, operator: User, acme: Tenant, globex: Tenant) -> None:
    Tenant.objects.filter(pk=globex.pk).update(time_zone="America/New_York")
    gone = Tenant.objects.create(slug="gone", name="Gone")
    ledger.post([
        event(acme, NOVEMBER, cost_nano=2_000_000_000),
        event(globex, NOVEMBER),  # still October there
        event(globex, NOVEMBER + timedelta(hours=13), cost_nano=1_000_000_000),
        event(gone, NOVEMBER, cost_nano=1_000_000_000),
    ])  # fmt: skip
    gone_id = str(gone.pk)
    gone.delete()
    client = signed_in(operator)
    rows = [(row[0], row[1], row[6], row[7]) for row in table_of(page_of(client, path="/admin/monthly/"), "Tenant")]
    assert rows[1:] == [
        ("Acme acme", "1", "2.00", "50.0%"), ("Globex globex", "1", "1.00", "25.0%"),
        (f"{gone_id} (deleted)", "1", "1.00", "25.0%"), ("Total", "3", "4.00", "100.0%"),
    ]  # fmt: skip
    assert [(row["tenant"], row["requests"]) for row in file_of(client, "/admin/monthly/csv/")] == [
        ("acme", "1"), ("globex", "1"), (gone_id, "1"), ("", "3"),
    ]  # fmt: skip
    assert page_of(client, "?month=2026-10", "/admin/monthly/").count("/t/globex/monthly/?month=2026-10") > 0
    assert client.get("/t/globex/monthly/").status_code == 200


def test_pages_cost_a_handful_of_queries_however_many_rows(
    viewer: Client, acme: Tenant, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    keys = [issuing.issue(acme, issuing.Terms(f"key-{n:03}"), actor=None, actor_label="test")[0] for n in range(130)]
    ledger.post([event(acme, NOVEMBER, key_id=str(key.pk), alias=f"alias-{n}") for n, key in enumerate(keys)])
    with django_assert_max_num_queries(15):
        page = page_of(viewer, path=PATH)
    assert "110 more, in the file" in text_of(page)
    assert list(table_of(page, "Key"))[-2][1] == "110"
    assert len(file_of(viewer, f"{PATH}csv/")) == 131


CALLS = st.lists(
    st.tuples(
        st.integers(0, 62 * 86400),
        st.sampled_from(["a", "b"]),
        st.sampled_from([KEY_ID, OTHER_KEY_ID]),
        st.sampled_from([("completed", 200), ("failed", 502), ("refused", 429)]),
        st.integers(0, 9_000_000),
    ),
    max_size=25,
)


@given(zone=st.sampled_from(ZONES), calls=CALLS, number=st.sampled_from([9, 10, 11]))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_figures_equal_sums_over_the_ledger(viewer: Client, zone: str, calls: list[Any], number: int) -> None:
    slug = f"t{datetime.now(UTC).timestamp():.6f}".replace(".", "-")
    tenant = Tenant.objects.create(slug=slug, name="T", time_zone=zone)
    tenant.memberships.create(user=User.objects.get(), role=Role.VIEWER)
    first = datetime(2026, 9, 15, tzinfo=UTC)
    ledger.post([
        event(tenant, first + timedelta(seconds=at_s), alias=alias, key_id=key, outcome=outcome, status=status, cost_nano=cost)
        for at_s, alias, key, (outcome, status), cost in calls
    ])  # fmt: skip
    local = ZoneInfo(zone)
    within = UsageRecord.objects.filter(
        tenant_id=tenant.pk,
        created_at__gte=datetime(2026, number, 1, tzinfo=local),
        created_at__lt=datetime(2026, number + 1, 1, tzinfo=local),
    )
    *rows, total = file_of(viewer, f"/t/{slug}/monthly/csv/?month=2026-{number:02}")
    for row in rows:
        of_row = within.filter(alias=row["alias"], key_id=row["key_id"])
        assert int(row["requests"]) == of_row.count() > 0
        assert round(float(row["cost"]) * 10**9) == of_row.aggregate(sum=Sum("cost_nano"))["sum"]
        assert int(row["errors"]) == of_row.filter(outcome="failed").count()
        assert int(row["refused"]) == of_row.filter(outcome="refused").count()
    assert int(total["requests"]) == within.count() == sum(int(row["requests"]) for row in rows)
    assert round(float(total["cost"]) * 10**9) == (within.aggregate(sum=Sum("cost_nano"))["sum"] or 0)
