"""How backends are, for people: the rows, with what the gateway's workers tell each other of each through Redis."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal

from django.conf import settings
from django.contrib.postgres.aggregates import ArrayAgg
from django.core.cache import cache
from django.db.models import Q, QuerySet, Value
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from gateway.models import Backend
from gateway.routing.exchange import Seen, look
from gateway.routing.gauges import Load
from usage.store import RedisError, connect
from usage.traffic import first_tokens_ms

Level = Literal["ok", "warn", "error", ""]
LATELY: Final = timedelta(minutes=15)
PERMILLE: Final = 1000  # the width of a whole bar, in its own units
KV_FULL: Final = 0.9
KEPT_S: Final = 10
IN_A_POOL: Final = Q(memberships__isnull=False)


@dataclass(frozen=True, slots=True)
class BackendState:
    """in_flight None: nobody can tell now. load None: it showed no gauges lately. reason: the gateway's own words."""

    row: Backend
    level: Level
    word: Promise
    reason: str = ""
    in_flight: int | None = None
    load: Load | None = None
    models: Sequence[str] = ()
    max_model_len: int | None = None
    first_token_ms: float | None = None
    pools: Sequence[str] = field(default_factory=list)

    @property
    def kv_width(self) -> int:
        return round(self.load.kv_cache * PERMILLE) if self.load else 0

    @property
    def kv_percent(self) -> int:
        return round(self.load.kv_cache * 100) if self.load else 0

    @property
    def is_kv_full(self) -> bool:
        return self.load is not None and self.load.kv_cache >= KV_FULL

    @property
    def is_drained(self) -> bool:
        """No new calls, and none that runs."""
        return self.row.is_draining and self.in_flight == 0


def seen() -> Seen | None:
    """One round trip; None when Redis does not answer."""
    try:
        with connect(settings.REDIS_URL, max_connections=1) as client:
            return look(client)
    except RedisError:
        return None


def with_pools(rows: QuerySet[Backend]) -> QuerySet[Any]:
    """Each with `pool_names`, the names of the deployments that have it in their pool: all in one query."""
    return rows.annotate(
        pool_names=ArrayAgg(
            "memberships__deployment__name", filter=IN_A_POOL, order_by="memberships__deployment__name", default=Value([])
        )
    )


def states(rows: Sequence[Any], told: Seen | None) -> list[BackendState]:
    """rows: with `pool_names` at hand."""
    first_tokens = _first_tokens_ms() if rows else {}
    return [_state(row, told, first_tokens.get(row.name)) for row in rows]


def _first_tokens_ms() -> dict[str, float]:
    """Whoever else looks within these seconds is told the same: one question of the rollups for all of them."""
    found: dict[str, float] = cache.get_or_set("first-tokens", lambda: first_tokens_ms(timezone.now() - LATELY), KEPT_S) or {}
    return found


def _state(row: Any, told: Seen | None, first_token_ms: float | None) -> BackendState:
    known = told.known.get(row.name) if told else None
    level, word, reason = _judged(row, told)
    verdict = known.fresh_verdict(told.now_s) if known and told else None
    return BackendState(
        row,
        level,
        word,
        reason,
        in_flight=told.in_flight.get(row.name, 0) if told and told.workers else None,
        load=verdict.load if verdict else None,
        models=(known.verdict.models or ()) if known and known.verdict else (),
        max_model_len=known.verdict.max_model_len if known and known.verdict else None,
        first_token_ms=first_token_ms,
        pools=row.pool_names,
    )


def _judged(row: Backend, told: Seen | None) -> tuple[Level, Promise, str]:
    if told is None or not told.workers:
        return "", _("Not known"), ""
    known = told.known.get(row.name)
    state = known.state(told.now_s) if known else "unknown"
    reason = known.ejected.text if known and known.ejected else ""
    if state == "ejected":
        return "error", _("Out"), reason
    if state == "trial":
        return "warn", _("On trial"), reason
    if state == "unknown":
        return "warn", _("Not checked yet"), ""
    if known and known.ejection and known.ejection.readiness(told.now_s) < 1:
        return "warn", _("Coming back"), ""
    return "ok", _("Healthy"), ""
