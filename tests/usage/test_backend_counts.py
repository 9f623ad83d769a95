"""What backends count: differences of rising counters, in their hours, past restarts and gaps."""

from datetime import UTC, datetime, timedelta

import pytest

from accounts.models import Tenant
from tests.usage.made import event
from usage import ledger
from usage.backend_counts import Reading, compared, note
from usage.models import BackendHour

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
STARTED_S = NOON.timestamp() - 86_400


def read(minutes: float, prompt: int, completion: int = 0, *, started_s: float | None = STARTED_S) -> None:
    note("gpu-1", Reading(prompt, completion, 0, started_s), NOON + timedelta(minutes=minutes))


def hours() -> list[tuple[int, int, int, int]]:
    rows = BackendHour.objects.order_by("starts_at")
    return [(row.starts_at.hour, row.prompt_tokens, row.covered_s, row.resets) for row in rows]


def test_first_reading_counts_nothing_and_each_next_one_what_came_since() -> None:
    read(0, 1000)
    assert hours() == []
    read(1, 1100, 7)
    read(2, 1250, 9)
    assert hours() == [(12, 250, 120, 0)]
    assert BackendHour.objects.get().completion_tokens == 9


def test_what_came_over_an_edge_is_shared_out_and_adds_up() -> None:
    read(45, 0)
    read(75, 1001)
    assert hours() == [(12, 500, 900, 0), (13, 501, 900, 0)]
    read(75 + 120, 2001)
    assert sum(prompt for _hour, prompt, *_ in hours()) == 2001
    assert sum(covered for _hour, _prompt, covered, _resets in hours()) == 150 * 60


@pytest.mark.parametrize(("started", "covered"), [(True, 30), (False, 60)])
def test_process_that_began_anew_counts_from_nothing(started: bool, covered: int) -> None:
    """Also where its counter is already beyond the old one's; where it does not tell its start, a fall of the counter does."""
    read(0, 500, started_s=STARTED_S if started else None)
    began_s = NOON.timestamp() + 30
    read(1, 900 if started else 200, started_s=began_s if started else None)
    assert hours() == [(12, 900 if started else 200, covered, 1)]
    read(2, 1000, started_s=began_s if started else None)
    assert hours()[0][1] == 1000


def test_reading_that_is_late_or_told_twice_changes_nothing() -> None:
    read(0, 100)
    read(1, 200)
    read(1, 200)
    read(0.5, 150)
    assert hours() == [(12, 100, 60, 0)]


def test_week_without_readings_is_no_hours_use() -> None:
    read(0, 100)
    read(8 * 24 * 60, 9_000_000)
    assert hours() == []
    read(8 * 24 * 60 + 1, 9_000_100)
    assert [row[1] for row in hours()] == [100]


def test_ledger_and_readings_stand_beside_each_other(acme: Tenant, globex: Tenant) -> None:
    Tenant.objects.filter(pk=globex.pk).update(time_zone="Asia/Kolkata")
    ledger.post([
        event(acme, NOON), event(globex, NOON + timedelta(minutes=35)), event(globex, NOON + timedelta(minutes=5)),
        event(acme, NOON + timedelta(minutes=61), outcome="client_left", status=499),
        event(acme, NOON, backend="gpu-2"), event(acme, NOON, backend=None, outcome="refused", status=429),
        event(acme, NOON - timedelta(hours=1)),
    ])  # fmt: skip
    read(0, 0)
    read(30, 300, 60)
    found = compared(NOON, NOON + timedelta(hours=2))
    assert set(found) == {"gpu-1", "gpu-2"}  # globex's first call is of an hour that began at half past eleven
    total = found["gpu-1"].total
    assert (total.ledger_prompt, total.own_prompt, total.own_completion) == (300, 300, 60)
    assert (total.left_tokens, total.covered_s) == (120, 1800)
    assert found["gpu-2"].total.own_prompt == 0
    assert sum(hour.ledger_prompt for hour in found["gpu-1"].hours.values()) == 300
