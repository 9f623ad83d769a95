"""The audit trail: whole when written by record(), broken by any other hand, and closed to that hand by the database."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.db.transaction import TransactionManagementError
from django.utils import timezone
from uuid_utils.compat import uuid7

from accounts import audit, keys
from accounts.models import AuditEvent, Tenant, User

pytestmark = pytest.mark.django_db
THREADS, EVENTS_EACH = 8, 50


def record(target: str = "something", **content: object) -> AuditEvent:
    return audit.record(verb="test.done", target=target, actor=None, actor_label="test", **content)  # type: ignore[arg-type]


@contextmanager
def tampering() -> Iterator[None]:
    """As one who owns the database would: past the trigger."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # a table with checks outstanding cannot be altered
        cursor.execute("ALTER TABLE accounts_auditevent DISABLE TRIGGER accounts_auditevent_keep")
        yield
        cursor.execute("ALTER TABLE accounts_auditevent ENABLE TRIGGER accounts_auditevent_keep")


def test_empty_chain_is_whole() -> None:
    assert audit.verify() is None


def test_recorded_chain_is_whole_and_numbered_from_one(acme: Tenant, acme_admin: User) -> None:
    events = [
        record(),
        audit.record(verb="a", target="b", actor=acme_admin, tenant=acme, address="2001:DB8::1", request_id="r"),
        audit.record(verb="a", target="b", actor=acme_admin, before={"a": 1}, after={"a": 2}, address="::ffff:192.0.2.1"),
    ]
    assert [event.sequence for event in events] == [1, 2, 3]
    assert len({event.digest for event in events}) == 3
    assert audit.verify() is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        [],
        0,
        -0.0,
        1.10,
        1e22,
        1e-9,
        float("inf"),
        float("nan"),
        10**40,
        True,
        '関所 \u2028 \U0001f6c3 \\ "quoted" </script>',
        {"b": 1, "a": {"2": [], "10": {"é": None}}, "": 0, "B": [1, [2.50]]},
        {1: "number as name"},
        {"at": datetime(2027, 1, 31, 12, 0, 0, 123456, tzinfo=UTC), "price": Decimal("1.50"), "id": uuid7()},
    ],
)
def test_whatever_json_holds_comes_back_verified(value: object) -> None:
    record(before=value, after={"nested": value})
    assert audit.verify() is None


def test_what_is_recorded_reads_back_the_same(acme: Tenant, acme_admin: User) -> None:
    made = audit.record(verb="a", target="b", actor=acme_admin, tenant=acme, before={"n": 1}, after=["x", None], request_id="r")
    read = AuditEvent.objects.get()
    fields = [f.attname for f in AuditEvent._meta.concrete_fields]
    assert [getattr(read, name) for name in fields] == [getattr(made, name) for name in fields]


@pytest.mark.parametrize(
    "change",
    [
        {"verb": "other"},
        {"target": "other"},
        {"actor_label": "other"},
        {"tenant_slug": "other"},
        {"before": {"a": 0}},
        {"after": None},
        {"address": None},
        {"request_id": "other"},
        {"created_at": timezone.now()},
        {"digest": "0" * 64},
    ],
)
def test_changed_column_breaks_the_chain_there(acme: Tenant, change: dict[str, object]) -> None:
    for number in range(5):
        record(str(number), tenant=acme, before={"a": 1}, after={"a": 2}, address="192.0.2.1", request_id="r")
    with tampering():
        AuditEvent.objects.filter(sequence=3).update(**change)
    assert audit.verify() == 3


@pytest.mark.parametrize("sequence", [1, 3])
def test_removed_event_breaks_the_chain_there(sequence: int) -> None:
    for number in range(5):
        record(str(number))
    with tampering():
        AuditEvent.objects.filter(sequence=sequence).delete()
    assert audit.verify() == sequence


def test_removed_and_renumbered_events_break_the_chain() -> None:
    for number in range(5):
        record(str(number))
    with tampering():
        AuditEvent.objects.filter(sequence=3).delete()
        for sequence in (4, 5):
            AuditEvent.objects.filter(sequence=sequence).update(sequence=F("sequence") - 1)
    assert audit.verify() == 3


def test_reordered_events_break_the_chain_at_the_first() -> None:
    for number in range(5):
        record(str(number))
    with tampering():
        for old, new in ((2, 99), (4, 2), (99, 4)):
            AuditEvent.objects.filter(sequence=old).update(sequence=new)
    assert audit.verify() == 2


