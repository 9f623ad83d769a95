"""Minutes, hours, days and months of the clock on the wall of a time zone, in Unix seconds. Pure.

Summer time makes days of 23 and 25 hours; a zone with an offset of half an hour has hours that start at half past UTC's.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal, get_args
from zoneinfo import ZoneInfo

Span = Literal["minute", "hour", "day", "month"]
SPANS: Final[tuple[Span, ...]] = get_args(Span)


def floor_s(span: Span, moment_s: float, zone: ZoneInfo) -> int:
    """The start of the minute, hour, day or month that `moment_s` lies in."""
    if span == "minute":
        return int(moment_s // 60) * 60
    local = datetime.fromtimestamp(moment_s, zone)
    if span == "hour":
        offset_s = int(_offset(local).total_seconds())
        return int((moment_s + offset_s) // 3600) * 3600 - offset_s
    return _midnight_s(local.date() if span == "day" else local.date().replace(day=1), zone)


def next_s(span: Span, start_s: int, zone: ZoneInfo) -> int:
    """The end of the span that starts at `start_s`, which is the start of the following one."""
    if span == "minute":
        return start_s + 60
    if span == "hour":
        # Not always 3600 s: where a zone shifts by half an hour (Lord Howe) its hours shift with it.
        following_s = floor_s("hour", start_s + 3600, zone)
        return following_s if following_s > start_s else start_s + 3600
    day = datetime.fromtimestamp(start_s, zone).date()
    if span == "day":
        return _midnight_s(day + timedelta(days=1), zone)
    return _midnight_s((day.replace(day=1) + timedelta(days=32)).replace(day=1), zone)


def edges_s(span: Span, start_s: float, end_s: float, zone: ZoneInfo, *, most: int) -> list[int] | None:
    """The start of every span that start_s..end_s touches, and the end of the last one; None when there are over `most`."""
    edges = [floor_s(span, start_s, zone)]
    while edges[-1] < end_s:
        if len(edges) > most:
            return None
        edges.append(next_s(span, edges[-1], zone))
    return edges


def at(moment_s: float) -> datetime:
    """As an aware time in UTC: what the database and JSON are given."""
    return datetime.fromtimestamp(moment_s, UTC)


def _offset(local: datetime) -> timedelta:
    return local.utcoffset() or timedelta()


def _midnight_s(day: date, zone: ZoneInfo) -> int:
    """The first moment of `day`. Where summer time skips midnight, zoneinfo answers with the moment of the skip."""
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())
