"""How limits stand: the rows of the configuration, with what Redis has counted of each."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from django.conf import settings

from accounts.models import Tenant
from gateway.models import Limit
from usage.limits import BoundLimit
from usage.quota import Quota
from usage.reservation import LimitState
from usage.store import StoreUnavailable, connect

BAR: Final = 1000  # the width of a whole bar, in its own units
NEARLY: Final = 800
SOON_S: Final = 120  # a reset within it is told in seconds


@dataclass(frozen=True, slots=True)
class Standing:
    """One limit. state None: nobody can tell now. used_width, reserved_width: of a bar that is BAR wide."""

    row: Limit
    state: LimitState | None = None
    resets_at: datetime | None = None
    used_width: int = 0
    reserved_width: int = 0

    @property
    def level(self) -> str:
        """full, nearly, or "" where there is room or nobody can tell."""
        if self.state is None:
            return ""
        if self.state.remaining == 0:
            return "full"
        return "nearly" if self.used_width + self.reserved_width >= NEARLY else ""

    @property
    def resets_in_s(self) -> int | None:
        """None where it is further away, or nothing is used."""
        reset_s = self.state.reset_s if self.state else 0
        return max(1, round(reset_s)) if 0 < reset_s < SOON_S else None


def standings(tenant: Tenant, rows: Sequence[Limit]) -> list[Standing]:
    """A hundred rows at most: a script of Redis holds up every call while it runs. All without state when Redis is out."""
    if not rows:
        return []
    now_s = time.time()
    try:
        with connect(settings.REDIS_URL, max_connections=1) as client:
            bound = [_bound(tenant, row) for row in rows]
            states = Quota(client).state(str(tenant.id), bound, time_zone=tenant.time_zone, now_s=now_s)
    except StoreUnavailable:
        return [Standing(row) for row in rows]
    return [_standing(row, state, now_s) for row, state in zip(rows, states, strict=True)]


def _bound(tenant: Tenant, row: Limit) -> BoundLimit:
    """As the gateway counts it, see usage.limits.bind."""
    if row.key_id is not None:
        return BoundLimit("key", str(row.key_id), row.configured)
    if row.alias is not None:
        return BoundLimit("alias", row.alias.name, row.configured)
    return BoundLimit("tenant", str(tenant.id), row.configured)


def _standing(row: Limit, state: LimitState, now_s: float) -> Standing:
    used = min(BAR, state.used * BAR // row.max)
    reserved = min(BAR - used, state.reserved * BAR // row.max)
    resets_at = datetime.fromtimestamp(now_s, UTC) + timedelta(seconds=state.reset_s) if state.reset_s else None
    return Standing(row, state, resets_at, used, reserved)
