"""How backends are, for people: the rows, with what the gateway's workers tell each other of each through Redis."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal

from django.conf import settings
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


def states(rows: Sequence[Backend], told: Seen | None, *, has_first_tokens: bool = True) -> list[BackendState]:
    """rows: with their memberships and deployments at hand. has_first_tokens: a query more."""
    first_tokens = first_tokens_ms(timezone.now() - LATELY) if rows and has_first_tokens else {}
    return [_state(row, told, first_tokens.get(row.name)) for row in rows]


def _state(row: Backend, told: Seen | None, first_token_ms: float | None) -> BackendState:
    pools = sorted(member.deployment.name for member in row.memberships.all())
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
        pools=pools,
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
