"""The page of the audit trail and its CSV: who may read it, filters, pages, what changed, and no formula for a spreadsheet."""

import csv
import io
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.utils import timezone

from accounts import audit, issuing
from accounts.models import ApiKey, AuditEvent, Tenant, User
from portal.changes import changes
from portal.spreadsheet import defused

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
EVIL = "<script>alert(1)</script>"


def record(tenant: Tenant | None, verb: str = "alias.changed", target: str = "alias acme/general", **more: Any) -> AuditEvent:
    by: audit.By = {"actor": more.pop("actor", None), "actor_label": more.pop("label", "command: apply")}
    with transaction.atomic():
        return audit.record(verb=verb, target=target, tenant=tenant, **by, **more)


def page_of(client: Client, path: str = "/t/acme/audit/", **query: Any) -> str:
    answer = client.get(path, query)
    assert answer.status_code == 200
    return answer.content.decode()


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


def targets(page: str) -> list[str]:
    return re.findall(r'class="event-head">.*?<code>(.*?)</code>', page)


def rows_of(client: Client, **query: Any) -> list[list[str]]:
    answer = client.get("/t/acme/audit/csv/", query)
    assert answer.status_code == 200
    assert answer["content-type"] == "text/csv; charset=utf-8"
    assert "no-store" in answer["cache-control"]
    return list(csv.reader(io.StringIO(answer.getvalue().decode("utf-8-sig"), newline="")))


def test_event_tells_who_did_what_from_where_and_when(signed_in: SignedIn, acme: Tenant, acme_admin: User) -> None:
    AuditEvent.objects.create(
        sequence=1,
        created_at=datetime(2026, 11, 20, 15, 30, tzinfo=UTC),
        tenant=acme,
        actor_label="taro@acme.example",
        verb="policy.published",
        target="policy acme/no-secrets",
        address="192.0.2.7",
        request_id="req-77",
        digest="-",
    )
    page = text_of(page_of(signed_in(acme_admin)))
    for told in (
        "Policy published policy acme/no-secrets",
        "21 Nov 2026, 00:30",  # of Tokyo
        "by taro@acme.example",
        "from 192.0.2.7",
        "request req-77",
    ):
        assert told in page, told


def test_verbs_are_words_in_both_languages_and_unknown_ones_are_shown(
    signed_in: SignedIn, acme: Tenant, acme_admin: User
) -> None:
    record(acme, "policy.published")
    record(acme, "teapot.boiled")
    client = signed_in(acme_admin)
    assert "teapot.boiled" in text_of(page_of(client))
    japanese = client.get("/t/acme/audit/", headers={"accept-language": "ja"}).content.decode()
    assert "ポリシーを公開" in japanese
    assert "だれが何をしたか" in japanese


def test_what_changed_is_marked_beside_what_did_not(signed_in: SignedIn, acme: Tenant, acme_admin: User) -> None:
    record(acme, before={"role": "viewer", "name": "same"}, after={"role": "admin", "name": "same"})
    page = page_of(signed_in(acme_admin))
    assert re.findall(r"<(del|ins)>(.*?)</", page) == [("del", "viewer"), ("ins", "admin")]
    assert text_of(page).count("same") == 2
    assert "(changed)" in text_of(page)


def test_changes_are_told_value_by_value() -> None:
    told = changes(
        {"a": 1, "b": {"c": ["x", "y"]}, "secret": audit.MASK}, {"a": 1, "b": {"c": ["x"]}, "secret": audit.MASK, "d": None}
    )
    assert [(one.name, one.before, one.after, one.is_changed) for one in told] == [
        ("a", "1", "1", False),
        ("b.c", "x, y", "x", True),
        ("secret", "***", "***", True),
        ("d", "", "", True),
    ]
    assert [(one.name, one.after, one.is_changed) for one in changes(None, {"on": True})] == [("on", "true", False)]
    assert [(one.name, one.before) for one in changes("text", None)] == [("", "text")]
    assert changes(None, None) == []


def test_secret_of_a_key_is_nowhere(signed_in: SignedIn, acme: Tenant, acme_admin: User) -> None:
    key, secret = issuing.issue(acme, issuing.Terms("ci"), actor=acme_admin)
    issuing.rotate(key, overlap=timedelta(days=1), actor=acme_admin)
    client = signed_in(acme_admin)
    shown = page_of(client) + client.get("/t/acme/audit/csv/").getvalue().decode()
    assert key.hint in shown
    for row in ApiKey.objects.all():
        assert row.digest not in shown
        assert row.lookup_id not in shown
    assert secret not in shown
    with pytest.raises(ValueError, match="mask it"):
        record(acme, after={"note": secret})


