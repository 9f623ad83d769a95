"""Minutes, hours, days and months on the clock of any zone: they follow one another without gap, whatever the clock does."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage.spans import SPANS, Span, at, edges_s, floor_s, next_s

TOKYO, NEW_YORK, KOLKATA = ZoneInfo("Asia/Tokyo"), ZoneInfo("America/New_York"), ZoneInfo("Asia/Kolkata")
SINCE_1975_S = 157_766_400


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


@pytest.mark.parametrize(
    ("span", "zone", "moment", "start", "end"),
    [
        ("day", TOKYO, "2026-11-21T08:30+09:00", "2026-11-21T00:00+09:00", "2026-11-22T00:00+09:00"),
        ("day", TOKYO, "2026-11-21T00:00+09:00", "2026-11-21T00:00+09:00", "2026-11-22T00:00+09:00"),
        ("day", TOKYO, "2026-11-20T23:59:59+09:00", "2026-11-20T00:00+09:00", "2026-11-21T00:00+09:00"),
        ("month", TOKYO, "2026-12-31T23:59+09:00", "2026-12-01T00:00+09:00", "2027-01-01T00:00+09:00"),
        ("day", NEW_YORK, "2026-03-08T12:00-04:00", "2026-03-08T00:00-05:00", "2026-03-09T00:00-04:00"),
        ("day", NEW_YORK, "2026-11-01T12:00-05:00", "2026-11-01T00:00-04:00", "2026-11-02T00:00-05:00"),
        ("month", NEW_YORK, "2026-03-31T12:00-04:00", "2026-03-01T00:00-05:00", "2026-04-01T00:00-04:00"),
        ("hour", NEW_YORK, "2026-11-01T01:30-04:00", "2026-11-01T01:00-04:00", "2026-11-01T01:00-05:00"),
        ("hour", KOLKATA, "2026-11-21T08:40+05:30", "2026-11-21T08:00+05:30", "2026-11-21T09:00+05:30"),
        ("hour", ZoneInfo("Asia/Kathmandu"), "2026-11-21T08:40+05:45", "2026-11-21T08:00+05:45", "2026-11-21T09:00+05:45"),
        ("minute", KOLKATA, "2026-11-21T08:40:59+05:30", "2026-11-21T08:40+05:30", "2026-11-21T08:41+05:30"),
        # Cairo's summer time begins at midnight: that day begins at 01:00.
        ("day", ZoneInfo("Africa/Cairo"), "2026-04-24T12:00+03:00", "2026-04-24T01:00+03:00", "2026-04-25T00:00+03:00"),
        # Lord Howe shifts by half an hour, and so do its hours.
        ("hour", ZoneInfo("Australia/Lord_Howe"), "2026-10-04T02:40+11:00", "2026-10-04T02:00+11:00", "2026-10-04T03:00+11:00"),
    ],
)
def test_spans_are_those_of_the_clock_on_the_wall(span: Span, zone: ZoneInfo, moment: str, start: str, end: str) -> None:
    assert floor_s(span, seconds(moment), zone) == seconds(start)
    assert next_s(span, seconds(start), zone) == seconds(end)


@pytest.mark.parametrize(("day", "hours"), [("2026-03-08", 23), ("2026-11-01", 25), ("2026-11-02", 24)])
def test_days_of_summer_time_have_their_true_hours(day: str, hours: int) -> None:
    start = datetime.fromisoformat(day).replace(tzinfo=NEW_YORK).timestamp()
    end = next_s("day", int(start), NEW_YORK)
    assert end - start == hours * 3600
    assert len(edges_s("hour", start, end, NEW_YORK, most=100) or []) == hours + 1


@given(
    span=st.sampled_from(SPANS),
    zone=st.sampled_from(sorted(available_timezones())).map(ZoneInfo),
    moment=st.integers(SINCE_1975_S, 2_500_000_000),
)
def test_every_moment_is_in_the_span_that_is_found_for_it(span: Span, zone: ZoneInfo, moment: int) -> None:
    start = floor_s(span, moment, zone)
    assert start <= moment
    assert floor_s(span, start, zone) == start
    end = next_s(span, start, zone)
    assert start < end
    if span != "hour":  # where the clock goes back by half an hour, an hour of the old reckoning is cut short
        assert moment < end
        assert floor_s(span, end, zone) == end


@given(span=st.sampled_from(SPANS), start=st.integers(SINCE_1975_S, 2_000_000_000), length=st.integers(1, 40 * 86400))
def test_edges_cover_the_range_and_no_more(span: Span, start: int, length: int) -> None:
    edges = edges_s(span, start, start + length, NEW_YORK, most=60_000)
    assert edges is not None
    assert edges[0] <= start < edges[1]
    assert edges[-2] < start + length <= edges[-1]
    assert edges == sorted(set(edges))


def test_too_many_edges_are_not_made() -> None:
    assert edges_s("minute", 0, 10**12, ZoneInfo("UTC"), most=1000) is None
    assert len(edges_s("minute", 0, 60_000, ZoneInfo("UTC"), most=1000) or []) == 1001


def test_moments_are_aware() -> None:
    assert at(0) == datetime(1970, 1, 1, tzinfo=UTC)
