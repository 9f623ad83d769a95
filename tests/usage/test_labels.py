"""Totals by end user and tag: bounded, whatever clients make up, and never short of a call."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db.models import Sum

from accounts.models import Tenant
from tests.usage.made import OTHER_KEY_ID, event
from usage import labels, ledger, retention, rollups
from usage.models import DayLabel, HourLabel
from usage.totals import SUMS

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def rows(model: Any = HourLabel, **of: Any) -> dict[tuple[str, str], int]:
    return {(row.kind, row.label): row.requests for row in model.objects.filter(**of)}


def test_each_label_of_a_call_counts_and_calls_without_any_leave_no_row(acme: Tenant) -> None:
    ledger.post([
        event(acme, NOON), event(acme, NOON, end_user="u1", metadata={"team": "a", "run": "7"}),
        event(acme, NOON, metadata={"team": "a"}), event(acme, NOON, end_user="u1", part=1),
    ])  # fmt: skip
    for model in (HourLabel, DayLabel):
        assert rows(model) == {("end_user", "u1"): 1, ("tag", "team=a"): 2, ("tag", "run=7"): 1}
        assert model.objects.get(kind="end_user").prompt_tokens == 200  # that of the correction too


def test_labels_beyond_the_bound_are_one_together(acme: Tenant, globex: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "MOST", {"hour": 3, "day": 5})
    for batch in range(3):
        ledger.post([event(acme, NOON, end_user=f"u{batch}{n}") for n in range(4)])
    ledger.post([event(acme, NOON, end_user="u00"), event(acme, NOON + timedelta(hours=1), end_user="late")])
    ledger.post([event(globex, NOON, end_user="u99")])
    assert rows(tenant_id=acme.pk, starts_at=NOON) == {
        ("end_user", "u00"): 2, ("end_user", "u01"): 1, ("end_user", "u02"): 1, ("end_user", ""): 9,
    }  # fmt: skip
    day = rows(DayLabel, tenant_id=acme.pk)
    assert len(day) == 6
    assert sum(day.values()) == 14
    assert rows(tenant_id=globex.pk) == {("end_user", "u99"): 1}


def test_the_most_frequent_of_one_batch_get_the_places(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "MOST", {"hour": 1, "day": 1})
    ledger.post([event(acme, NOON, end_user=user) for user in ("a", "b", "b", "c")])
    assert rows() == {("end_user", "b"): 2, ("end_user", ""): 2}


def test_overlong_and_odd_labels_do_no_harm(acme: Tenant) -> None:
    odd = {"a\tb": "\\N", "x": "日本\n", "long": "x" * 300}
    ledger.post([event(acme, NOON, metadata=odd)])
    assert set(rows()) == {("tag", "a\tb=\\N"), ("tag", "x=日本\n"), ("tag", "")}


def test_days_follow_a_tenant_to_its_new_zone(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.post([event(acme, NOON + timedelta(hours=hours), end_user=f"u{hours}") for hours in range(6)])
    assert DayLabel.objects.values("starts_at").distinct().count() == 2
    Tenant.objects.filter(pk=acme.pk).update(time_zone="UTC")
    monkeypatch.setattr(labels, "MOST", {"hour": 200, "day": 4})
    rollups.realign()
    assert DayLabel.objects.values("starts_at").distinct().count() == 1
    assert rows(DayLabel) == {**{("end_user", f"u{n}"): 1 for n in range(4)}, ("end_user", ""): 2}


def test_made_up_use_is_taken_out_again(acme: Tenant) -> None:
    Tenant.objects.filter(pk=acme.pk).update(time_zone="Asia/Kolkata")
    kept = [event(acme, NOON, end_user="u1"), event(acme, NOON + timedelta(minutes=40), metadata={"team": "a"})]
    ledger.post(kept)
    before = [list(model.objects.order_by("starts_at", "label").values()) for model in (HourLabel, DayLabel)]
    ledger.post([
        event(acme, NOON + timedelta(minutes=late), key_id=OTHER_KEY_ID, end_user=user, metadata={"team": "a"}, outcome=outcome)
        for late, user, outcome in ((0, "u1", "failed"), (40, "made-up", "completed"), (90, "u1", "refused"))
    ])  # fmt: skip
    assert retention.forget(str(acme.pk), [OTHER_KEY_ID]) == 3
    assert [list(model.objects.order_by("starts_at", "label").values()) for model in (HourLabel, DayLabel)] == before


def test_labels_past_their_time_are_removed(acme: Tenant) -> None:
    ledger.post([event(acme, NOON, end_user="u1"), event(acme, NOON - timedelta(days=900), end_user="u1")])
    retention.enforce(NOON + timedelta(days=1))
    for model in (HourLabel, DayLabel):
        assert [row.starts_at.year for row in model.objects.all()] == [2026]
        assert model.objects.aggregate(*(Sum(name) for name in SUMS))["requests__sum"] == 1
