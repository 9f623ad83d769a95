"""Limits: how much a key, an alias or a tenant may use, and the calendar periods some of them count in. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any, Final, Literal, Protocol, get_args
from zoneinfo import ZoneInfo

import orjson

Subject = Literal["key", "alias", "tenant"]
SUBJECTS: Final[tuple[str, ...]] = get_args(Subject)

NAMES: Final = (
    "requests_per_minute",
    "tokens_per_hour",
    "tokens_per_day",
    "tokens_per_month",
    "concurrent_requests",
    "money_per_month",
)
TOKEN_NAMES: Final = frozenset({"tokens_per_hour", "tokens_per_day", "tokens_per_month"})
CLAMPABLE: Final = TOKEN_NAMES | {"money_per_month"}  # those that a shorter output spares
PERIODIC: Final = frozenset({"tokens_per_day", "tokens_per_month", "money_per_month"})

# What no calendar bounds is counted in buckets of this width: in the running one and 60 past ones, so that no minute or hour,
# wherever it begins, holds more than the limit. lua/counters.lua does so too.
WIDTHS_S: Final = {"requests_per_minute": 1, "tokens_per_hour": 60}
WINDOW_BUCKETS: Final = 61

# The scripts count in Lua's doubles: beyond this they would no longer tell one from the next.
MAX: Final = 2**53 - 1

Mode = Literal["enforce", "shadow"]


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit as configured. max: requests, model tokens, or nano-units of money; 0 lets nothing through.

    shadow: counted and reported, never refused. clamps: the caller may shorten an output that does not fit.
    Raises ValueError for what cannot be counted exactly or makes no sense.
    """

    name: str
    max: int
    mode: Mode = "enforce"
    clamps: bool = False

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"there is no limit {self.name!r}")
        if not 0 <= self.max <= MAX:
            raise ValueError(f"{self.name}: the maximum must be from 0 to {MAX}")
        if self.mode not in get_args(Mode):
            raise ValueError(f"{self.name}: the mode is enforce or shadow")
        if self.clamps and self.name not in CLAMPABLE:
            raise ValueError(f"{self.name}: a shorter output does not spare it")

    @property
    def is_enforced(self) -> bool:
        return self.mode == "enforce"


@dataclass(frozen=True, slots=True)
class BoundLimit:
    """A limit of one subject. subject_id: the key's id, the alias's name or the tenant's id."""

    subject: str
    subject_id: str
    limit: Limit


class _Limited(Protocol):
    @property
    def limits(self) -> Sequence[Limit]: ...


class _Identified(_Limited, Protocol):
    @property
    def id(self) -> str: ...


class _Named(_Limited, Protocol):
    @property
    def name(self) -> str: ...


class Bound(tuple[BoundLimit, ...]):
    """The limits of one kind of call, and what follows from them: found out once, as they are asked of each such call.

    kept: what others find out about them.
    """

    def __init__(self, limits: Iterable[BoundLimit]) -> None:
        self._hash = super().__hash__()
        self.kept: dict[str, Any] = {}

    def __hash__(self) -> int:
        return self._hash

    @staticmethod
    def of(limits: Iterable[BoundLimit]) -> "Bound":
        return limits if isinstance(limits, Bound) else Bound(limits)

    @cached_property
    def refuses(self) -> bool:
        """Is any of them enforced?"""
        return any(bound.limit.is_enforced for bound in self)

    @cached_property
    def of_requests(self) -> tuple[tuple[int, int], ...]:
        """Place and maximum of those that count requests a minute and refuse; what of them is left is told with each answer."""
        return self._enforced(frozenset({"requests_per_minute"}))

    @cached_property
    def of_tokens(self) -> tuple[tuple[int, int], ...]:
        """The same of those that count tokens."""
        return self._enforced(TOKEN_NAMES)

    @cached_property
    def told(self) -> orjson.Fragment:
        """For a call's record, what is the same of each: subject, name, limit, max, mode of every limit."""
        return orjson.Fragment(orjson.dumps([_told(bound) for bound in self]))

    def _enforced(self, names: frozenset[str]) -> tuple[tuple[int, int], ...]:
        limits = [bound.limit for bound in self]
        return tuple((at, limit.max) for at, limit in enumerate(limits) if limit.name in names and limit.is_enforced)


