"""The audit trail of the platform: all tenants' events, by filters and as a file, one by one; is the chain whole?"""

import csv
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import unescape
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.test import Client

from accounts import audit
from accounts.models import AuditEvent, Tenant, User
from portal.tasks import verify_audit
from portal.views import audit as view
from tests.portal.paging import turned

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
HOME = "/admin/audit/"
EVIL = "<script>alert(1)</script>"


def record(tenant: Tenant | None, verb: str = "alias.changed", target: str = "alias acme/general", **more: Any) -> AuditEvent:
    with transaction.atomic():
        return audit.record(verb=verb, target=target, tenant=tenant, actor=None, actor_label="command: apply", **more)


@contextmanager
def tampering() -> Iterator[None]:
    """Somebody at the database, past its trigger."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # a table with checks outstanding cannot be altered
        cursor.execute("ALTER TABLE accounts_auditevent DISABLE TRIGGER accounts_auditevent_keep")
        yield
        cursor.execute("ALTER TABLE accounts_auditevent ENABLE TRIGGER accounts_auditevent_keep")


def page_of(client: Client, path: str = HOME, **query: Any) -> str:
    answer = client.get(path, query)
    assert answer.status_code == 200
    return answer.content.decode()


def targets(page: str) -> list[str]:
    return re.findall(r'class="event-head">.*?<code>(.*?)</code>', page)


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


def verified(client: Client) -> str:
    answer = client.post(f"{HOME}verify/", follow=True)
    assert answer.redirect_chain == [(HOME, 302)]
    return text_of(answer.content.decode())


@pytest.mark.parametrize("path", ["", "csv/", "1/", "chain/"])
def test_only_operators_find_it(signed_in: SignedIn, acme: Tenant, acme_owner: User, operator: User, path: str) -> None:
    record(acme)
    assert signed_in(acme_owner).get(HOME + path).status_code == 404
    assert signed_in(operator).get(HOME + path).status_code == 200
    assert signed_in(acme_owner).post(f"{HOME}verify/").status_code == 404
    assert AuditEvent.objects.count() == 1


def test_events_of_all_tenants_are_there_and_narrowed_by_each_filter(
    signed_in: SignedIn, acme: Tenant, globex: Tenant, operator: User
) -> None:
    record(acme, target="alias acme/general")
    record(globex, "key.issued", target="key ci")
    record(None, "policy.created", target="policy house")
    client = signed_in(operator)
    assert targets(page_of(client)) == ["policy house", "key ci", "alias acme/general"]
    assert targets(page_of(client, tenant="globex")) == ["key ci"]
    assert targets(page_of(client, target="HOUSE")) == ["policy house"]
    assert targets(page_of(client, verb="alias.changed")) == ["alias acme/general"]
    assert "No event fits" in page_of(client, tenant="glob")
    assert "field-error" in page_of(client, since="yesterday")


def test_pages_go_by_sequence_and_keep_the_filters(signed_in: SignedIn, acme: Tenant, globex: Tenant, operator: User) -> None:
    for number in range(30):
        record(acme, target=f"a{number}")
        record(globex, target=f"g{number}")
    client = signed_in(operator)
    first = page_of(client, tenant="acme")
    assert targets(first) == [f"a{number}" for number in range(29, 4, -1)]
    assert targets(turned(client, HOME, first)) == [f"a{number}" for number in range(4, -1, -1)]


def test_file_tells_the_tenant_and_holds_no_formula(signed_in: SignedIn, acme: Tenant, operator: User) -> None:
    record(acme, target='=HYPERLINK("x")')
    answer = signed_in(operator).get(f"{HOME}csv/", {"tenant": "acme"})
    head, row = csv.reader(io.StringIO(answer.getvalue().decode("utf-8-sig"), newline=""))
    assert head[-1] == "tenant"
    assert row[-1] == "acme"
    assert not any(cell.startswith("=") for cell in row)


def test_one_event_is_told_whole_and_markup_stays_text(
    signed_in: SignedIn, acme: Tenant, acme_admin: User, globex_admin: User, operator: User
) -> None:
    event = record(acme, target=EVIL, before={"note": "old"}, after={"note": EVIL})
    client = signed_in(operator)
    page = page_of(client, f"{HOME}{event.sequence}/")
    assert EVIL not in page
    assert unescape(page).count(EVIL) == 2
    assert event.digest in page
    assert EVIL not in page_of(client)
    assert client.get(f"{HOME}99/").status_code == 404
    own = f"/t/acme/audit/{event.sequence}/"
    assert event.digest not in page_of(signed_in(acme_admin), own)
    assert signed_in(globex_admin).get(own).status_code == 404
    assert signed_in(globex_admin).get(f"/t/globex/audit/{event.sequence}/").status_code == 404


def test_whole_chain_is_told_up_to_where_and_by_whom(signed_in: SignedIn, acme: Tenant, operator: User) -> None:
    for _ in range(3):
        record(acme)
    client = signed_in(operator)
    assert "It was not checked yet" in page_of(client)
    page = verified(client)
    assert "The chain is whole up to event 3." in page
    assert "Whole up to event 3" in page
    event = AuditEvent.objects.get(verb=audit.VERIFIED)  # that one event
    assert (event.actor, event.after) == (operator, {"up_to": 3, "broken_at": None, "missing": False})
    assert "whole up to event 4" in verified(client)


@pytest.mark.parametrize("batch", [1, 2, 1000])
@pytest.mark.parametrize(
    ("act", "told"),
    [
        (lambda rows: rows.filter(sequence=3).update(target="another"), "event 3 is not what was recorded"),
        (lambda rows: rows.filter(sequence=3).delete(), "event 3 is missing"),
        (
            lambda rows: [rows.filter(sequence=old).update(sequence=new) for old, new in ((2, 99), (4, 2), (99, 4))],
            "event 2 is not what was recorded",
        ),
        (
            lambda rows: [rows.filter(sequence=3).delete(), rows.filter(sequence__gt=3).update(sequence=F("sequence") - 1)],
            "event 3 is not what was recorded",
        ),
    ],
    ids=["changed", "missing", "reordered", "closed-up"],
)
def test_broken_chain_is_told_with_its_event(
    signed_in: SignedIn, acme: Tenant, operator: User, monkeypatch: pytest.MonkeyPatch, act: Any, told: str, batch: int
) -> None:
    monkeypatch.setattr(audit, "_WALKED_AT_ONCE", batch)
    for number in range(4):
        record(acme, target=str(number))
    with tampering():
        act(AuditEvent.objects.all())
    page = verified(signed_in(operator))
    assert f"The chain is broken: {told}" in page
    assert f"E{told[1:]}" in page  # and it stays on the page


def test_long_trail_is_checked_by_the_worker(
    signed_in: SignedIn, acme: Tenant, operator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(acme)
    sent: list[Any] = []
    monkeypatch.setattr(view, "WALKED_AT_ONCE", 0)
    monkeypatch.setattr(view.app, "send_task", lambda name, arguments, **_: sent.append((name, arguments)))
    client = signed_in(operator)
    answer = client.post(f"{HOME}verify/", follow=True)
    page = answer.content.decode()
    assert "the worker checks it" in page
    part = unescape(re.search(r'data-poll hx-get="(/admin/[^"]+)"', page)[1])  # type: ignore[index] # a part that renews itself
    assert client.get(part).status_code == 204  # nothing new yet
    ((name, arguments),) = sent
    assert name == verify_audit.name
    verify_audit(*arguments)
    found = client.get(part).content.decode()
    assert "Whole up to event 1" in text_of(found)
    assert "data-poll" not in found
    assert 'data-poll hx-get="/admin/' not in client.get(f"{HOME}?checking=0").content.decode()
    assert "Whole up to event 1" in text_of(page_of(signed_in(operator)))
    assert AuditEvent.objects.get(verb=audit.VERIFIED).actor == operator


def test_page_takes_few_queries(signed_in: SignedIn, acme: Tenant, operator: User, django_assert_max_num_queries: Any) -> None:
    for number in range(60):
        record(acme, target=str(number))
    client = signed_in(operator)
    with django_assert_max_num_queries(20):
        page_of(client)


def test_page_is_japanese_where_it_is_asked_to_be(signed_in: SignedIn, operator: User) -> None:
    record(None, "policy.created", target="policy house")
    client = signed_in(operator)
    for path in ("", "1/"):
        page = client.get(HOME + path, headers={"accept-language": "ja"}).content.decode()
        assert '<html lang="ja"' in page
        assert "ポリシー" in page
