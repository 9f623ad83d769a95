"""Totals of an older release are taken along to the present one, and back again without a loss."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from accounts.models import Tenant
from tests.usage.made import KEY_ID, OTHER_KEY_ID, event
from tests.usage.test_all_keys import assert_equal_to_those_of_each_key
from usage import histograms, ledger
from usage.models import DayLabel, DayRollup, HourLabel, HourRollup, MinuteRollup, UsageRecord
from usage.totals import SUMS

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
MODELS = (MinuteRollup, HourRollup, DayRollup)
LATEST: list[tuple[str, str]] = []


def migrate(name: str) -> None:
    MigrationExecutor(connection).migrate([("usage", name)])


@pytest.fixture(autouse=True)
def last() -> Iterator[str]:
    """All of it happens in the test's transaction, which is rolled back: no other test sees another schema."""
    nodes = MigrationExecutor(connection).loader.graph.leaf_nodes("usage")
    yield nodes[0][1]
    MigrationExecutor(connection).migrate(nodes)


def sums(table: str) -> tuple[Any, ...]:
    columns = [f"sum({name})::bigint" for name in SUMS]
    for name in ("durations", "first_tokens"):
        columns += [f"sum({name}[{n}])::bigint" for n in range(1, histograms.SIZE + 1)]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*), {', '.join(columns)} FROM usage_{table}rollup WHERE requests > 0")  # noqa: S608
        return tuple(cursor.fetchone() or ())


def use(tenant: Tenant) -> None:
    ledger.post([
        event(tenant, NOON),
        event(tenant, NOON, stream=False, first_token_ms=None, duration_ms=90_000),
        event(tenant, NOON, outcome="client_left", error_code="client_left", end_user="u1"),
        event(tenant, NOON, outcome="failed", error_code="upstream_timeout", metadata={"team": "a", "run": "7"}),
        event(tenant, NOON + timedelta(hours=2), outcome="refused", error_code="content_blocked", metadata={"team": "a"}),
        event(tenant, NOON, key_id=OTHER_KEY_ID, part=1, prompt_tokens=5),
    ])  # fmt: skip


def test_back_to_the_first_release_and_forward_again_loses_no_call(acme: Tenant, last: str) -> None:
    use(acme)
    before = {span: sums(span) for span in ("minute", "hour", "day")}
    calls = UsageRecord.objects.count()
    migrate("0002_policy_decisions")
    for span, (rows, *figures) in before.items():
        merged_rows, *merged = sums(span)
        assert merged == figures
        assert merged_rows < rows  # those that differed in their ending or their answer alone
    migrate(last)
    for span, (_rows, *figures) in before.items():
        assert list(sums(span)[1:]) == figures
    assert UsageRecord.objects.count() == calls
    assert_equal_to_those_of_each_key()


def test_rows_of_before_are_told_apart_where_that_is_sure(acme: Tenant, last: str) -> None:
    migrate("0004_reconciliations")
    zeros = [0] * histograms.SIZE

    def histogram(value_ms: int, count: int) -> list[int]:
        return [count if n == histograms.bucket(value_ms) else 0 for n in range(histograms.SIZE)]

    with connection.cursor() as cursor:
        for alias, first_tokens in (("streamed", histogram(40, 2)), ("whole", zeros), ("both", histogram(40, 1))):
            for span in ("minute", "hour", "day"):
                cursor.execute(
                    f"INSERT INTO usage_{span}rollup (tenant_id, starts_at, key_id, alias, backend, status, ending, "  # noqa: S608
                    f"{', '.join(SUMS)}, durations, first_tokens) VALUES (%s, %s, %s, %s, 'gpu-1', 200, 'completed', "
                    "2, 0, 0, 0, 200, 0, 40, 7, %s, %s)",
                    [acme.pk, NOON, KEY_ID, alias, histogram(1500, 2), first_tokens],
                )
    migrate(last)
    for model in MODELS:
        rows = {row.alias: row for row in model.objects.all()}
        assert {alias: row.stream for alias, row in rows.items()} == {"streamed": "yes", "whole": "", "both": ""}
        assert all(row.busy_ms == 2 * 1300 for row in rows.values())  # the middle of 1,000 to 1,600
    ledger.post([event(acme, NOON, alias="both", request_id="0198c0de-0000-7000-8000-0000000000ff")])
    assert sorted(DayRollup.objects.filter(alias="both").values_list("stream", "requests")) == [("", 2), ("yes", 1)]


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "Asia/Kolkata", "America/New_York", "Mars/Olympus"])
def test_labels_are_summed_from_the_ledger(acme: Tenant, last: str, zone: str) -> None:
    Tenant.objects.filter(pk=acme.pk).update(time_zone=zone)
    use(acme)
    ledger.post([event(acme, datetime(2026, 11, 1, 5, 30, tzinfo=UTC) + timedelta(hours=n), end_user="u2") for n in range(4)])
    before = [list(model.objects.order_by("starts_at", "kind", "label").values()) for model in (HourLabel, DayLabel)]
    assert before[0]
    migrate("0004_reconciliations")
    migrate(last)
    assert [list(model.objects.order_by("starts_at", "kind", "label").values()) for model in (HourLabel, DayLabel)] == before