def _told(bound: BoundLimit) -> dict[str, Any]:
    limit = bound.limit
    names = {"subject": bound.subject, "name": bound.subject_id, "limit": limit.name}
    return {**names, "max": limit.max, "mode": limit.mode}


NO_LIMITS: Final = Bound(())


def bind(tenant: _Identified, key: _Identified, alias: _Named) -> Bound:
    """Every limit that a call by `key` of `tenant` to `alias` must keep, the nearest subject first.

    Kept for as long as these are the same objects: putting 18 together took a call 20 us (2026-11).
    """
    place = tenant.id, key.id, alias.name
    if (known := _bound.get(place)) is not None:
        bound, of_tenant, of_key, of_alias = known
        if of_tenant is tenant and of_key is key and of_alias is alias:
            return bound
    bound = Bound(
        (
            *(BoundLimit("key", key.id, limit) for limit in key.limits),
            *(BoundLimit("alias", alias.name, limit) for limit in alias.limits),
            *(BoundLimit("tenant", tenant.id, limit) for limit in tenant.limits),
        )
    )
    if len(_bound) >= _BOUND_MAX:
        _bound.clear()
    _bound[place] = bound, tenant, key, alias
    return bound


_BOUND_MAX: Final = 4096
_bound: Final[dict[tuple[str, str, str], tuple[Bound, _Identified, _Identified, _Named]]] = {}


def period(name: str, now_s: float, time_zone: str) -> tuple[str, float]:
    """The calendar day or month that `now_s` falls in for the limit `name`: its id, and when it ends in Unix seconds.

    Ids are ISO 8601, `2026-11-30` or `2026-11`: of one limit, the later has the greater text. A period begins at
    00:00 on the clocks of `time_zone`, or when they skip that, with the first moment of the day.
    Raises ValueError for a limit that has no period, ZoneInfoNotFoundError for a zone that is none.
    """
    found = _period(name, quarter(now_s), time_zone)
    return found[0], found[2]


@lru_cache(maxsize=1024)
def day_and_month(quarter: int, time_zone: str) -> tuple[int, int, int, int]:
    """For the scripts: the day as 20261130, when it ends in Unix ms, the month as 202611, and its end.

    quarter: of a moment by quarter(), or its Unix ms // QUARTER_MS. Numbers, as Lua compares these the same way everywhere,
    and texts by the server's locale. Without a zone, which only a call without counters has, 0s.
    """
    if not time_zone:
        return 0, 0, 0, 0
    day, _, day_ends_s = _period("tokens_per_day", quarter, time_zone)
    month, _, month_ends_s = _period("tokens_per_month", quarter, time_zone)
    return int(day.replace("-", "")), round(day_ends_s * 1000), int(month.replace("-", "")), round(month_ends_s * 1000)


def quarter(now_s: float) -> int:
    """The quarter of an hour that a moment is in: no day of any zone begins within one."""
    return int(now_s // _QUARTER_S)


def period_start_s(name: str, now_s: float, time_zone: str) -> float:
    """When the period of period() began, in Unix seconds."""
    return _period(name, quarter(now_s), time_zone)[1]


_QUARTER_S: Final = 900  # every zone's days have begun on a quarter of an hour of UTC since 1972
QUARTER_MS: Final = _QUARTER_S * 1000


@lru_cache(maxsize=4096)
def _period(name: str, quarter: int, time_zone: str) -> tuple[str, float, float]:
    """(id, start, end). Kept, because every call asks for two and each takes 10 us to find out."""
    if name not in PERIODIC:
        raise ValueError(f"{name} has no period")
    zone = ZoneInfo(time_zone)
    today = datetime.fromtimestamp(quarter * _QUARTER_S, zone).date()
    if name == "tokens_per_day":
        return today.isoformat(), _begins_s(today, zone), _begins_s(today + timedelta(days=1), zone)
    first = today.replace(day=1)
    return f"{first:%Y-%m}", _begins_s(first, zone), _begins_s((first + timedelta(days=32)).replace(day=1), zone)


def _begins_s(day: date, zone: ZoneInfo) -> float:
    # Where 00:00 comes twice, fold=0 is the first; where it is skipped, fold=0 is the moment of the skip.
    return datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()
