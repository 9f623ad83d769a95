"""Many rows at once: how rows of a tenant are reached, and what a person may see."""

from typing import TYPE_CHECKING, Self

from django.db import models
from django.utils import timezone

if TYPE_CHECKING:
    from accounts.models import ApiKey, AuditEvent, Invitation, Membership, Tenant, User  # noqa: F401 - ruff reads no quoted base class


class TenantQuerySet(models.QuerySet["Tenant"]):
    def visible_to(self, user: "User") -> Self:
        """Every tenant for an operator, else those the user is a member of."""
        if not user.is_active:
            return self.none()
        return self if user.is_operator else self.filter(memberships__user=user)


class MembershipQuerySet(models.QuerySet["Membership"]):
    def for_tenant(self, tenant: "Tenant") -> Self:
        return self.filter(tenant=tenant)


class InvitationQuerySet(models.QuerySet["Invitation"]):
    def for_tenant(self, tenant: "Tenant") -> Self:
        return self.filter(tenant=tenant)

    def open(self) -> Self:
        """Those whose link still opens something."""
        return self.filter(accepted_at=None, withdrawn_at=None, expires_at__gt=timezone.now())


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    def for_tenant(self, tenant: "Tenant") -> Self:
        return self.filter(tenant=tenant)

    def usable(self) -> Self:
        """Neither revoked nor expired, in an active tenant."""
        unexpired = models.Q(expires_at=None) | models.Q(expires_at__gt=timezone.now())
        return self.filter(unexpired, revoked_at=None, tenant__is_active=True)

    def in_state(self, state: str) -> Self:
        """Those of which `ApiKey.state` says so; "playground": those of the playground, in whatever state."""
        if state == "playground":
            return self.filter(is_playground=True)
        if state == "revoked":
            return self.filter(revoked_at__isnull=False)
        now, current = timezone.now(), self.filter(revoked_at=None)
        if state == "expired":
            return current.filter(expires_at__lte=now)
        unexpired = models.Q(expires_at=None) | models.Q(expires_at__gt=now)
        return current.filter(unexpired, successor__isnull=state == "active")


class AuditEventQuerySet(models.QuerySet["AuditEvent"]):
    def for_tenant(self, tenant: "Tenant") -> Self:
        return self.filter(tenant=tenant)
