"""The ledger's partitions: one table a month of UTC, made before the month comes, dropped when retention has passed it."""

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from django.db import OperationalError, connection, transaction

LEDGER: Final = "usage_usagerecord"
AHEAD: Final = 2  # months made before they begin
_LOCK: Final = 0x5365_6B69_7368_6F05  # beside those of accounts.audit, gateway.config and gateway.tasks
_NAME: Final = re.compile(rf"{LEDGER}_(\d{{4}})_(\d{{2}})\Z")


def ensure(moments: Iterable[datetime]) -> None:
    """Have a partition for the month of each of `moments`. Cheap where it is there already."""
    wanted = sorted({_first(moment) for moment in moments})
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(name) IS NOT NULL FROM unnest(%s::text[]) AS name", [[_name(m) for m in wanted]])
        there = [row[0] for row in cursor.fetchall()]
    for month, is_there in zip(wanted, there, strict=True):
        if not is_there:
            _make(month)


def make_ahead(now: datetime) -> None:
    """Have the partitions of this month and the next AHEAD."""
    months = [_first(now)]
    for _ in range(AHEAD):
        months.append(_following(months[-1]))
    ensure(datetime(m.year, m.month, 1, tzinfo=UTC) for m in months)


def drop_before(moment: datetime) -> list[str]:
    """Drop the partitions that hold nothing from `moment` on; the names of those dropped.

    One that is being read is left for the next time: waiting for it would hold up everything behind us.
    """
    dropped = []
    for name in partitions():
        year, month = map(int, _month(name))
        if _following(date(year, month, 1)) > moment.astimezone(UTC).date():
            continue
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SET LOCAL lock_timeout = '2s'")
                cursor.execute(f"DROP TABLE {name}")
        except OperationalError:
            continue
        dropped.append(name)
    return dropped


def partitions() -> list[str]:
    """The names of the partitions, oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = %s::regclass", [LEDGER]
        )
        return sorted(row[0] for row in cursor.fetchall() if _NAME.match(row[0]))


def _make(month: date) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])  # IF NOT EXISTS alone fails where two make it at once
        bounds: list[Any] = [f"{month} 00:00+00", f"{_following(month)} 00:00+00"]
        cursor.execute(f"CREATE TABLE IF NOT EXISTS {_name(month)} PARTITION OF {LEDGER} FOR VALUES FROM (%s) TO (%s)", bounds)


def _name(month: date) -> str:
    return f"{LEDGER}_{month:%Y_%m}"


def _month(name: str) -> tuple[str, ...]:
    found = _NAME.match(name)
    return found.groups() if found else ()


def _first(moment: datetime) -> date:
    return moment.astimezone(UTC).date().replace(day=1)


def _following(month: date) -> date:
    return (month + timedelta(days=32)).replace(day=1)
