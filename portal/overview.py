"""What the first page of a tenant shows: the last 24 hours beside the 24 before them, its limits, and what went wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from django.db.models import Q
from django.utils.translation import gettext_lazy

from accounts.models import ApiKey, Tenant
from gateway.models import Limit
from portal import forecast
from portal.behind import Calls, between
from portal.breakdown import change, labels_of, values_of
from portal.charts import SERIES_MOST, Chart, Series, chart, sparkline
from portal.forms.usage import Period, preset
from portal.measures import MEASURES, Measure, percent, whole
from portal.remedies import Remedy, remedy
from portal.standing import Standing, standings
from usage.history import Trouble, troubles
from usage.limits import PERIODIC, period, period_start_s
from usage.models import DayAllKeys
from usage.series import Asked, Row, Sums, buckets, most_used, totals, zone_of
from usage.traffic import Counted, last_minutes

CARDS: Final = ("requests", "tokens", "errors", "first_p95")
CHARTS: Final = ("requests", "tokens")
KEYS_SHOWN: Final = 5
LIMITS_SHOWN: Final = 6
LIMITS_ASKED: Final = 100
TROUBLES_SHOWN: Final = 6
_OTHER: Final = gettext_lazy("Other")
_DAY_BEFORE: Final = gettext_lazy("The day before")
SLIDING: Final = ("tokens_per_hour", "requests_per_minute")
_PACE_FROM_S: Final = 900  # of a period; before that its pace says little


@dataclass(frozen=True, slots=True)
class Card:
    """change: against the day before, "" where that had nothing. share: of the requests, of errors. url: of its calls."""

    measure: Measure
    shown: str
    change: str
    share: str
    line: str
    url: str


@dataclass(frozen=True, slots=True)
class TopKey:
    pk: str
    name: str
    requests: str
    tokens: str
    share: str


@dataclass(frozen=True, slots=True)
class Bar:
    """reached_at: when it is used up if calls go on as lately; None: not before its period ends, or nobody can tell.

    As lately: of a day or a month as since it began, of the last hour as in the last minutes, of calls a minute as they grow.
    """

    standing: Standing
    reached_at: datetime | None


@dataclass(frozen=True, slots=True)
class Problem:
    trouble: Trouble
    remedy: Remedy | None


@dataclass(frozen=True, slots=True)
class Steps:
    """To the first call: which of them are done."""

    has_key: bool
    has_called: bool
    has_usage: bool


def now_and_before(tenant: Tenant, now: datetime) -> tuple[Asked, Asked]:
    """The last 24 hours, of which the running hour is the last; and as many before."""
    zone = zone_of(tenant)
    today = preset("24h", zone, now)

    def asked(of: Period) -> Asked:
        return Asked((str(tenant.pk),), zone, of.start, of.end, of.span)

    return asked(today), asked(today.earlier)


def cards(tenant: Tenant, now: Asked, rows: Sequence[Row], before: Sequence[Row]) -> list[Card]:
    """rows, before: by bucket, by whatever groups."""
    edges, of_s = now.edges, 86400.0
    calls = Calls(tenant.slug, between(now.start, now.end))
    here, there = _merged(rows), _merged(before)
    total = sum((row.sums for row in here), Sums())
    total_before = sum((row.sums for row in there), Sums())
    found = []
    for name in CARDS:
        measure = MEASURES[name]
        value, was = measure.of(total, of_s), measure.of(total_before, of_s)
        share = percent(total.errors, total.requests) if name == "errors" and total.requests else ""
        line = sparkline(values_of(measure, here, edges, ""))
        found.append(Card(measure, measure.shown(value), change(value, was), share, line, calls.url(name) if value else ""))
    return found


def context(tenant: Tenant, moment: datetime) -> dict[str, Any]:
    """Ten queries, and one script of Redis, however much was used."""
    now, before = now_and_before(tenant, moment)
    by_alias = totals(now, "alias", latencies=False)
    drawn = sorted((name for name in by_alias if by_alias[name].requests), key=lambda name: (-by_alias[name].requests, name))
    rows = buckets(now, "alias", drawn=drawn[:SERIES_MOST])
    rows_before = buckets(before)
    calls = Calls(tenant.slug, between(now.start, now.end))
    return {
        "cards": cards(tenant, now, rows, rows_before),
        "charts": [_chart(name, calls, now, before, rows, rows_before, drawn[:SERIES_MOST]) for name in CHARTS],
        "keys": _top_keys(now, sum(sums.requests for sums in by_alias.values())),
        "bars": bars(tenant, moment),
        "problems": [
            Problem(trouble, remedy(trouble.code)) for trouble in troubles(tenant, now.edges[0], now.edges[-1])[:TROUBLES_SHOWN]
        ],
        "zone": now.zone.key,
    }


def has_usage(tenant: Tenant) -> bool:
    return DayAllKeys.objects.filter(tenant_id=tenant.pk).exists()


def steps(tenant: Tenant) -> Steps:
    keys = ApiKey.objects.for_tenant(tenant)
    has_called = keys.filter(last_used_at__isnull=False).exists()
    return Steps(keys.usable().filter(is_playground=False).exists(), has_called, has_usage(tenant))


def bars(tenant: Tenant, moment: datetime) -> list[Bar]:
    """The limits that are nearest to their ends."""
    rows = list(Limit.objects.filter(Q(tenant=tenant) | Q(alias__tenant=tenant)).select_related("alias")[:LIMITS_ASKED])
    if len(rows) < LIMITS_ASKED:  # asked apart: there may be thousands, and sorting them took longer than all else here
        live = Q(key__revoked_at=None) & (Q(key__expires_at=None) | Q(key__expires_at__gt=moment))
        of_keys = Limit.objects.filter(live, key__tenant=tenant).select_related("key").order_by("pk")
        rows += of_keys[: LIMITS_ASKED - len(rows)]
    found = standings(tenant, rows)
    found.sort(key=lambda standing: -(standing.used_width + standing.reserved_width))
    shown = found[:LIMITS_SHOWN]
    sliding = [standing for standing in shown if standing.state is not None and standing.row.name in SLIDING]
    bounds = [(standing.state.bound.subject, standing.state.bound.subject_id) for standing in sliding if standing.state]
    counted = last_minutes(tenant.pk, bounds, moment, forecast.HOUR_MINUTES)
    lately = {standing.row.pk: of_it for standing, of_it in zip(sliding, counted, strict=True)}
    return [Bar(one, reached_at(one, tenant.time_zone, moment, lately.get(one.row.pk))) for one in shown]


def reached_at(standing: Standing, time_zone: str, moment: datetime, lately: Counted | None = None) -> datetime | None:
    """See Bar. lately: of a limit that slides, what was used in each of the last minutes; without it there is no forecast."""
    state, name = standing.state, standing.row.name
    if state is None or state.remaining == 0:
        return None
    now_s = moment.timestamp()
    in_s: float | None = None
    if name in PERIODIC:
        elapsed_s = now_s - period_start_s(name, now_s, time_zone)
        if elapsed_s >= _PACE_FROM_S:
            in_s = forecast.of_period(state.used, state.remaining, elapsed_s, period(name, now_s, time_zone)[1] - now_s)
    elif lately is not None and name == "tokens_per_hour":
        in_s = forecast.of_hour(lately.tokens, state.used + state.reserved, state.bound.limit.max)
    elif lately is not None and name == "requests_per_minute":
        in_s = forecast.of_rate(lately.requests, state.bound.limit.max)
    return datetime.fromtimestamp(now_s + in_s, UTC) if in_s is not None else None


def _merged(rows: Sequence[Row]) -> list[Row]:
    """By bucket alone."""
    found: dict[int, Sums] = {}
    for row in rows:
        found[row.bucket] = found.get(row.bucket, Sums()) + row.sums
    return [Row(bucket, "", sums) for bucket, sums in found.items()]


def _chart(
    name: str, calls: Calls, now: Asked, before: Asked, rows: Sequence[Row], rows_before: Sequence[Row], drawn: Sequence[str]
) -> Chart:
    measure, edges = MEASURES[name], now.edges
    labels = labels_of("alias", drawn)

    def of_alias(alias: str, place: int) -> Series:
        urls = calls.urls(edges, name, alias=alias) if alias else ()
        return Series(labels[alias], values_of(measure, rows, edges, alias), place, urls)

    series = [of_alias(alias, place) for place, alias in enumerate(drawn)]
    if any(row.name is None and measure.of(row.sums, 1) for row in rows):
        series.append(Series(str(_OTHER), values_of(measure, rows, edges, None)))
    urls, urls_before = calls.urls(edges, name), calls.urls(before.edges, name)
    dashed = Series(str(_DAY_BEFORE), values_of(measure, rows_before, before.edges, ""), urls=urls_before)
    return chart(f"last-{name}", measure.label, measure, now.span, edges, series, before=dashed, urls=urls)


def _top_keys(now: Asked, all_of_them: int) -> list[TopKey]:
    """all_of_them: how many calls there were."""
    found = most_used(now, "key", KEYS_SHOWN)
    labels = labels_of("key", [pk for pk, _sums in found])
    return [
        TopKey(pk, labels[pk], whole(sums.requests), whole(sums.tokens), percent(sums.requests, all_of_them))
        for pk, sums in found
    ]
