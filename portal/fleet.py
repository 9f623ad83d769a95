"""The whole platform as it runs: the last hour of all tenants, the backends, and whether the ledger keeps up.

Figures are of rollups, one query; what runs now is what the gateway's workers tell each other through Redis. No record is read.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import redis
from django.conf import settings
from django.db.models import Exists, OuterRef, Q
from django.utils.functional import Promise

from accounts.models import Tenant
from gateway.models import Backend, Deployment, PoolMember
from gateway.presence import Presence, present
from gateway.routing.exchange import Seen, look
from gateway.routing.shared_queue import Crowd, crowds
from portal import backend_state
from portal.charts import sparkline
from portal.measures import MEASURES, percent, rate, whole
from usage.lag import Lag, journal_lag
from usage.series import Sums
from usage.store import RedisError, connect
from usage.traffic import Lately, lately

MINUTES: Final = 60
RATE_MINUTES: Final = 5  # whole ones before the running one
TENANTS_SHOWN: Final = 10
_MINUTE: Final = timedelta(minutes=1)
# Calls of the others never wait: see gateway/routing/slots.py.
_LIMITED: Final = Deployment.objects.filter(
    Q(max_concurrent_calls__isnull=False)
    | Exists(PoolMember.objects.filter(deployment=OuterRef("pk"), max_concurrent_calls__isnull=False))
).order_by("name")


@dataclass(frozen=True, slots=True)
class Card:
    """name: of its measure, for the link to the usage of all. line: the path of a sparkline. is_bad: it is to be looked at."""

    name: str
    label: Promise
    shown: str
    note: str
    line: str
    is_bad: bool = False


@dataclass(frozen=True, slots=True)
class Busy:
    """A tenant, and its share of the requests. slug "": it is gone."""

    slug: str
    name: str
    requests: str
    tokens: str
    wrong: str
    share: str


@dataclass(frozen=True, slots=True)
class Queue:
    """Who waits in the gateway for a place of a deployment. most: of its places; None: only its backends have a ceiling."""

    deployment: str
    most: int | None
    crowd: Crowd


@dataclass(frozen=True, slots=True)
class Now:
    """What Redis holds of this moment."""

    backends: Seen
    workers: Sequence[Presence]
    lag: Lag
    crowds: Mapping[str, Crowd]  # by deployment, of those that have a ceiling

    @property
    def in_flight(self) -> int:
        return sum(self.backends.in_flight.values())

    @property
    def waiting(self) -> int:
        """At the backends themselves, as they say."""
        now_s = self.backends.now_s
        verdicts = (known.fresh_verdict(now_s) for known in self.backends.known.values())
        return sum(verdict.load.waiting for verdict in verdicts if verdict and verdict.load)

    @property
    def queued(self) -> int:
        """In the gateway itself, for a place under a ceiling."""
        return sum(crowd.waiting for crowd in self.crowds.values())

    @property
    def pending(self) -> int:
        return sum(worker.pending for worker in self.workers)

    @property
    def lost(self) -> int:
        return sum(worker.lost for worker in self.workers)

    @property
    def oldest_s(self) -> int:
        return round(self.lag.oldest_s)


def context(moment: datetime) -> dict[str, Any]:
    """Six queries at most, and four round trips to Redis, however many tenants there are."""
    first = moment.astimezone(UTC).replace(second=0, microsecond=0) - (MINUTES - 1) * _MINUTE
    ceilings = dict(_LIMITED.values_list("name", "max_concurrent_calls"))
    found, now = lately(first), _now(list(ceilings))
    rows = backend_state.with_pools(Backend.objects.order_by("name"))
    return {
        "cards": cards(found, first, moment),
        "now": now,
        "states": backend_state.states(list(rows), now.backends if now else None),
        "queues": [Queue(name, ceilings[name], crowd) for name, crowd in now.crowds.items()] if now else (),
        "tenants": busiest(found),
    }


def cards(found: Lately, first: datetime, moment: datetime) -> list[Card]:
    """first: where the first of MINUTES minutes starts."""
    starts = [first + n * _MINUTE for n in range(MINUTES)]
    by_minute = [found.minutes.get(start, Sums()) for start in starts]
    total = found.total

    def line(of: Callable[[Sums], float]) -> str:
        return sparkline([of(sums) for sums in by_minute])

    def counted(name: str) -> Card:
        measure, value = MEASURES[name], getattr(total, name)
        share = percent(value, total.requests) if name != "requests" else ""
        is_bad = name == "errors" and value > 0
        return Card(name, measure.label, whole(value), share, line(lambda sums: getattr(sums, name)), is_bad)

    recent = by_minute[-RATE_MINUTES - 1 :]
    of_s = (moment - starts[-RATE_MINUTES - 1]).total_seconds()
    tokens = rate(sum(sums.completion_tokens for sums in recent) / of_s)
    speed = Card("rate", MEASURES["rate"].label, tokens, "", line(lambda sums: sums.completion_tokens))
    return [speed, *(counted(name) for name in ("requests", "errors", "refused", "blocked"))]


def busiest(found: Lately) -> list[Busy]:
    ranked = sorted(found.tenants.items(), key=lambda item: (-item[1].requests, -item[1].tokens, str(item[0])))
    ranked = [item for item in ranked if item[1].requests or item[1].tokens][:TENANTS_SHOWN]
    known = {row.pk: row for row in Tenant.objects.filter(pk__in=[pk for pk, _sums in ranked]).only("pk", "slug", "name")}
    return [_busy(pk, sums, known.get(pk), found.total) for pk, sums in ranked]


def _busy(pk: UUID, sums: Sums, row: Tenant | None, total: Sums) -> Busy:
    return Busy(
        row.slug if row else "",
        row.name if row else str(pk),
        whole(sums.requests),
        whole(sums.tokens),
        whole(sums.errors + sums.refused + sums.blocked),
        percent(sums.requests, total.requests),
    )


def _now(limited: Sequence[str]) -> Now | None:
    """None while Redis does not answer. limited: deployments that have a ceiling."""
    try:
        with connect(settings.REDIS_URL, max_connections=1) as client:
            return _read(client, limited)
    except RedisError:
        return None


def _read(client: redis.Redis, limited: Sequence[str]) -> Now:
    seen = look(client)
    workers = list(present(client, now_s=seen.now_s).values())
    return Now(seen, workers, journal_lag(client, now_s=time.time()), crowds(client, limited, now_s=seen.now_s))
