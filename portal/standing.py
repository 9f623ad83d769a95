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
AT_ONCE: Final = 100  # rows a script reads


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
    def share(self) -> float:
        """Of the limit, what is used and reserved; 0 where nobody can tell."""
        return (self.state.used + self.state.reserved) / self.row.max if self.state else 0.0

    @property
    def percent(self) -> int:
        """Rounded down: 100 says that nothing is left."""
        return int(self.share * 100)

    @property
    def resets_in_s(self) -> int | None:
        """None where it is further away, or nothing is used."""
        reset_s = self.state.reset_s if self.state else 0
        return max(1, round(reset_s)) if 0 < reset_s < SOON_S else None


def standings(tenant: Tenant, rows: Sequence[Limit]) -> list[Standing]:
    """In the order of `rows`. All without state when Redis is out."""
    return standings_of([(tenant, rows)])[0]


def standings_of(holders: Sequence[tuple[Tenant, Sequence[Limit]]]) -> list[list[Standing]]:
    """The same of many tenants, in one round trip. A script of Redis holds up every call while it runs: it gets few rows."""
    parts = [(tenant, rows[at : at + AT_ONCE]) for tenant, rows in holders for at in range(0, len(rows), AT_ONCE)]
    now_s = time.time()
    answers: list[list[LimitState] | None] = []
    if parts:
        asked = [(str(tenant.id), [_bound(tenant, row) for row in rows], tenant.time_zone) for tenant, rows in parts]
        try:
            with connect(settings.REDIS_URL, max_connections=1) as client:
                answers = Quota(client).states(asked, now_s=now_s)
        except StoreUnavailable:
            answers = [None] * len(parts)
    told = {
        row.pk: _standing(row, states[at] if states else None, now_s)
        for (_, rows), states in zip(parts, answers, strict=True)
        for at, row in enumerate(rows)
    }
    return [[told[row.pk] for row in rows] for _, rows in holders]


def tightest(standings: Sequence[Standing]) -> Standing | None:
    """Which of them is used most. An enforced one before one that is only counted; None: there is none."""
    return max(standings, key=lambda one: (one.row.mode == "enforce", one.share), default=None)


def _bound(tenant: Tenant, row: Limit) -> BoundLimit:
    """As the gateway counts it, see usage.limits.bind."""
    if row.key_id is not None:
        return BoundLimit("key", str(row.key_id), row.configured)
    if row.alias is not None:
        return BoundLimit("alias", row.alias.name, row.configured)
    return BoundLimit("tenant", str(tenant.id), row.configured)


def _standing(row: Limit, state: LimitState | None, now_s: float) -> Standing:
    if state is None:
        return Standing(row)
    used = min(BAR, state.used * BAR // row.max)
    reserved = min(BAR - used, state.reserved * BAR // row.max)
    resets_at = datetime.fromtimestamp(now_s, UTC) + timedelta(seconds=state.reset_s) if state.reset_s else None
    return Standing(row, state, resets_at, used, reserved)