def test_forged_event_breaks_the_chain() -> None:
    record()
    AuditEvent.objects.create(
        sequence=2, created_at=timezone.now(), actor_label="forger", verb="a", target="b", digest="0" * 64
    )
    assert audit.verify() == 2


def test_database_refuses_to_change_an_event() -> None:
    record()
    with pytest.raises(IntegrityError, match="never changed"), transaction.atomic():
        AuditEvent.objects.update(target="other")
    with pytest.raises(IntegrityError, match="never changed"), transaction.atomic():
        AuditEvent.objects.update(sequence=7)


def test_database_refuses_to_delete_an_event() -> None:
    event = record()
    with pytest.raises(IntegrityError, match="never changed"), transaction.atomic():
        event.delete()
    assert AuditEvent.objects.count() == 1


def test_database_refuses_to_put_an_event_on_somebody_else(acme: Tenant, acme_admin: User, operator: User) -> None:
    audit.record(verb="a", target="b", actor=acme_admin, tenant=acme)
    with pytest.raises(IntegrityError, match="never changed"), transaction.atomic():
        AuditEvent.objects.update(actor=operator)
    with pytest.raises(IntegrityError, match="never changed"), transaction.atomic():
        AuditEvent.objects.update(actor=None, verb="other")


def test_deleted_user_and_tenant_leave_their_labels_and_a_whole_chain(acme: Tenant, acme_admin: User) -> None:
    audit.record(verb="a", target="b", actor=acme_admin, tenant=acme)
    acme_admin.delete()
    acme.delete()
    event = AuditEvent.objects.get()
    assert (event.actor_id, event.tenant_id) == (None, None)
    assert (event.actor_label, event.tenant_slug) == ("admin@acme.example", "acme")
    assert audit.verify() is None


def test_event_needs_somebody() -> None:
    with pytest.raises(ValueError, match="actor"):
        audit.record(verb="a", target="b", actor=None)


@pytest.mark.parametrize("name", ["secret", "client_secret", "text", "key_text", "Password", "credential", "credentials"])
@pytest.mark.parametrize("value", ["hunter2", 7, ["a"], {"user": "a"}])
def test_unmasked_secret_is_refused_and_not_said_back(name: str, value: object) -> None:
    for content in ({name: value}, {"list": [{"deep": {name: value}}]}):
        with pytest.raises(ValueError, match=name) as caught:
            record(after=content)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [{"secret": audit.MASK}, {"password": None}, {"credential": ""}, {"has_secret": True}, {"context_length": 4096}]
)
def test_masked_secret_and_harmless_names_are_recorded(content: dict[str, object]) -> None:
    assert record(before=content).before == content


def test_key_text_is_refused_wherever_it_stands() -> None:
    text = keys.mint()
    contents: list[dict[str, object]] = [{"after": {"note": f"see {text}"}}, {"before": ["a", [text]]}, {"target": text}]
    for content in contents:
        with pytest.raises(ValueError, match="holds an API key") as caught:
            record(**content)  # type: ignore[arg-type]
        assert text not in str(caught.value)


@pytest.mark.django_db(transaction=True)
def test_event_outside_a_transaction_is_refused() -> None:
    with pytest.raises(TransactionManagementError):
        record()


@pytest.mark.django_db(transaction=True)
def test_rolled_back_event_leaves_no_gap() -> None:
    with transaction.atomic():
        record()
    with transaction.atomic():
        record()
        transaction.set_rollback(True)
    with transaction.atomic():
        record()
    assert list(AuditEvent.objects.values_list("sequence", flat=True)) == [2, 1]
    assert audit.verify() is None


@pytest.mark.django_db(transaction=True)
def test_writers_at_once_leave_a_whole_chain_without_gaps() -> None:
    def write(writer: int) -> None:
        try:
            for number in range(EVENTS_EACH):
                with transaction.atomic():
                    record(f"{writer} {number}")
        finally:
            connection.close()

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(write, range(THREADS)))
    sequences = list(AuditEvent.objects.order_by("sequence").values_list("sequence", flat=True))
    assert sequences == list(range(1, THREADS * EVENTS_EACH + 1))
    assert AuditEvent.objects.values("target").distinct().count() == THREADS * EVENTS_EACH
    assert audit.verify() is None
