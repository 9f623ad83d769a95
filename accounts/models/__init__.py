"""The tables of who: tenants, memberships and invitations, users, security rules, API keys, audit events."""

from accounts.models.audit import AuditEvent
from accounts.models.invitations import Invitation
from accounts.models.keys import ApiKey
from accounts.models.security import SecurityRule
from accounts.models.tenants import Membership, Tenant
from accounts.models.users import User

__all__ = ["ApiKey", "AuditEvent", "Invitation", "Membership", "SecurityRule", "Tenant", "User"]
