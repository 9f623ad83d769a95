"""Invite people into a tenant by a link, withdraw the link, accept it: each is one transaction with its audit event.

The token of a link is returned once, by what made it, and kept nowhere: the table holds its digest.
"""

import hashlib
import secrets
from typing import Final, Unpack

from django.core.exceptions import ValidationError
from django.core.validators import EmailValidator
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts import audit
from accounts.members import MemberError, require_assignable
from accounts.models import Invitation, Membership, Tenant, User
from accounts.roles import Role

TOKEN_BYTES: Final = 32
EMAIL_MAX_CHARACTERS: Final = 254  # as the columns have it


class InvitationOver(Exception):
    """The link opens nothing: unknown, used, withdrawn or past its end, not to be told apart."""


@transaction.atomic
def invite(tenant: Tenant, email: str, role: str, **by: Unpack[audit.By]) -> tuple[Invitation, str]:
    """Invite `email` as `role`; returns the invitation and the token of its link, which nobody can show again.

    A link for this address that is still open is withdrawn by it: the new one replaces a lost one.
    Raises MemberError (field `email` or `role`), and PermissionDenied where the actor may not give that role.
    """
    address = _address(email)
    if role not in Role.values:
        raise MemberError("role", _("There is no such role."))
    require_assignable(by["actor"], tenant, role)
    Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)  # one invitation of a tenant after the other
    if Membership.objects.for_tenant(tenant).filter(user__email=address).exists():
        raise MemberError("email", _("%(email)s is a member already: change the role instead.") % {"email": address})
    open_links = Invitation.objects.for_tenant(tenant).filter(email=address, accepted_at=None, withdrawn_at=None)
    replaced = open_links.first()
    if replaced is not None:
        require_assignable(by["actor"], tenant, replaced.role)
    open_links.update(withdrawn_at=timezone.now())
    token = secrets.token_urlsafe(TOKEN_BYTES)
    invitation = Invitation.objects.create(
        tenant=tenant,
        email=address,
        role=role,
        digest=_digest(token),
        invited_by=by["actor"],
        invited_by_label=by.get("actor_label") or str(by["actor"]),
    )
    before = _facts(replaced) if replaced else None
    _record("member.invited", invitation, by, before=before, after=_facts(invitation))
    return invitation, token


@transaction.atomic
def withdraw(invitation: Invitation, **by: Unpack[audit.By]) -> bool:
    """Let the link open nothing any more. False when it was accepted or withdrawn before: nothing is written then.

    Raises PermissionDenied where the actor may not give the role it gives.
    """
    row = Invitation.objects.select_for_update(of=("self",)).select_related("tenant").get(pk=invitation.pk)
    require_assignable(by["actor"], row.tenant, row.role)
    if row.accepted_at is not None or row.withdrawn_at is not None:
        return False
    row.withdrawn_at = timezone.now()
    row.save(update_fields=["withdrawn_at"])
    _record("member.invitation_withdrawn", row, by, before=_facts(row))
    return True


def find(token: str) -> Invitation:
    """The open invitation of a link, with its tenant and who invited. Raises InvitationOver."""
    rows = Invitation.objects.open().select_related("tenant", "invited_by")
    invitation = rows.filter(digest=_digest(token)).first()
    if invitation is None:
        raise InvitationOver
    return invitation


@transaction.atomic
def accept(token: str, **by: Unpack[audit.By]) -> Membership:
    """Make the actor, whose address the link is for, a member. Raises InvitationOver, also for anybody else's link."""
    user = by["actor"]
    row = _locked(token)
    if user is None or user.email != row.email or not user.is_active:
        raise InvitationOver
    return _joined(row, user, by)


@transaction.atomic
def accept_anew(token: str, *, name: str, password: str, **by: Unpack[audit.By]) -> User:
    """Make an account for the address of the link, and a member of it. by: actor None; the new account is who acts.

    Raises InvitationOver, also where there is an account of this address: its owner signs in and accepts.
    """
    row = _locked(token)
    try:
        with transaction.atomic():
            user = User.objects.create_user(row.email, password, name=name)
    except IntegrityError as error:
        raise InvitationOver from error
    by["actor"] = user
    _joined(row, user, by)
    return user


def _locked(token: str) -> Invitation:
    """The open invitation, its row held: of two that accept at once the second finds it used."""
    rows = Invitation.objects.open().select_for_update(of=("self",)).select_related("tenant")
    row = rows.filter(digest=_digest(token)).first()
    if row is None:
        raise InvitationOver
    return row


def _joined(invitation: Invitation, user: User, by: audit.By) -> Membership:
    invitation.accepted_at = timezone.now()
    invitation.save(update_fields=["accepted_at"])
    # Somebody may have made them a member meanwhile: what was given then stays.
    member, _made = Membership.objects.get_or_create(tenant=invitation.tenant, user=user, defaults={"role": invitation.role})
    _record("member.joined", invitation, by, after={"role": member.role, "invited_by": invitation.invited_by_label})
    return member


def _address(email: str) -> str:
    address = User.objects.normalize_email(email.strip()).lower()
    try:
        EmailValidator()(address)
    except ValidationError as error:
        raise MemberError("email", _("This is no e-mail address; an example is person@example.com.")) from error
    if len(address) > EMAIL_MAX_CHARACTERS or not address.isascii():
        raise MemberError("email", _("An e-mail address has 254 characters at most, all of them ASCII."))
    return address


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _facts(invitation: Invitation) -> dict[str, object]:
    return {"id": invitation.pk, "email": invitation.email, "role": invitation.role, "expires_at": invitation.expires_at}


def _record(verb: str, invitation: Invitation, by: audit.By, **states: object) -> None:
    audit.record(verb=verb, target=f"member {invitation.email}", tenant=invitation.tenant, **states, **by)
