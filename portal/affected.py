"""Who a change of a deployment or an alias concerns: what names it, and how much it was called in the last hour."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.db.models import Q
from django.utils import timezone

from accounts.models import ApiKey
from gateway.config.deployments import falling_back_to
from gateway.models import Deployment, ModelAlias
from usage.traffic import calls_of_aliases

LATELY: Final = timedelta(hours=1)
ALIASES_SHOWN: Final = 50


@dataclass(frozen=True, slots=True)
class Concerned:
    """One alias that names a deployment. calls: of the last hour, those that ended."""

    alias: ModelAlias
    is_canary: bool
    calls: int


@dataclass(frozen=True, slots=True)
class Affected:
    """shown: the first ALIASES_SHOWN of `aliases`, which is how many there are, in `tenants` tenants."""

    shown: Sequence[Concerned]
    aliases: int
    tenants: int
    falls_back: Sequence[Deployment]

    @property
    def calls(self) -> int:
        return sum(concerned.calls for concerned in self.shown)

    @property
    def is_nobody(self) -> bool:
        return not self.aliases and not self.falls_back


def by_deployment(deployment: Deployment) -> Affected:
    rows = ModelAlias.objects.filter(Q(deployment=deployment) | Q(canary=deployment))
    shown = list(rows.select_related("tenant").order_by("tenant__slug", "name")[:ALIASES_SHOWN])
    counted = _calls(shown)
    return Affected(
        [Concerned(row, row.deployment_id != deployment.pk, counted.get((row.tenant_id, row.name), 0)) for row in shown],
        rows.count(),
        rows.order_by().values("tenant").distinct().count(),
        falling_back_to(deployment),
    )


def calls_lately(alias: ModelAlias) -> int:
    return _calls([alias]).get((alias.tenant_id, alias.name), 0)


def keys_naming(alias: ModelAlias) -> int:
    """How many live keys were narrowed to aliases, this one among them."""
    return ApiKey.objects.filter(tenant=alias.tenant, revoked_at=None, aliases__contains=[alias.name]).count()


def _calls(rows: Sequence[ModelAlias]) -> dict[tuple[UUID, str], int]:
    named: dict[UUID, list[str]] = {}
    for row in rows:
        named.setdefault(row.tenant_id, []).append(row.name)
    return calls_of_aliases(named, timezone.now() - LATELY) if named else {}
