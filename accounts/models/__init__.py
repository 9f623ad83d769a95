"""The tables of who: tenants and memberships, users, API keys, audit events."""

from accounts.models.audit import AuditEvent
from accounts.models.keys import ApiKey
from accounts.models.tenants import Membership, Tenant
from accounts.models.users import User

__all__ = ["ApiKey", "AuditEvent", "Membership", "Tenant", "User"]