def test_what_backs_an_alias_is_told_to_operators_alone(
    signed_in: SignedIn, acme: Tenant, acme_admin: User, operator: User
) -> None:
    record(acme, before={"deployment": "gpu-pool-7"}, after={"deployment": "gpu-pool-8", "canary": None})
    client = signed_in(acme_admin)
    page, table = page_of(client), str(rows_of(client))
    assert "gpu-pool" not in page
    assert "gpu-pool" not in table
    assert "<ins>***</ins>" in page
    assert "gpu-pool-8" in page_of(signed_in(operator))


@pytest.mark.parametrize("path", ["/t/acme/audit/", "/t/acme/audit/csv/"])
def test_a_viewer_or_developer_cannot_open_it(
    signed_in: SignedIn, acme_viewer: User, acme_developer: User, acme_owner: User, path: str
) -> None:
    for user in (acme_viewer, acme_developer):
        client = signed_in(user)
        assert client.get(path).status_code == 403
        assert 'href="/t/acme/audit/"' not in client.get("/t/acme/").content.decode()
    client = signed_in(acme_owner)
    assert client.get(path).status_code == 200
    assert 'href="/t/acme/audit/"' in client.get("/t/acme/").content.decode()


@pytest.mark.parametrize("path", ["audit/", "audit/csv/"])
@pytest.mark.usefixtures("globex")
def test_a_strangers_audit_is_a_404(signed_in: SignedIn, acme_admin: User, client: Client, path: str) -> None:
    assert client.get(f"/t/acme/{path}").status_code == 302
    assert signed_in(acme_admin).get(f"/t/globex/{path}").status_code == 404


def test_events_of_strangers_and_of_the_platform_are_not_shown(
    signed_in: SignedIn, acme: Tenant, acme_admin: User, globex: Tenant
) -> None:
    record(acme, target="ours")
    record(globex, target="theirs")
    record(None, "backend.drained", "platform")
    client = signed_in(acme_admin)
    assert targets(page_of(client)) == ["ours"]
    assert [row[4] for row in rows_of(client)[1:]] == ["ours"]


def test_filters_stand_in_the_url_and_narrow_page_and_csv(signed_in: SignedIn, acme: Tenant, acme_admin: User) -> None:
    record(acme, "key.issued", "one", label="taro@acme.example")
    record(acme, "key.revoked", "two", label="hanako@acme.example")
    record(acme, "odd.verb", "three", label="taro@acme.example")
    client = signed_in(acme_admin)
    for query, left in (
        ({"verb": "key.revoked"}, ["two"]),
        ({"verb": "odd.verb"}, ["three"]),
        ({"person": "TARO"}, ["three", "one"]),
        ({"person": "taro", "verb": "key.issued"}, ["one"]),
        ({"person": "nobody"}, []),
    ):
        page = page_of(client, **query)
        assert targets(page) == left, query
        assert [row[4] for row in rows_of(client, **query)[1:]] == left
    assert "No event fits this filter" in page
    page = page_of(client, person="taro", verb="odd.verb")
    assert 'value="taro"' in page
    assert '<option value="odd.verb" selected>' in page
    assert "/t/acme/audit/csv/?person=taro&amp;verb=odd.verb" in page


def test_days_are_the_tenants_and_both_count(signed_in: SignedIn, acme: Tenant, acme_admin: User) -> None:
    days = {
        "late on 19": datetime(2026, 11, 19, 14, 59, tzinfo=UTC),
        "early on 20": datetime(2026, 11, 19, 15, 0, tzinfo=UTC),
        "late on 20": datetime(2026, 11, 20, 14, 59, tzinfo=UTC),
        "early on 21": datetime(2026, 11, 20, 15, 0, tzinfo=UTC),
    }
    insert(acme, days)
    client = signed_in(acme_admin)
    assert targets(page_of(client, since="2026-11-20", until="2026-11-20")) == ["late on 20", "early on 20"]
    assert targets(page_of(client, since="2026-11-21")) == ["early on 21"]
    assert targets(page_of(client, until="2026-11-19")) == ["late on 19"]


@pytest.mark.parametrize(
    "query",
    [
        {"since": "yesterday"},
        {"since": "0001-01-01"},
        {"until": "9999-12-31"},
        {"since": "2026-11-21", "until": "2026-11-20"},
        {"verb": "v" * 65},
        {"verb": "\x00"},
        {"person": "\x00"},
    ],
)
def test_a_filter_that_is_none_says_so_and_keeps_what_was_typed(
    signed_in: SignedIn, acme: Tenant, acme_admin: User, query: dict[str, str]
) -> None:
    record(acme, target="ours")
    client = signed_in(acme_admin)
    page = page_of(client, **{"person": "taro", **query})
    assert "field-error" in page
    assert targets(page) == []
    assert client.get("/t/acme/audit/csv/", query)["location"].startswith("/t/acme/audit/?")
    if "person" not in query:
        assert 'value="taro"' in page


