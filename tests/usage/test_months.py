"""The ledger's months: there when an event comes, ahead of time, and gone when nobody keeps them."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from django.db import connections

from accounts.models import Tenant
from tests.usage.made import event
from usage import ledger, months
from usage.models import UsageRecord


def month(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}-15T12:00+00:00")


def names(*texts: str) -> list[str]:
    return [f"{months.LEDGER}_{text.replace('-', '_')}" for text in texts]


@pytest.mark.django_db
def test_months_are_made_ahead_over_the_end_of_a_year() -> None:
    months.make_ahead(month("2019-11"))
    months.make_ahead(month("2019-12"))
    assert [name for name in months.partitions() if name < names("2020-06")[0]] == names(
        "2019-11", "2019-12", "2020-01", "2020-02"
    )


@pytest.mark.django_db
def test_months_are_cut_in_utc(acme: Tenant) -> None:
    last = datetime.fromisoformat("2020-02-29T23:59:59.999+00:00")
    ledger.post([event(acme, last), event(acme, datetime.fromisoformat("2020-03-01T00:00+00:00"))])
    assert {"usage_usagerecord_2020_02", "usage_usagerecord_2020_03"} <= set(months.partitions())


@pytest.mark.django_db
def test_only_months_that_are_wholly_past_are_dropped(acme: Tenant) -> None:
    ledger.post([event(acme, month(text)) for text in ("2020-01", "2020-02", "2020-03")])
    assert months.drop_before(datetime(2020, 2, 29, 23, 59, tzinfo=UTC)) == names("2020-01")
    assert months.drop_before(datetime(2020, 3, 1, tzinfo=UTC)) == names("2020-02")
    assert [record.created_at for record in UsageRecord.objects.all()] == [month("2020-03")]


@pytest.mark.django_db(transaction=True)
def test_many_who_need_the_same_month_at_once_get_one() -> None:
    def ensure(_: int) -> None:
        months.ensure([month("2020-07")])
        connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ensure, range(8)))
    assert months.partitions().count("usage_usagerecord_2020_07") == 1
    months.drop_before(month("2020-08"))
