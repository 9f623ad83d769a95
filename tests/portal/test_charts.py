"""Charts: their scales, their axes and their shapes, and that the table says the same."""

from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from django.utils import translation
from hypothesis import given
from hypothesis import strategies as st

from portal.charts import HEAD, HEIGHT, WIDTH, Series, chart, dots, path, scale_of, ticks
from portal.measures import MEASURES, compact, money, percent

TOKYO = ZoneInfo("Asia/Tokyo")


def edges_of(count: int, step: timedelta, start: datetime = datetime(2026, 11, 20, 9, tzinfo=TOKYO)) -> list[datetime]:
    return [start + step * n for n in range(count + 1)]


@given(st.just(0.0) | st.floats(1e-6, 1e15), st.booleans())
def test_scale_holds_the_highest_in_few_even_steps(highest: float, is_whole: bool) -> None:
    scale = scale_of(highest, is_whole=is_whole)
    assert scale[0] == 0
    assert scale[-1] >= highest * 0.999
    assert 2 <= len(scale) <= 5
    step = scale[1]
    assert all(abs(above - below - step) <= step * 1e-6 for below, above in pairwise(scale))
    assert not is_whole or step >= 1


@given(st.lists(st.lists(st.integers(0, 10**9), min_size=5, max_size=5), min_size=1, max_size=7))
def test_bars_stack_without_gap_to_the_height_of_their_sum(values: list[list[int]]) -> None:
    series = [Series(str(n), one, n) for n, one in enumerate(values)]
    drawn = chart("c", "C", MEASURES["requests"], "hour", edges_of(5, timedelta(hours=1)), series)
    top = scale_of(max(sum(column) for column in zip(*values, strict=True)), is_whole=True)[-1]
    for place, column in enumerate(zip(*values, strict=True)):
        left, right = place * WIDTH / 5, (place + 1) * WIDTH / 5
        heights = [float(bar.height) for bar in drawn.bars if left <= float(bar.x) < right]
        assert sum(heights) == pytest.approx(HEIGHT * sum(column) / top, abs=0.1)
    assert all(HEAD - 0.01 <= float(bar.y) <= HEAD + HEIGHT for bar in drawn.bars)
    assert [row.total.text for row in drawn.rows] == [f"{sum(column):,}" for column in zip(*values, strict=True)]


def test_line_breaks_where_nothing_was_and_one_alone_is_a_dot() -> None:
    assert path([1, None, 2, 2], 2, head=0) == "M125 100M625 0L875 0"
    assert dots([1, None, 2, 2], 2) == f"M125 {HEAD + 100}h0.01"
    assert path([None, None], 1) == dots([None], 1) == ""


@pytest.mark.parametrize(
    ("span", "step", "count"), [("minute", 60, 60), ("hour", 3600, 24), ("hour", 3600, 168), ("day", 86400, 30)]
)
def test_ticks_are_few_and_on_the_clock(span: str, step: int, count: int) -> None:
    found = list(ticks(edges_of(count, timedelta(seconds=step)), span))  # type: ignore[arg-type]  # one of them
    assert 2 <= len(found) <= 8
    assert len({tick.label for tick in found}) == len(found)


def test_midnight_is_told_by_its_day() -> None:
    labels = [tick.label for tick in ticks(edges_of(24, timedelta(hours=1)), "hour")]
    assert labels == ["12:00", "16:00", "20:00", "21 Nov", "04:00", "08:00"]


def test_figures_read_as_the_language_counts() -> None:
    assert [compact(value) for value in (0, 950, 12_400, 3_000_000, 1.5, None)] == ["0", "950", "12.4K", "3M", "1.5", "–"]
    assert percent(1, 3) == "33.3%"
    assert percent(1, 0) == "–"
    assert [money(value) for value in (0, 59_447_800, 2_440_000_000)] == ["0.0000", "0.0594", "2.44"]
    with translation.override("ja"):
        assert [compact(value) for value in (9_999, 34_000, 1_200_000, 250_000_000)] == ["9,999", "3.4万", "120万", "2.5億"]
