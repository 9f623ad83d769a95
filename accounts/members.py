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


def assignable_roles(actor: User | None, tenant: Tenant) -> frozenset[str]:
    """The roles that `actor` may give in the tenant, and take away: all for operators and commands (None)."""
    if actor is None or actor.is_operator:
        return frozenset(Role.values)
    own = Membership.objects.for_tenant(tenant).filter(user=actor).values_list("role", flat=True).first() or ""
    return frozenset(role for role in Role.values if may_assign(own, role))


def require_assignable(actor: User | None, tenant: Tenant, *roles: str) -> None:
    """Raises PermissionDenied. Asked inside the transaction that writes: a right that was just taken away is gone."""
    if not assignable_roles(actor, tenant).issuperset(roles):
        raise PermissionDenied


def is_last_owner(member: Membership) -> bool:
    others = Membership.objects.for_tenant(member.tenant).filter(role=Role.OWNER).exclude(pk=member.pk)
    return member.role == Role.OWNER and not others.exists()


@transaction.atomic
def change_role(member: Membership, role: str, **by: Unpack[audit.By]) -> bool:
    """Give `member` another role. False when it is the one they have: nothing is written then.

    Raises MemberError for the last owner, PermissionDenied where the actor may not assign both roles.
    """
    row = _locked(member)
    require_assignable(by["actor"], row.tenant, row.role, role)
    if row.role == role:
        return False
    _require_another_owner(row)
    before = row.role
    row.role = role
    row.save(update_fields=["role"])
    member.role = role
    _record("member.changed", row, by, before={"role": before}, after={"role": role})
    return True


@transaction.atomic
def remove(member: Membership, **by: Unpack[audit.By]) -> None:
    """Take `member` out of the tenant. The keys they made stay: keys are the tenant's.

    Raises MemberError for the last owner, PermissionDenied where the actor may not assign the member's role.
    """
    row = _locked(member)
    require_assignable(by["actor"], row.tenant, row.role)
    _require_another_owner(row)
    row.delete()
    _record("member.deleted", row, by, before={"role": row.role})


def _locked(member: Membership) -> Membership:
    # The tenant's row first, and for all: two that take away each other's owner then wait for one another in one order.
    tenant = Tenant.objects.select_for_update(no_key=True).get(pk=member.tenant_id)
    row = Membership.objects.select_for_update(of=("self",)).select_related("user").filter(pk=member.pk).first()
    if row is None:
        raise MemberError("member", _("This person is no member any more."))
    row.tenant = tenant
    return row


def _require_another_owner(member: Membership) -> None:
    if is_last_owner(member):
        raise MemberError("role", _("A tenant keeps one owner at least: make somebody else an owner first."))


def _record(verb: str, member: Membership, by: audit.By, **states: object) -> None:
    audit.record(verb=verb, target=f"member {member.user}", tenant=member.tenant, **states, **by)
