"""Who is a member of a tenant and as what: change a role, remove a member. Each is one transaction with its audit event.

A tenant that has an owner keeps one: whoever takes an owner away first locks the tenant's owners.
"""

from typing import Unpack

from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.utils.translation import gettext as _

from accounts import audit
from accounts.models import Membership, Tenant, User
from accounts.roles import Role, may_assign


class MemberError(Exception):
    """What was asked for cannot be. field: the argument at fault; message: for people, in their language."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


def may_deal(actor: User | None, tenant: Tenant, role: str) -> bool:
    """May `actor` give `role` in the tenant, or take it away? Operators and commands (None) may; members as their role says."""
    if actor is None or actor.is_operator:
        return True
    own = Membership.objects.for_tenant(tenant).filter(user=actor).values_list("role", flat=True).first()
    return own is not None and may_assign(own, role)


def require_dealing(actor: User | None, tenant: Tenant, *roles: str) -> None:
    """Raises PermissionDenied. Asked inside the transaction that writes: a right that was just taken away is gone."""
    if not all(may_deal(actor, tenant, role) for role in roles):
        raise PermissionDenied


@transaction.atomic
def change_role(member: Membership, role: str, **by: Unpack[audit.By]) -> bool:
    """Give `member` another role. False when it is the one they have: nothing is written then.

    Raises MemberError for the last owner, PermissionDenied where the actor may not deal in both roles.
    """
    row = _locked(member)
    require_dealing(by["actor"], row.tenant, row.role, role)
    if row.role == role:
        return False
    before = row.role
    if before == Role.OWNER:
        _require_another_owner(row)
    row.role = role
    row.save(update_fields=["role"])
    member.role = role
    facts = {"role": role}
    audit.record(verb="member.changed", target=_target(row), tenant=row.tenant, before={"role": before}, after=facts, **by)
    return True


@transaction.atomic
def remove(member: Membership, **by: Unpack[audit.By]) -> None:
    """Take `member` out of the tenant. The keys they made stay: keys are the tenant's.

    Raises MemberError for the last owner, PermissionDenied where the actor may not deal in the member's role.
    """
    row = _locked(member)
    require_dealing(by["actor"], row.tenant, row.role)
    if row.role == Role.OWNER:
        _require_another_owner(row)
    row.delete()
    audit.record(verb="member.deleted", target=_target(row), tenant=row.tenant, before={"role": row.role}, **by)


def _locked(member: Membership) -> Membership:
    # The tenant's row first, and for all: two that take away each other's owner then wait for one another in one order.
    tenant = Tenant.objects.select_for_update(no_key=True).get(pk=member.tenant_id)
    row = Membership.objects.select_for_update(of=("self",)).select_related("user").get(pk=member.pk)
    row.tenant = tenant
    return row


def _require_another_owner(member: Membership) -> None:
    if not Membership.objects.for_tenant(member.tenant).filter(role=Role.OWNER).exclude(pk=member.pk).exists():
        raise MemberError("role", _("A tenant keeps one owner at least: make somebody else an owner first."))


def _target(member: Membership) -> str:
    return f"member {member.user}"
