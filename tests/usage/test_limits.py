"""Limits that cannot be counted are refused; periods are the calendar's, on the clocks of the zone."""

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from usage.limits import MAX, NAMES, BoundLimit, Limit, bind, period, period_start_s

TOKYO, NEW_YORK, HAVANA, CAIRO = "Asia/Tokyo", "America/New_York", "America/Havana", "Africa/Cairo"
ZONES = (TOKYO, NEW_YORK, HAVANA, CAIRO, "Asia/Kathmandu", "Pacific/Apia", "Australia/Lord_Howe", "UTC")


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize("name", NAMES)
def test_the_largest_maximum_is_what_lua_counts_exactly(name: str) -> None:
    assert Limit(name, MAX).max == 2**53 - 1
    with pytest.raises(ValueError, match="maximum"):
        Limit(name, MAX + 1)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"name": "tokens_per_year", "max": 1}, "no limit"),
        ({"name": "tokens_per_day", "max": -1}, "maximum"),
        ({"name": "tokens_per_day", "max": 1, "mode": "warn"}, "enforce or shadow"),
        ({"name": "requests_per_minute", "max": 1, "clamps": True}, "shorter output"),
        ({"name": "concurrent_requests", "max": 1, "clamps": True}, "shorter output"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(values: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Limit(**values)  # type: ignore[arg-type] # that is the test


@dataclass
class Someone:
    id: str
    name: str
    limits: tuple[Limit, ...]


def test_a_call_must_keep_the_limits_of_its_key_its_alias_and_its_tenant() -> None:
    hour, day = Limit("tokens_per_hour", 1), Limit("tokens_per_day", 2)
    tenant, key, alias = Someone("t1", "Acme", (day,)), Someone("k1", "ci", (hour, day)), Someone("-", "org/chat", (hour,))
    assert bind(tenant, key, alias) == (
        BoundLimit("key", "k1", hour),
        BoundLimit("key", "k1", day),
        BoundLimit("alias", "org/chat", hour),
        BoundLimit("tenant", "t1", day),
    )


@pytest.mark.parametrize(
    ("name", "zone", "moment", "period_id", "start", "end"),
    [
        # The last second of the year in Tokyo, and the first of the next.
        ("tokens_per_month", TOKYO, "2026-12-31T14:59:59Z", "2026-12", "2026-11-30T15:00Z", "2026-12-31T15:00Z"),
        ("tokens_per_month", TOKYO, "2026-12-31T15:00:00Z", "2027-01", "2026-12-31T15:00Z", "2027-01-31T15:00Z"),
        ("tokens_per_day", TOKYO, "2026-12-31T14:59:59.999Z", "2026-12-31", "2026-12-30T15:00Z", "2026-12-31T15:00Z"),
        ("money_per_month", TOKYO, "2028-02-29T12:00Z", "2028-02", "2028-01-31T15:00Z", "2028-02-29T15:00Z"),
        # New York springs forward on 2026-03-08 (a day of 23 h) and falls back on 2026-11-01 (25 h).
        ("tokens_per_day", NEW_YORK, "2026-03-08T12:00Z", "2026-03-08", "2026-03-08T05:00Z", "2026-03-09T04:00Z"),
        ("tokens_per_day", NEW_YORK, "2026-11-01T12:00Z", "2026-11-01", "2026-11-01T04:00Z", "2026-11-02T05:00Z"),
        ("tokens_per_month", NEW_YORK, "2026-03-31T12:00Z", "2026-03", "2026-03-01T05:00Z", "2026-04-01T04:00Z"),
        ("tokens_per_month", NEW_YORK, "2026-12-01T04:59:59Z", "2026-11", "2026-11-01T04:00Z", "2026-12-01T05:00Z"),
        # In Cairo 2026-04-24 begins at 01:00; in Havana the first hour of 2026-11-01 comes twice.
        ("tokens_per_day", CAIRO, "2026-04-24T12:00Z", "2026-04-24", "2026-04-23T22:00Z", "2026-04-24T21:00Z"),
        ("tokens_per_day", HAVANA, "2026-11-01T05:30Z", "2026-11-01", "2026-11-01T04:00Z", "2026-11-02T05:00Z"),
    ],
)
def test_periods_are_the_calendars(name: str, zone: str, moment: str, period_id: str, start: str, end: str) -> None:
    assert period(name, at(moment), zone) == (period_id, at(end))
    assert period_start_s(name, at(moment), zone) == at(start)


@given(
    name=st.sampled_from(["tokens_per_day", "tokens_per_month"]),
    zone=st.sampled_from(ZONES),
    now_s=st.floats(at("2000-01-01T00:00Z"), at("2100-01-01T00:00Z")),
)
@example("tokens_per_day", "Pacific/Apia", at("2011-12-30T09:59:59Z"))  # Samoa had no 30th
@example("tokens_per_day", "Pacific/Apia", at("2011-12-30T10:00:00Z"))
def test_periods_follow_each_other_without_a_gap(name: str, zone: str, now_s: float) -> None:
    period_id, ends_s = period(name, now_s, zone)
    assert period_start_s(name, now_s, zone) <= now_s < ends_s
    assert datetime.fromtimestamp(int(now_s), ZoneInfo(zone)).date().isoformat().startswith(period_id)
    after_id, _ = period(name, ends_s, zone)
    assert after_id > period_id
    assert period_start_s(name, ends_s, zone) == ends_s
    assert period(name, period_start_s(name, now_s, zone) - 0.001, zone)[0] < period_id


def test_a_window_has_no_period() -> None:
    with pytest.raises(ValueError, match="no period"):
        period("tokens_per_hour", 0.0, TOKYO)
