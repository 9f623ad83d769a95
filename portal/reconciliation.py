"""Do the books agree? The ledger beside what the backends counted, and what the daily reconciliation found, in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import Tenant
from portal.measures import percent, whole
from portal.wording import in_words
from usage.backend_counts import HOUR_S, Counted, OfBackend, compared
from usage.models import Reconciliation
from usage.spans import at

Level = Literal["ok", "warn", "error", ""]
PERIODS: Final[dict[str, tuple[Promise, int]]] = {
    "24h": (gettext_lazy("24 hours"), 24),
    "7d": (gettext_lazy("7 days"), 168),
    "30d": (gettext_lazy("30 days"), 720),
}
PERIOD_DEFAULT: Final = "24h"
COVERED_LEAST: Final = 0.95  # of the time: with less there is nothing to compare
SAME_SHARE: Final = 0.02  # calls that run at an edge of the time count on its other side in one of the two
SAME_TOKENS: Final = 2000
HOURS_SHOWN: Final = 8
RUNS_SHOWN: Final = 14
WHERE: Final[dict[str, Promise]] = {
    "minute": gettext_lazy("Totals by minute"),
    "hour": gettext_lazy("Totals by hour"),
    "day": gettext_lazy("Totals by day"),
    "minute_all_keys": gettext_lazy("Totals of all keys by minute"),
    "hour_all_keys": gettext_lazy("Totals of all keys by hour"),
    "day_all_keys": gettext_lazy("Totals of all keys by day"),
    "day_key": gettext_lazy("Totals of keys by day"),
    "counter": gettext_lazy("Counter of a limit"),
}
NUMBERS: Final[dict[str, Promise]] = {
    "requests": gettext_lazy("Requests"),
    "errors": gettext_lazy("Errors"),
    "refused": gettext_lazy("Refused"),
    "blocked": gettext_lazy("Blocked"),
    "prompt_tokens": gettext_lazy("Input tokens"),
    "cached_tokens": gettext_lazy("Cached input"),
    "completion_tokens": gettext_lazy("Output tokens"),
    "cost_nano": gettext_lazy("Cost (nano-units)"),
}


@dataclass(frozen=True, slots=True)
class Pair:
    """One number, by the ledger and by the backend. difference: with its sign, of the backend's against the ledger's."""

    label: str
    ledger: str
    own: str
    difference: str
    share: str


@dataclass(frozen=True, slots=True)
class Hour:
    starts_at: datetime
    ledger: str
    own: str
    difference: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """word: how they stand. what: what to look at, one sentence each."""

    level: Level
    word: str
    what: Sequence[str]


@dataclass(frozen=True, slots=True)
class Compared:
    """hours: those that differ most, by input and output tokens together."""

    backend: str
    verdict: Verdict
    pairs: Sequence[Pair]
    covered: str
    hours: Sequence[Hour]


@dataclass(frozen=True, slots=True)
class Drifted:
    where: str
    number: str
    whose: str
    slug: str
    subject: str
    ledger: str
    found: str


@dataclass(frozen=True, slots=True)
class Run:
    row: Reconciliation
    drifts: Sequence[Drifted]
    what: Sequence[str]


def bounds(period: str, now: datetime) -> tuple[datetime, datetime]:
    """The last whole hours of UTC: the running one is still being counted."""
    end = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return end - timedelta(hours=PERIODS[period][1]), end


def by_backend(start: datetime, end: datetime) -> list[Compared]:
    """Two queries. Those that want a look come first."""
    whole_s = round((end - start).total_seconds())
    found = [_compared(name, of_it, whole_s) for name, of_it in compared(start, end).items()]
    order = {"error": 0, "warn": 1, "": 2, "ok": 3}
    return sorted(found, key=lambda one: (order[one.verdict.level], one.backend))


def runs() -> list[Run]:
    """Two queries."""
    rows = list(Reconciliation.objects.order_by("-ran_at")[:RUNS_SHOWN])
    ids = {UUID(drift["tenant_id"]) for row in rows for drift in row.first}
    slugs = {str(pk): slug for pk, slug in Tenant.objects.filter(pk__in=ids).values_list("pk", "slug")}
    return [Run(row, [_drifted(drift, slugs) for drift in row.first], _what_drifted(row.first)) for row in rows]


def verdict_on(counted: Counted, whole_s: int) -> Verdict:
    """What the two counts say together."""
    covered = counted.covered_s / whole_s
    if not counted.covered_s:
        return Verdict("", _("The backend's counters were not read in this time"), [
            _("Does it answer /metrics, and can the worker reach it? Is it a backend that was taken away?"),
        ])  # fmt: skip
    if covered < COVERED_LEAST:
        return Verdict("", _("Read for %(share)s of the time only: not to be compared") % {"share": percent(covered, 1)}, [
            _("In the gaps the backend did not answer or was not there, or worker or beat did not run: see Health and jobs."),
            *_restarted(counted),
        ])  # fmt: skip
    differences = (
        _beyond(counted.own_prompt, counted.ledger_prompt), _beyond(counted.own_completion, counted.ledger_completion)
    )  # fmt: skip
    if not any(differences):
        return Verdict("ok", _("They agree"), [])
    if all(difference >= 0 for difference in differences):
        return Verdict("warn", _("The backend counted %(tokens)s tokens more") % {"tokens": whole(sum(differences))}, [
            _("Is it called past the gateway? Its own log of access says by whom."),
            _("Tries that failed over to another backend and trials of backends count there alone: see its errors in Usage."),
        ])  # fmt: skip
    if all(difference <= 0 for difference in differences):
        told = _("The ledger holds %(tokens)s tokens more") % {"tokens": whole(-sum(differences))}
        return Verdict("error", told, [
            _("Is the URL a balancer in front of several servers? Then /metrics tells of one of them at a time."),
            *_left(counted),
            *_restarted(counted),
        ])  # fmt: skip
    return Verdict("error", _("Input and output differ in opposite directions"), [
        _("Has the backend another tokenizer or version than its pool? Compare one call's usage with the backend's log."),
        *_left(counted),
        *_restarted(counted),
    ])  # fmt: skip


def _beyond(own: int, ledger: int) -> int:
    """The difference, or 0 where it is too small to mean something."""
    difference = own - ledger
    return difference if abs(difference) > max(SAME_TOKENS, SAME_SHARE * max(own, ledger)) else 0


def _left(counted: Counted) -> list[str]:
    if not counted.left_tokens:
        return []
    return [_("%(tokens)s tokens of the ledger are of calls whose client left; some of them are estimates.") % {
        "tokens": whole(counted.left_tokens)
    }]  # fmt: skip


def _restarted(counted: Counted) -> list[str]:
    if not counted.resets:
        return []
    told = _("It began anew %(times)s times; what it counted between the last reading and its end is lost.")
    return [told % {"times": whole(counted.resets)}]


def _compared(name: str, of_it: OfBackend, whole_s: int) -> Compared:
    total = of_it.total
    verdict = verdict_on(total, whole_s)
    pairs = [
        _pair(_("Input tokens"), total.ledger_prompt, total.own_prompt),
        _pair(_("Output tokens"), total.ledger_completion, total.own_completion),
    ]
    hours = sorted(of_it.hours.items(), key=lambda item: (-abs(_difference(item[1])), item[0]))
    return Compared(
        name,
        verdict,
        pairs,
        percent(min(total.covered_s, whole_s), whole_s),
        [_hour(hour_s, counted) for hour_s, counted in hours[:HOURS_SHOWN] if _difference(counted)]
        if verdict.level in ("warn", "error")
        else [],
    )


def _pair(label: str, ledger: int, own: int) -> Pair:
    return Pair(label, whole(ledger), whole(own), signed(own - ledger), percent(own - ledger, ledger))


def _hour(hour_s: int, counted: Counted) -> Hour:
    ledger, own = counted.ledger_prompt + counted.ledger_completion, counted.own_prompt + counted.own_completion
    covered = "" if counted.covered_s >= COVERED_LEAST * HOUR_S else " *"
    return Hour(at(hour_s), whole(ledger), whole(own) + covered, signed(own - ledger))


def _difference(counted: Counted) -> int:
    return counted.own_prompt + counted.own_completion - counted.ledger_prompt - counted.ledger_completion


def signed(value: int) -> str:
    return f"{'+' if value > 0 else '-' if value < 0 else '±'}{whole(abs(value))}"


def _drifted(drift: Mapping[str, Any], slugs: Mapping[str, str]) -> Drifted:
    name, tenant_id = drift["name"], drift["tenant_id"]
    slug = slugs.get(tenant_id, "")
    number = str(NUMBERS.get(name) or in_words(name))
    where = str(WHERE.get(drift["where"], drift["where"]))
    return Drifted(where, number, slug or tenant_id, slug, drift["subject"], whole(drift["ledger"]), whole(drift["found"]))


def _what_drifted(drifts: Sequence[Mapping[str, Any]]) -> list[str]:
    kinds = {drift["where"] for drift in drifts}
    told = []
    if kinds - {"counter"}:
        told.append(
            _("Was a table restored without the others, or written by hand? Restore ledger and totals from one backup.")
        )
    if "counter" in kinds:
        told.append(_("A limit counted otherwise than the ledger: was Redis restored from an older copy?"))
        told.append(_("It is right again with the next month, or when Redis is emptied: the ledger then restores it."))
    return told
