"""Invitations: single use, an end, one open link an address; who may give which role; one audit event each."""

from datetime import timedelta

import pytest
from django.core.exceptions import PermissionDenied
from django.utils import timezone

from accounts import inviting
from accounts.inviting import InvitationOver
from accounts.members import MemberError
from accounts.models import AuditEvent, Invitation, Membership, Tenant, User
from accounts.roles import Role

pytestmark = pytest.mark.django_db
NEW = "new@acme.example"


def invite(tenant: Tenant, role: str = Role.DEVELOPER, email: str = NEW) -> tuple[Invitation, str]:
    return inviting.invite(tenant, email, role, actor=None, actor_label="test")


def accept(token: str, user: User) -> Membership:
    return inviting.accept(token, actor=user)


def test_the_token_is_kept_nowhere(acme: Tenant) -> None:
    invitation, token = invite(acme)
    assert len(token) >= 43
    kept = str(Invitation.objects.filter(pk=invitation.pk).values()) + str(list(AuditEvent.objects.values()))
    assert token not in kept


def test_invitation_is_found_by_its_token_alone(acme: Tenant) -> None:
    invitation, token = invite(acme)
    assert inviting.find(token) == invitation
    for wrong in ("", token[:-1], token.upper(), invitation.digest, "\udcff"):
        with pytest.raises(InvitationOver):
            inviting.find(wrong)


def test_a_person_with_an_account_joins_as_what_the_invitation_says(acme: Tenant) -> None:
    user = User.objects.create_user(NEW, "irrelevant")
    invitation, token = invite(acme, Role.ADMIN)
    assert accept(token, user).role == Role.ADMIN
    assert [event.verb for event in AuditEvent.objects.for_tenant(acme)] == ["member.joined", "member.invited"]
    invitation.refresh_from_db()
    assert invitation.accepted_at is not None


def test_a_link_works_once(acme: Tenant) -> None:
    user = User.objects.create_user(NEW)
    _invitation, token = invite(acme)
    member = accept(token, user)
    member.delete()
    with pytest.raises(InvitationOver):
        accept(token, user)
    assert not Membership.objects.for_tenant(acme).exists()


def test_somebody_elses_link_opens_nothing(acme: Tenant, globex_admin: User) -> None:
    _invitation, token = invite(acme)
    with pytest.raises(InvitationOver):
        accept(token, globex_admin)
    assert not Membership.objects.for_tenant(acme).exists()
    inviting.find(token)


def test_an_expired_link_opens_nothing(acme: Tenant) -> None:
    user = User.objects.create_user(NEW)
    invitation, token = invite(acme)
    assert timedelta(days=6, hours=23) < invitation.expires_at - timezone.now() <= timedelta(days=7)
    Invitation.objects.update(expires_at=timezone.now())
    with pytest.raises(InvitationOver):
        accept(token, user)
    with pytest.raises(InvitationOver):
        inviting.accept_anew(token, name="", password="x", actor=None)


def test_a_withdrawn_link_opens_nothing(acme: Tenant, acme_admin: User) -> None:
    invitation, token = invite(acme)
    assert inviting.withdraw(invitation, actor=acme_admin)
    assert not inviting.withdraw(invitation, actor=acme_admin)
    with pytest.raises(InvitationOver):
        inviting.find(token)
    assert AuditEvent.objects.for_tenant(acme).filter(verb="member.invitation_withdrawn").count() == 1


def test_a_second_link_replaces_the_first(acme: Tenant) -> None:
    _first, old = invite(acme, Role.VIEWER)
    second, new = invite(acme, Role.ADMIN, " New@ACME.example ")
    assert list(Invitation.objects.for_tenant(acme).open()) == [second]
    with pytest.raises(InvitationOver):
        inviting.find(old)
    assert inviting.find(new).role == Role.ADMIN
    event = AuditEvent.objects.for_tenant(acme)[0]
    assert (event.before["role"], event.after["role"]) == ("viewer", "admin")


def test_a_new_account_is_made_with_its_membership(acme: Tenant) -> None:
    _invitation, token = invite(acme)
    user = inviting.accept_anew(token, name="New", password="a long enough password", actor=None)
    assert (user.email, user.name) == (NEW, "New")
    assert user.check_password("a long enough password")
    assert user.memberships.get().role == Role.DEVELOPER
    assert AuditEvent.objects.for_tenant(acme)[0].actor == user


def test_a_link_never_sets_the_password_of_an_account_that_is_there(acme: Tenant, globex: Tenant) -> None:
    """Even of one without a password: whoever holds the link would have all that the account can do elsewhere."""
    user = User.objects.create_user(NEW)
    Membership.objects.create(tenant=globex, user=user, role=Role.OWNER)
    _invitation, token = invite(acme)
    with pytest.raises(InvitationOver):
        inviting.accept_anew(token, name="", password="mine now, thank you", actor=None)
    user.refresh_from_db()
    assert not user.has_usable_password()
    inviting.find(token)


def test_members_are_not_invited(acme: Tenant, acme_viewer: User) -> None:
    with pytest.raises(MemberError) as caught:
        invite(acme, email=acme_viewer.email.upper())
    assert caught.value.field == "email"


@pytest.mark.parametrize("email", ["", "nobody", "a@b", "a" * 250 + "@acme.example", "ü@acme.example", "a@ü.example"])
def test_what_is_no_address_is_refused(acme: Tenant, email: str) -> None:
    with pytest.raises(MemberError):
        invite(acme, email=email)
    assert not Invitation.objects.exists()


def test_nobody_invites_above_their_own_role(
    acme: Tenant, acme_owner: User, acme_admin: User, acme_developer: User, globex_admin: User, operator: User
) -> None:
    allowed = {
        acme_owner: set(Role.values),
        acme_admin: {"admin", "developer", "viewer"},
        acme_developer: set(),
        globex_admin: set(),
        operator: set(Role.values),
    }
    for actor, roles in allowed.items():
        for role in Role.values:
            if role in roles:
                inviting.invite(acme, NEW, role, actor=actor)
                Invitation.objects.all().delete()
            else:
                with pytest.raises(PermissionDenied):
                    inviting.invite(acme, NEW, role, actor=actor)
                assert not Invitation.objects.exists()


def test_an_admin_neither_withdraws_nor_replaces_an_owners_invitation(acme: Tenant, acme_admin: User) -> None:
    invitation, token = invite(acme, Role.OWNER)
    with pytest.raises(PermissionDenied):
        inviting.withdraw(invitation, actor=acme_admin)
    with pytest.raises(PermissionDenied):
        inviting.invite(acme, NEW, Role.VIEWER, actor=acme_admin)
    assert inviting.find(token) == invitation
