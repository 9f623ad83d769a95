"""Totals of all keys, and of each key: at any moment the sums of those that tell both apart, to the last call."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.models import Tenant
from tests.usage.made import KEY_ID, OTHER_KEY_ID, event
from usage import ledger, retention, rollups
from usage.models import DayAllKeys, HourAllKeys, MinuteAllKeys
from usage.reports import usage_report
from usage.totals import AMOUNTS, HISTOGRAMS

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
KEYS = (KEY_ID, OTHER_KEY_ID, "0198c0de-0000-7000-8000-00000000000c")
ZONES = ("Asia/Tokyo", "Asia/Kolkata", "Australia/Lord_Howe", "America/New_York", "UTC", "Mars/Olympus")
# Around the end of summer time in New York: days of 25 hours.
FIRST = datetime(2026, 10, 30, 12, tzinfo=UTC)
MOMENTS = st.integers(0, 4 * 86400).map(lambda at_s: FIRST + timedelta(seconds=at_s))
ENDED = st.sampled_from([
    ("completed", None, 200), ("failed", "upstream_timeout", 504), ("lost", None, 200),
    ("refused", "rate_limited", 429), ("refused", "content_blocked", 403), ("client_left", "client_left", 499),
])  # fmt: skip
CALLS = st.lists(
    st.tuples(MOMENTS, ENDED, st.fixed_dictionaries({
        "alias": st.sampled_from(["a", "b"]),
        "backend": st.sampled_from(["gpu-1", "gpu-2", None]),
        "key_id": st.sampled_from(KEYS),
        "stream": st.booleans(),
        "part": st.sampled_from([0, 0, 0, 1]),
        "duration_ms": st.integers(0, 200_000),
        "first_token_ms": st.none() | st.integers(0, 20_000),
        "prompt_tokens": st.integers(0, 5000),
    })),
    max_size=30,
)  # fmt: skip


def rows(table: str, key: Sequence[str], figures: Sequence[str], *, of_each: bool) -> list[tuple[Any, ...]]:
    """All of them; those of_each, which tell keys and all else apart, added up by PostgreSQL."""
    sums = [rollups.summed(name) if name in HISTOGRAMS else f"sum({name})::bigint" for name in figures]
    named = ", ".join(key)
    query = f"SELECT {named}, {', '.join(sums if of_each else figures)} FROM {table}"  # noqa: S608 - own names
    with connection.cursor() as cursor:
        cursor.execute(f"{query} {f'GROUP BY {named}' if of_each else ''} ORDER BY {named}")
        return cursor.fetchall()


def assert_equal_to_those_of_each_key() -> None:
    compared: list[tuple[str, str, Sequence[str], Sequence[str]]] = [
        (rollups.ALL_KEYS[span], rollups.TABLES[span], rollups.KEY_OF_ALL, (*AMOUNTS, *HISTOGRAMS)) for span in rollups.SPANS
    ]
    compared.append((rollups.DAY_KEYS, rollups.TABLES["day"], rollups.KEY_OF_DAY_KEYS, AMOUNTS))
    for table, source, key, figures in compared:
        assert rows(table, key, figures, of_each=False) == rows(source, key, figures, of_each=True), table


@pytest.mark.parametrize("zone", ZONES)
@given(first=CALLS, later=CALLS, moved_to=st.sampled_from(ZONES))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_they_are_the_sums_of_those_of_each_key(zone: str, first: list[Any], later: list[Any], moved_to: str) -> None:
    """Posted at once and late, cut anew in another zone, and without what is taken away or past its time."""
    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT before")
    tenants = [Tenant.objects.create(slug=f"made-{n}", name="Made", time_zone=zone) for n in range(2)]
    try:
        for calls in (first, later):
            ledger.post([
                event(tenants[place % 2], at, status=status, outcome=outcome, error_code=code, **call)
                for place, (at, (outcome, code, status), call) in enumerate(calls)
            ])  # fmt: skip
            assert_equal_to_those_of_each_key()
        Tenant.objects.filter(pk=tenants[0].pk).update(time_zone=moved_to)
        rollups.realign()
        assert_equal_to_those_of_each_key()
        retention.forget(str(tenants[0].pk), [KEY_ID])
        assert_equal_to_those_of_each_key()
        tenants[1].delete()
        retention.enforce(FIRST + timedelta(days=402))
        assert_equal_to_those_of_each_key()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ROLLBACK TO SAVEPOINT before")


def test_many_keys_have_one_row_together(acme: Tenant) -> None:
    ledger.post([event(acme, NOON, key_id=f"0198c0de-0000-7000-8000-{n:012}", duration_ms=0) for n in range(50)])
    for model in (MinuteAllKeys, HourAllKeys, DayAllKeys):
        assert model.objects.get().requests == 50


def test_what_is_posted_again_is_counted_once(acme: Tenant) -> None:
    once = event(acme, NOON)
    assert [ledger.post([once]), ledger.post([once])] == [1, 0]
    assert_equal_to_those_of_each_key()
    assert DayAllKeys.objects.get().requests == 1


def test_rows_are_updated_in_place(acme: Tenant) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT reloptions FROM pg_class WHERE relname = ANY(%s)", [[*rollups.ALL_KEYS.values(), rollups.DAY_KEYS]]
        )
        assert {options[0] for (options,) in cursor.fetchall()} == {"fillfactor=60"}


def test_reports_without_keys_and_by_key_agree(acme: Tenant) -> None:
    ledger.post([event(acme, NOON, key_id=key, alias=alias) for key in KEYS for alias in ("a", "b")])
    when = {"start": NOON - timedelta(days=1), "end": NOON + timedelta(days=1)}
    for bucket in rollups.SPANS:
        if bucket == "minute":
            when = {"start": NOON - timedelta(hours=1), "end": NOON + timedelta(hours=1)}
        of_all = usage_report(acme, **when, bucket=bucket, group_by=("alias",))
        by_key = usage_report(acme, **when, bucket=bucket, group_by=("alias", "key"))
        assert of_all["total"] == by_key["total"]
        assert {row["alias"]: row["requests"] for row in of_all["data"]} == {"a": 3, "b": 3}