def test_pages_follow_the_sequence_both_ways(signed_in: SignedIn, acme: Tenant, acme_admin: User) -> None:
    many(acme, 60)
    client = signed_in(acme_admin)
    page = page_of(client, person="bulk")
    assert targets(page) == [f"event {n}" for n in range(60, 35, -1)]
    assert 'rel="prev"' not in page
    page = page_of(client, **link(page, "next"))
    assert targets(page) == [f"event {n}" for n in range(35, 10, -1)]
    record(acme, target="in between")  # moves nothing on the pages below
    last = page_of(client, **link(page, "next"))
    assert targets(last) == [f"event {n}" for n in range(10, 0, -1)]
    assert 'rel="next"' not in last
    back = page_of(client, **link(last, "prev"))
    assert targets(back) == targets(page)
    first = page_of(client, **link(back, "prev"))
    assert targets(first)[0] == "event 60"
    assert 'rel="prev"' not in first


@pytest.mark.parametrize("place", ["nonsense", "-1", "9" * 40, "1e3", "٣"])
def test_a_place_that_is_none_shows_the_newest(signed_in: SignedIn, acme: Tenant, acme_admin: User, place: str) -> None:
    record(acme, target="ours")
    for name in ("before", "after"):
        assert targets(page_of(signed_in(acme_admin), **{name: place})) == ["ours"]


def test_below_the_first_event_stand_the_newest(signed_in: SignedIn, acme: Tenant, acme_admin: User) -> None:
    record(acme, target="ours")
    assert targets(page_of(signed_in(acme_admin), after=1)) == ["ours"]


def test_nothing_recorded_yet_says_what_will_be(signed_in: SignedIn, acme: Tenant, acme_admin: User) -> None:
    page = page_of(signed_in(acme_admin))
    assert acme.slug in page
    assert "Nothing is recorded yet" in page
    assert "CSV" not in page


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＠"])
def test_no_cell_of_the_csv_is_a_formula(signed_in: SignedIn, acme: Tenant, acme_admin: User, begin: str) -> None:
    evil = f'{begin}HYPERLINK("https://evil.example","x")'
    assert defused(evil) == f"'{evil}"
    record(acme, evil, evil, label=evil, request_id=evil[:64], before=evil, after={evil: evil})
    head, row = rows_of(signed_in(acme_admin))
    assert head == ["sequence", "time", "actor", "verb", "target", "address", "request_id", "before", "after"]
    assert [row[at] for at in (2, 3, 4, 6)] == [f"'{evil}"] * 4
    assert not [cell for cell in row if cell.startswith(begin)]


@pytest.mark.django_db(transaction=True)  # so that the connection does go back between batches
def test_csv_is_streamed_whole_in_the_tenants_time(signed_in: SignedIn, acme: Tenant, acme_admin: User) -> None:
    moment = datetime(2026, 11, 20, 15, 30, tzinfo=UTC)
    insert(acme, {f"event {n}": moment for n in range(1, 1101)})
    client = signed_in(acme_admin)
    answer = client.get("/t/acme/audit/csv/")
    assert answer.streaming
    assert answer["content-disposition"] == 'attachment; filename="audit-acme.csv"'
    rows = list(csv.reader(io.StringIO(answer.getvalue().decode("utf-8-sig"), newline="")))[1:]
    assert [int(row[0]) for row in rows] == list(range(1100, 0, -1))
    assert rows[-1][1] == "2026-11-21T00:30:00+09:00"


def test_markup_in_what_is_stored_stays_text(signed_in: SignedIn, acme: Tenant, acme_admin: User) -> None:
    acme.name = EVIL
    acme.save()
    record(acme, EVIL, EVIL, label=EVIL, request_id=EVIL, before={EVIL: EVIL}, after={EVIL: [EVIL], "b": EVIL})
    page = page_of(signed_in(acme_admin), verb=EVIL, person=EVIL)
    assert len(targets(page)) == 1
    assert EVIL not in page
    assert " style=" not in page


def test_page_costs_a_handful_of_queries(
    signed_in: SignedIn, acme: Tenant, acme_admin: User, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    many(acme, 60)
    client = signed_in(acme_admin)
    with django_assert_max_num_queries(8):
        page_of(client)


def many(tenant: Tenant, count: int) -> None:
    insert(tenant, dict.fromkeys((f"event {n}" for n in range(1, count + 1)), timezone.now()))


def insert(tenant: Tenant, moments: dict[str, datetime]) -> None:
    """Events by target and time. Rows alone: their chain is not whole."""
    AuditEvent.objects.bulk_create(
        AuditEvent(
            sequence=n, created_at=moment, tenant=tenant, actor_label="bulk", verb="key.issued", target=target, digest="-"
        )
        for n, (target, moment) in enumerate(moments.items(), start=1)
    )


def link(page: str, rel: str) -> dict[str, str]:
    found = re.search(rf'rel="{rel}" href="\?([^"]*)"', page)
    assert found is not None
    return dict(part.split("=") for part in unescape(found[1]).split("&"))
