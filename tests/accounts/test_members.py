"""Members: who may change whom, the last owner who stays, two who act at once; one audit event each."""

import threading
from collections.abc import Callable

import pytest
from django.core.exceptions import PermissionDenied
from django.db import connection

from accounts import members
from accounts.members import MemberError
from accounts.models import AuditEvent, Membership, Tenant, User
from accounts.roles import Role, may_assign

pytestmark = pytest.mark.django_db


def member_of(tenant: Tenant, user: User) -> Membership:
    return Membership.objects.get(tenant=tenant, user=user)


@pytest.mark.parametrize(
    ("own", "assignable"),
    [
        ("owner", "owner admin developer viewer"),
        ("admin", "admin developer viewer"),
        ("developer", ""),
        ("viewer", ""),
        ("", ""),
    ],
)
def test_nobody_assigns_a_role_above_their_own(own: str, assignable: str) -> None:
    assert [role for role in Role.values if may_assign(own, role)] == assignable.split()
    assert not may_assign(own, "emperor")


def test_a_role_is_changed_with_one_event(acme: Tenant, acme_admin: User, acme_viewer: User) -> None:
    member = member_of(acme, acme_viewer)
    assert members.change_role(member, Role.DEVELOPER, actor=acme_admin)
    assert member_of(acme, acme_viewer).role == member.role == Role.DEVELOPER
    event = AuditEvent.objects.for_tenant(acme).get()
    assert (event.verb, event.before, event.after) == ("member.changed", {"role": "viewer"}, {"role": "developer"})
    assert not members.change_role(member, Role.DEVELOPER, actor=acme_admin)
    assert AuditEvent.objects.count() == 1


def test_a_member_is_removed_and_their_keys_stay(acme: Tenant, acme_admin: User, acme_developer: User) -> None:
    member = member_of(acme, acme_developer)
    members.remove(member, actor=acme_admin)
    assert not Membership.objects.filter(user=acme_developer).exists()
    event = AuditEvent.objects.for_tenant(acme).get()
    assert (event.verb, event.target) == ("member.deleted", f"member {acme_developer.email}")


def test_an_admin_neither_makes_nor_unmakes_owners(acme: Tenant, acme_owner: User, acme_admin: User) -> None:
    Membership.objects.create(tenant=acme, user=User.objects.create_user("second@acme.example"), role=Role.OWNER)
    owner = member_of(acme, acme_owner)
    with pytest.raises(PermissionDenied):
        members.change_role(owner, Role.VIEWER, actor=acme_admin)
    with pytest.raises(PermissionDenied):
        members.remove(owner, actor=acme_admin)
    with pytest.raises(PermissionDenied):
        members.change_role(member_of(acme, acme_admin), Role.OWNER, actor=acme_admin)
    assert member_of(acme, acme_owner).role == Role.OWNER
    assert not AuditEvent.objects.exists()


def test_a_stranger_changes_nobody(acme: Tenant, acme_viewer: User, globex: Tenant, globex_admin: User) -> None:
    with pytest.raises(PermissionDenied):
        members.remove(member_of(acme, acme_viewer), actor=globex_admin)


def test_the_last_owner_stays_whoever_asks(acme: Tenant, acme_owner: User, acme_admin: User, operator: User) -> None:
    owner = member_of(acme, acme_owner)
    for actor in (acme_owner, operator):
        with pytest.raises(MemberError):
            members.change_role(owner, Role.ADMIN, actor=actor)
        with pytest.raises(MemberError):
            members.remove(owner, actor=actor)
    members.change_role(member_of(acme, acme_admin), Role.OWNER, actor=acme_owner)
    members.change_role(owner, Role.ADMIN, actor=acme_owner)
    assert [m.role for m in (owner, member_of(acme, acme_admin))] == [Role.ADMIN, Role.OWNER]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("act", [members.remove, lambda m, **by: members.change_role(m, Role.VIEWER, **by)])
def test_two_owners_who_unmake_each_other_at_once_leave_one(act: Callable[..., object]) -> None:
    acme = Tenant.objects.create(slug="acme", name="Acme")
    owners = [
        Membership.objects.create(tenant=acme, user=User.objects.create_user(f"{n}@acme.example"), role=Role.OWNER)
        for n in range(2)
    ]
    start, ends = threading.Barrier(2), []

    def unmake(member: Membership) -> None:
        try:
            start.wait(30)
            act(member, actor=None, actor_label="test")
            ends.append("done")
        except MemberError:
            ends.append("refused")
        finally:
            connection.close()

    threads = [threading.Thread(target=unmake, args=(member,)) for member in owners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(ends) == ["done", "refused"]
    assert Membership.objects.for_tenant(acme).filter(role=Role.OWNER).count() == 1
