"""What a new tenant and a fresh installation begin with: rules without a name, which read in everybody's language."""

from typing import Any, Final

from django.db.models.signals import post_save
from django.dispatch import receiver

from accounts.models import Tenant
from accounts.roles import Role
from portal.alerts import kinds
from portal.alerts.models import AlertRule
from usage.limits import PERIODIC, TOKEN_NAMES

# Not those of a minute: at 80 % of these a program does no more than its work.
LIMITS: Final = sorted(PERIODIC | TOKEN_NAMES)
_TOLD: Final = {"roles": [Role.OWNER, Role.ADMIN]}
TENANT: Final[tuple[dict[str, Any], ...]] = (
    {"kind": kinds.LIMIT, "limits": LIMITS, **_TOLD},
    {"kind": kinds.KEY_EXPIRY, "tells_owner": True, **_TOLD},
    {"kind": kinds.ERROR_RATE, **_TOLD},
)
PLATFORM: Final[tuple[dict[str, Any], ...]] = (
    {"kind": kinds.BACKEND_DOWN},
    {"kind": kinds.JOURNAL_LAG},
    {"kind": kinds.GATEWAY_SILENT},
    {"kind": kinds.ERROR_RATE, "least_calls": 100},
)


def rules(holder: Tenant | None) -> list[AlertRule]:
    """Not saved yet."""
    chosen = PLATFORM if holder is None else TENANT
    return [AlertRule(tenant=holder, thresholds=list(kinds.KINDS[facts["kind"]].first), **facts) for facts in chosen]


@receiver(post_save, sender=Tenant, dispatch_uid="alert-rules-of-a-new-tenant")
def begin_with_rules(instance: Tenant, created: bool, raw: bool = False, **_: Any) -> None:
    if created and not raw:
        AlertRule.objects.bulk_create(rules(instance))
