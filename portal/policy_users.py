"""Whom a content policy concerns: the aliases and keys that name it, and that mean it."""

from collections.abc import Collection
from dataclasses import dataclass, field

from django.db.models import Q
from django.utils import timezone

from accounts.models import ApiKey, Tenant
from gateway.models import ContentPolicy, ModelAlias


@dataclass(frozen=True, slots=True)
class Users:
    """Names of a tenant; of the platform's policies `acme/general`."""

    aliases: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.aliases) + len(self.keys)


def users_of(holder: Tenant | None, names: Collection[str]) -> dict[str, Users]:
    """By the policy's name, in three queries. A name means a tenant's own policy before the platform's."""
    aliases = ModelAlias.objects.filter(policies__overlap=list(names))
    rotated_away = Q(successor__isnull=False, expires_at__lte=timezone.now())
    keys = ApiKey.objects.filter(policies__overlap=list(names), revoked_at=None).exclude(rotated_away)
    own: set[tuple[object, str]] = set()
    if holder is not None:
        aliases, keys = aliases.filter(tenant=holder), keys.for_tenant(holder)
    else:
        rows = ContentPolicy.objects.published().filter(tenant__isnull=False, name__in=names)
        own = set(rows.values_list("tenant", "name"))
    found = {name: Users() for name in names}
    columns = ("name", "policies", "tenant", "tenant__slug")
    for kind, named in (("aliases", aliases.values_list(*columns)), ("keys", keys.values_list(*columns))):
        for user, policies, tenant, slug in named.order_by("tenant__slug", "name"):
            for name in found.keys() & set(policies):
                if (tenant, name) not in own:
                    getattr(found[name], kind).append(user if holder else f"{slug}/{user}")
    return found
