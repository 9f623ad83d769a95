"""Long files: asked for, made by the worker, fetched by whoever asked, gone a day later; short ones at once."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from html import unescape
from typing import Any
from unittest.mock import ANY

import pytest
import redis
from celery.exceptions import Retry
from django.http import QueryDict
from django.test import Client
from django.utils import timezone

from accounts.models import AuditEvent, Tenant, User
from portal import exports
from portal.tasks import clear_exports, make_export
from tests.portal.test_usage_pages import EVIL, page_of, text_of
from tests.usage.made import KEY_ID, event
from usage import ledger
from usage.models import Export, ExportPart

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
NOW = timezone.now()


@pytest.fixture
def viewer(signed_in: SignedIn, acme_viewer: User, valkey: redis.Redis) -> Client:
    return signed_in(acme_viewer)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """Five rows are long here, and a piece holds two or three."""
    settings.EXPORT_STREAMED_MAX_ROWS = 5
    monkeypatch.setattr(exports, "PIECE_BYTES", 500)


@pytest.fixture
def used(acme: Tenant) -> None:
    ledger.post([event(acme, NOW - timedelta(minutes=n), alias=f"=alias-{n}") for n in range(9)])


def ask(client: Client, query: str = "of=usage&kind=csv", base: str = "/t/acme") -> Export:
    answer = client.post(f"{base}/exports/new/?{query}")
    assert answer.status_code == 302
    export = Export.objects.latest("created_at")
    assert answer["location"] == f"{base}/exports/{export.pk}/"
    return export


def link_in(page: str) -> str:
    start = page.index("/file/?key=")
    return unescape(page[page.rindex('"', 0, start) + 1 : page.index('"', start)])


def body_of(answer: Any) -> str:
    assert answer.status_code == 200
    return b"".join(answer.streaming_content).decode()


def test_long_file_is_made_by_the_worker_and_holds_what_the_page_shows(
    viewer: Client, acme: Tenant, used: None, settings: Any
) -> None:
    answer = viewer.get("/t/acme/usage/csv/?range=7d&group=alias")
    assert answer["location"] == "/t/acme/exports/new/?range=7d&group=alias&of=usage&kind=csv"
    assert "About 9 rows" in text_of(page_of(viewer, path=answer["location"]))
    assert not Export.objects.exists()
    export = ask(viewer, "range=7d&group=alias&of=usage&kind=csv")
    path = f"/t/acme/exports/{export.pk}/"
    assert "Waiting for the worker" in page_of(viewer, path=path)
    assert "data-poll" in page_of(viewer, path=f"{path}live/")
    make_export(str(export.pk))
    page = page_of(viewer, path=path)
    assert "9 rows" in text_of(page)
    assert "data-poll" not in page_of(viewer, path=f"{path}live/")
    assert ExportPart.objects.count() > 2
    answer = viewer.get(link_in(page))
    assert answer["content-type"] == "text/csv; charset=utf-8"
    text = body_of(answer)
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    assert sorted(row["name"] for row in rows) == [f"'=alias-{n}" for n in range(9)]
    settings.EXPORT_STREAMED_MAX_ROWS = 50_000
    assert body_of(viewer.get("/t/acme/usage/csv/?range=7d&group=alias")) == text
    assert list(AuditEvent.objects.order_by("sequence").values_list("verb", flat=True)) == ["export.asked", "export.fetched"]
    asked = AuditEvent.objects.get(verb="export.asked")
    assert asked.after == {"subject": "usage", "kind": "csv", "filters": ["group", "range"], "rows": 9}
    assert "9 rows" not in page_of(viewer, path="/t/acme/exports/") or "CSV" in page_of(viewer, path="/t/acme/exports/")


def test_short_file_comes_at_once(viewer: Client, acme: Tenant) -> None:
    ledger.post([event(acme, NOW)])
    assert len(body_of(viewer.get("/t/acme/usage/ndjson/")).splitlines()) == 1
    assert len(body_of(viewer.get("/t/acme/requests/ndjson/")).splitlines()) == 1


def test_requests_are_exported_with_the_filters_of_their_list(viewer: Client, acme: Tenant) -> None:
    lost = event(acme, NOW - timedelta(minutes=3), outcome="lost", status=200, prompt_tokens=5, metadata={"team": "a"})
    ledger.post([
        lost, event(acme, NOW - timedelta(minutes=3), request_id=lost.request_id, part=1, prompt_tokens=7),
        event(acme, NOW, alias="other"),
        event(acme, NOW, alias="=evil", error_code="rate_limited", outcome="refused", status=429),
    ])  # fmt: skip
    (row,) = map(json.loads, body_of(viewer.get("/t/acme/requests/ndjson/?tag=team%3Da")).splitlines())
    assert row == {
        "request_id": lost.request_id, "created_at": ANY, "alias": "general", "key_id": KEY_ID, "key_name": "ci",
        "outcome": "completed", "status": 200, "error_code": "", "stream": True, "prompt_tokens": 12, "cached_tokens": 80,
        "completion_tokens": 40, "usage_source": "backend", "cost": "0.003", "queue_ms": 0, "first_token_ms": 200,
        "duration_ms": 1500, "attempts": 1, "end_user": "", "client_request_id": "", "metadata": {"team": "a"},
    }  # fmt: skip
    text = body_of(viewer.get("/t/acme/requests/csv/?code=rate_limited"))
    (cells,) = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")))
    assert (cells["alias"], cells["outcome"]) == ("'=evil", "refused")
    assert viewer.get("/t/acme/requests/csv/?status=1").status_code == 302


def test_long_list_of_requests_is_made_too_and_all_of_it(viewer: Client, used: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("usage.history.CALLS_AT_ONCE", 2)
    assert "of=requests" in viewer.get("/t/acme/requests/ndjson/")["location"]
    export = ask(viewer, "of=requests&kind=ndjson&ending=completed")
    make_export(str(export.pk))
    lines = body_of(viewer.get(link_in(page_of(viewer, path=f"/t/acme/exports/{export.pk}/")))).splitlines()
    assert [json.loads(line)["alias"] for line in lines] == [f"=alias-{n}" for n in range(9)]


def test_file_is_its_owners_alone(
    signed_in: SignedIn, viewer: Client, acme_admin: User, globex_admin: User, operator: User, used: None
) -> None:
    export = ask(viewer)
    make_export(str(export.pk))
    link = link_in(page_of(viewer, path=f"/t/acme/exports/{export.pk}/"))
    for other in (acme_admin, operator):
        client = Client()
        client.force_login(other)
        answer = client.get(link, follow=True)
        assert "Only who asked for this file" in answer.content.decode()
        assert "?key=" not in answer.content.decode()
    stranger = Client()
    stranger.force_login(globex_admin)
    assert stranger.get(link).status_code == 404
    assert stranger.get(link.replace("acme", "globex")).status_code == 404
    assert not AuditEvent.objects.filter(verb="export.fetched").exists()


@pytest.mark.parametrize("key", ["", "x", "signature:of:another"])
def test_link_that_was_not_signed_opens_nothing(viewer: Client, used: None, key: str) -> None:
    export = ask(viewer)
    make_export(str(export.pk))
    answer = viewer.get(f"/t/acme/exports/{export.pk}/file/", {"key": key}, follow=True)
    assert "This link leads to no file any more" in answer.content.decode()


def test_after_a_day_the_link_and_the_file_are_gone(viewer: Client, used: None, monkeypatch: pytest.MonkeyPatch) -> None:
    export = ask(viewer)
    make_export(str(export.pk))
    link = link_in(page_of(viewer, path=f"/t/acme/exports/{export.pk}/"))
    later = timezone.now() + timedelta(hours=25)
    monkeypatch.setattr("django.core.signing.time.time", later.timestamp)
    assert viewer.get(link).status_code == 302
    monkeypatch.setattr("portal.exports.timezone.now", lambda: later)
    clear_exports()
    assert not Export.objects.exists()
    assert not ExportPart.objects.exists()


def test_worker_that_is_lost_is_told_and_its_pieces_are_removed(viewer: Client, used: None) -> None:
    export = ask(viewer)
    Export.objects.update(state="running", touched_at=timezone.now() - timedelta(hours=1))
    ExportPart.objects.create(export_id=export.pk, number=0, body=b"")
    clear_exports()
    assert "The worker that made it is gone" in text_of(page_of(viewer, path=f"/t/acme/exports/{export.pk}/"))
    assert not ExportPart.objects.exists()
    make_export(str(export.pk))  # too late: nothing is begun again
    assert Export.objects.get().state == "failed"


def test_bounds_are_told(viewer: Client, used: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(exports.MAKING_MOST):
        ask(viewer)
    answer = viewer.post("/t/acme/exports/new/?of=usage&kind=csv", follow=True)
    assert "Three of your files are being made" in answer.content.decode()
    monkeypatch.setattr(exports, "ROWS_MOST", 8)
    page = text_of(page_of(viewer, path="/t/acme/exports/new/?of=usage&kind=csv"))
    assert "more than 8 rows" in page
    export = Export.objects.latest("created_at")
    make_export(str(export.pk))
    assert "It would be too long a file" in text_of(page_of(viewer, path=f"/t/acme/exports/{export.pk}/"))
    assert not ExportPart.objects.exists()


@pytest.mark.parametrize("query", ["of=secrets", "of=usage&kind=exe", "of=usage&status=1", ""])
def test_what_cannot_be_asked_leads_back(viewer: Client, query: str) -> None:
    assert viewer.get(f"/t/acme/exports/new/?{query}").status_code in (200, 302)
    if query:
        assert viewer.post(f"/t/acme/exports/new/?{query}").status_code == 302
    assert not Export.objects.exclude(query="").exists()


def test_operators_export_of_all_tenants(
    signed_in: SignedIn, operator: User, valkey: redis.Redis, acme: Tenant, used: None
) -> None:
    client = signed_in(operator)
    export = ask(client, "of=usage&kind=ndjson&group=tenant", "/admin")
    make_export(str(export.pk))
    text = body_of(client.get(link_in(page_of(client, path=f"/admin/exports/{export.pk}/"))))
    assert {json.loads(line)["name"] for line in text.splitlines()} == {"acme"}
    assert client.get(f"/t/acme/exports/{export.pk}/").status_code == 404
    assert client.get("/admin/exports/new/?of=requests&kind=csv").status_code == 302


def test_markup_in_filters_stays_text(viewer: Client, used: None) -> None:
    export = ask(viewer, f"of=usage&kind=csv&alias={EVIL}")
    for path in (f"/t/acme/exports/{export.pk}/", "/t/acme/exports/", f"/t/acme/exports/new/?alias={EVIL}"):
        assert EVIL not in page_of(viewer, path=path)


def test_list_costs_a_handful_of_queries(
    viewer: Client, acme: Tenant, acme_viewer: User, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    for n in range(60):
        Export.objects.create(
            id=event(acme, NOW).request_id, owner_id=acme_viewer.pk, tenant_id=acme.pk, subject="usage", kind="csv", query="",
            language="en", state="done", created_at=NOW - timedelta(minutes=n), touched_at=NOW, expires_at=NOW, rows_total=n,
        )  # fmt: skip
    with django_assert_max_num_queries(10):
        assert "60 in all" in page_of(viewer, path="/t/acme/exports/")


def test_one_file_is_made_at_a_time_and_the_next_one_waits(viewer: Client, used: None) -> None:
    first, second = ask(viewer), ask(viewer)
    Export.objects.filter(pk=first.pk).update(state="running")
    with pytest.raises(Retry):
        make_export(str(second.pk))
    second.refresh_from_db()
    assert (second.state, second.touched_at > first.touched_at) == ("waiting", True)
    Export.objects.filter(pk=first.pk).update(state="done")
    make_export(str(second.pk))
    second.refresh_from_db()
    assert second.state == "done"


def test_cancelled_before_the_worker_began_it_is_never_made(viewer: Client, used: None) -> None:
    export = ask(viewer)
    path = f"/t/acme/exports/{export.pk}/"
    assert "Cancel the export" in page_of(viewer, path=f"{path}live/")
    answer = viewer.post(f"{path}cancel/", follow=True)
    text = text_of(answer.content.decode())
    assert "The export is cancelled" in text
    assert "Cancel the export" not in text
    make_export(str(export.pk))
    assert (Export.objects.get().state, ExportPart.objects.count()) == ("cancelled", 0)
    assert "Cancelled" in text_of(page_of(viewer, path="/t/acme/exports/"))
    told = AuditEvent.objects.get(verb="export.cancelled")
    assert (told.target, told.after) == (f"export {export.pk}", {"subject": "usage", "kind": "csv", "rows": 0})
    assert "there is nothing to cancel" in viewer.post(f"{path}cancel/", follow=True).content.decode()
    assert AuditEvent.objects.filter(verb="export.cancelled").count() == 1


def test_cancelled_in_the_making_the_worker_stops_and_no_piece_stays(
    viewer: Client, used: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = ask(viewer, "of=usage&kind=csv&group=alias")
    encoded, seen = exports.encoded, []

    def cancelled_after_a_piece(found: exports.Source, kind: str) -> Iterator[bytes]:
        for line in encoded(found, kind):
            seen.append(line)
            if ExportPart.objects.count() == 1:
                viewer.post(f"/t/acme/exports/{export.pk}/cancel/")
            yield line

    monkeypatch.setattr(exports, "encoded", cancelled_after_a_piece)
    make_export(str(export.pk))
    assert (Export.objects.get().state, ExportPart.objects.count()) == ("cancelled", 0)
    assert len(seen) < len(list(encoded(exports.source("usage", QueryDict("group=alias"), Tenant.objects.get(), NOW), "csv")))


def test_export_is_cancelled_by_its_owner_alone(
    signed_in: SignedIn, viewer: Client, acme_admin: User, globex_admin: User, used: None
) -> None:
    export = ask(viewer)
    other, stranger = Client(), Client()
    other.force_login(acme_admin)
    stranger.force_login(globex_admin)
    path = f"/t/acme/exports/{export.pk}/"
    assert "Cancel the export" not in page_of(other, path=path)
    assert "Only who asked for this file may cancel it" in other.post(f"{path}cancel/", follow=True).content.decode()
    assert stranger.post(f"{path}cancel/").status_code == 404
    assert stranger.post(f"{path}cancel/".replace("acme", "globex")).status_code == 404
    assert Export.objects.get().state == "waiting"


def test_what_is_done_is_not_cancelled(viewer: Client, used: None) -> None:
    export = ask(viewer)
    make_export(str(export.pk))
    answer = viewer.post(f"/t/acme/exports/{export.pk}/cancel/", follow=True)
    assert "there is nothing to cancel" in answer.content.decode()
    assert "Download the file" in answer.content.decode()
