"""The ledger: each event once, whoever posts it how often; nothing in it changes; the rollups hold exactly what it holds."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.db import DataError, IntegrityError, connection, connections, transaction

from accounts.models import Tenant
from tests.usage.made import event
from usage import ledger, months
from usage.events import VERSION
from usage.models import DayRollup, HourRollup, MinuteRollup, UsageRecord

NOON = datetime(2026, 11, 20, 12, 0, 30, tzinfo=UTC)
THREADS = 4


def sums(*names: str) -> dict[str, list[int]]:
    """The same sums of the ledger and of each rollup."""
    return {
        model.__name__: [sum(getattr(row, name) for row in model.objects.all()) for name in names]
        for model in (UsageRecord, MinuteRollup, HourRollup, DayRollup)
    }


@pytest.mark.django_db
def test_every_field_of_an_event_is_kept(acme: Tenant) -> None:
    given = event(
        acme,
        NOON,
        client_request_id="their-id",
        end_user="3f2a",
        metadata={"team": "検索", "tab": "a\tb", "line": "a\nb\r", "path": "C:\\N", "null": "\\N"},
        limits=[{"subject": "key", "name": "ci", "limit": "tokens_per_hour", "used": 1}],
        price={"prompt": 150_000, "cached": 75_000, "completion": 600_000},
        policy=[{"policy": "no-secrets", "version": 2, "rule": "1", "action": "flag", "start": 3}, {"more": 7}],
        reserved_tokens=5000,
        queue_ms=12,
        clamped=True,
        error_code="upstream_timeout",
        outcome="timeout",
        part=1,
    )
    assert ledger.post([given]) == 1
    record = UsageRecord.objects.get()
    told = given.to_dict() | {name: UUID(getattr(given, name)) for name in ("request_id", "tenant_id", "key_id")}
    assert (told.pop("created_s"), told.pop("version")) == (record.created_at.timestamp(), VERSION)
    assert {name: getattr(record, name) for name in told} == told


@pytest.mark.django_db
def test_what_is_not_known_is_empty(acme: Tenant) -> None:
    ledger.post([event(acme, NOON, deployment=None, backend=None, first_token_ms=None, outcome="refused", status=429)])
    record = UsageRecord.objects.get()
    assert (record.deployment, record.backend, record.error_code, record.client_request_id) == ("", "", "", "")
    assert (record.first_token_ms, record.metadata, record.limits, record.price, record.policy) == (None,) * 5


@pytest.mark.django_db
def test_nul_in_what_a_client_sent_does_not_hide_its_usage(acme: Tenant) -> None:
    sly = {"a\0b": "c\0", "backslash": "\\u0000", "both": "\\\0"}
    ledger.post([event(acme, NOON, metadata=sly, client_request_id="x\0y")])
    record = UsageRecord.objects.get()
    assert record.metadata == {"a\ufffdb": "c\ufffd", "backslash": "\\u0000", "both": "\\\ufffd"}
    assert record.client_request_id == "x\ufffdy"


@pytest.mark.django_db
def test_event_delivered_twice_is_posted_once(acme: Tenant) -> None:
    first, second = event(acme, NOON), event(acme, NOON)
    assert ledger.post([first, first]) == 1
    assert ledger.post([second, first]) == 1
    assert ledger.post([second, first]) == 0
    assert set(map(tuple, sums("prompt_tokens", "completion_tokens", "cost_nano").values())) == {(200, 40, 3_000_000)}


@pytest.mark.django_db
def test_correction_adds_tokens_and_no_call(acme: Tenant) -> None:
    lost = event(acme, NOON, outcome="lost", completion_tokens=7)
    ended = replace(lost, part=1, outcome="completed", prompt_tokens=0, cached_tokens=0, completion_tokens=13, cost_nano=9)
    assert ledger.post([ended]) == 1
    assert ledger.post([lost, ended]) == 1
    day = DayRollup.objects.get()
    assert (day.requests, day.errors, day.prompt_tokens, day.completion_tokens) == (1, 1, 100, 20)
    assert sum(day.durations) == 1


@pytest.mark.django_db
def test_calls_are_told_apart_by_how_they_ended(acme: Tenant) -> None:
    ledger.post([
        event(acme, NOON),
        event(acme, NOON, outcome="client_left", status=499),
        event(acme, NOON, outcome="failed", status=502),
        event(acme, NOON, outcome="timeout", status=504),
        event(acme, NOON, outcome="lost", status=500),
        event(acme, NOON, outcome="refused", status=429, error_code="token_quota_exceeded", first_token_ms=None),
        event(acme, NOON, outcome="refused", status=403, error_code="content_blocked", first_token_ms=None),
    ])  # fmt: skip
    rows = list(MinuteRollup.objects.all())
    assert {row.status for row in rows} == {200, 499, 502, 504, 500, 429, 403}
    totals = [sum(getattr(row, name) for row in rows) for name in ("requests", "errors", "refused", "blocked")]
    assert totals == [7, 3, 1, 1]
    assert sum(sum(row.durations) for row in rows) == 5
    assert sum(sum(row.first_tokens) for row in rows) == 5


@pytest.mark.django_db
def test_rollups_are_cut_in_the_tenants_zone(acme: Tenant, globex: Tenant) -> None:
    Tenant.objects.filter(pk=globex.pk).update(time_zone="Asia/Kolkata")
    ledger.post([event(acme, NOON), event(globex, NOON)])
    starts = {model: dict(model.objects.values_list("tenant_id", "starts_at")) for model in (HourRollup, DayRollup)}
    assert starts[HourRollup][acme.pk] == datetime(2026, 11, 20, 12, tzinfo=UTC)
    assert starts[HourRollup][globex.pk] == datetime(2026, 11, 20, 11, 30, tzinfo=UTC)
    assert starts[DayRollup][acme.pk] == datetime(2026, 11, 19, 15, tzinfo=UTC)
    assert starts[DayRollup][globex.pk] == datetime(2026, 11, 19, 18, 30, tzinfo=UTC)


@pytest.mark.django_db
def test_events_of_a_deleted_tenant_are_posted(acme: Tenant) -> None:
    left = event(acme, NOON)
    acme.delete()
    assert ledger.post([left]) == 1
    assert DayRollup.objects.get().starts_at == datetime(2026, 11, 20, tzinfo=UTC)


@pytest.mark.django_db
def test_unforeseen_months_get_their_partition(acme: Tenant) -> None:
    posted = [event(acme, datetime(year, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)) for year in (2024, 2031)]
    assert ledger.post(posted) == 2
    assert {f"{months.LEDGER}_2024_12", f"{months.LEDGER}_2031_12"} <= set(months.partitions())
    assert ledger.post(posted) == 0


@pytest.mark.django_db
@pytest.mark.parametrize("sql", ["UPDATE usage_usagerecord SET cost_nano = 0", "DELETE FROM usage_usagerecord"])
def test_records_are_never_changed_or_deleted(acme: Tenant, sql: str) -> None:
    ledger.post([event(acme, NOON)])
    for table in (months.LEDGER, f"{months.LEDGER}_2026_11"):
        with pytest.raises(IntegrityError, match="never changed or deleted"), transaction.atomic():
            connection.cursor().execute(sql.replace(months.LEDGER, table))
    assert UsageRecord.objects.get().cost_nano == 1_500_000


@pytest.mark.django_db
def test_an_event_that_cannot_be_stored_leaves_nothing_of_its_batch(acme: Tenant) -> None:
    good, bad = event(acme, NOON), event(acme, NOON, prompt_tokens="many")
    with pytest.raises(DataError), transaction.atomic():
        ledger.post([good, bad])
    assert not UsageRecord.objects.exists()
    assert not MinuteRollup.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_rivals_who_post_the_same_events_post_each_once(acme: Tenant, globex: Tenant) -> None:
    dice = random.Random(3)
    events = [
        event(
            dice.choice((acme, globex)),
            NOON + timedelta(seconds=dice.randrange(7200)),
            alias=dice.choice(("general", "code", "small")),
            prompt_tokens=dice.randrange(4000),
            status=dice.choice((200, 499)),
        )
        for _ in range(2000)
    ]

    def post_all(seed: int) -> int:
        """In an order and in batches of one's own."""
        own = random.Random(seed)
        mine, posted = own.sample(events, len(events)), 0
        while mine:
            size = own.randrange(1, 400)
            posted += ledger.post(mine[:size])
            mine = mine[size:]
        connections.close_all()
        return posted

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(post_all, range(THREADS))) == len(events)
    assert UsageRecord.objects.count() == len(events)
    totals = sums("prompt_tokens", "completion_tokens", "cost_nano")
    expected = [sum(getattr(e, name) for e in events) for name in ("prompt_tokens", "completion_tokens", "cost_nano")]
    assert set(map(tuple, totals.values())) == {tuple(expected)}
    assert sum(row.requests for row in HourRollup.objects.all()) == len(events)
