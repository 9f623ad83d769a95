"""The members of a tenant, and invitations into it. The link of an invitation is in one answer alone, that of the POST that
made it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Case, IntegerField, Q, When
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_variables

from accounts import inviting, members
from accounts.members import MemberError
from accounts.models import ApiKey, Invitation, Membership, Tenant
from accounts.roles import ALLOWED, Action, Role
from portal import keyset, letters
from portal.access import by, may, person, require
from portal.forms.members import InviteForm, MemberFilter, RoleForm
from portal.identity import second_factor
from portal.keyset import Column
from portal.wording import MEMBERS_MAY

POST: Final = ("POST",)
READ_AND_POST: Final = ("GET", "HEAD", "POST")
_ADDRESS: Final = Column("user__email")
ORDERS: Final = keyset.orders(
    person=(_ADDRESS,),
    role=(Column("rank", keyset.whole), _ADDRESS.turned),
    since=(Column("created_at", keyset.moment), _ADDRESS),
)
INVITATIONS_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Shown:
    """has_second_factor None: it is not for this reader."""

    member: Membership
    has_second_factor: bool | None
    is_reader: bool
    is_changeable: bool


@dataclass(frozen=True, slots=True)
class Right:
    """One line of the table of roles; allowed: role by role, in the order of Role."""

    words: str
    allowed: list[tuple[str, bool]]


@require(Action.VIEW)
def index(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    form = MemberFilter(request.GET)
    form.is_valid()
    q, role = form.cleaned_data.get("q", ""), form.cleaned_data.get("role", "")
    rows = Membership.objects.for_tenant(tenant).select_related("user")
    if q:
        rows = rows.filter(Q(user__email__icontains=q) | Q(user__name__icontains=q))
    if role:
        rows = rows.filter(role=role)
    sort = form.cleaned_data.get("sort") or "-role"
    page = keyset.page_of(request, rows.annotate(rank=_rank()), ORDERS[sort])
    is_manager = may(request, tenant, Action.MANAGE_MEMBERS)
    roles = members.assignable_roles(person(request), tenant) if is_manager else frozenset()
    context = {
        "tenant": tenant,
        "form": form,
        "is_filtered": bool(q or role),
        "page": page,
        "sort": sort,
        "members": _shown(request, page.rows, roles),
        "may_manage": bool(roles),
        "rights": _rights(),
        "roles": Role.choices,
        "invitations": _invitations(tenant, roles) if roles else (),
    }
    return render(request, "portal/members/list.html", context)


@require(Action.MANAGE_MEMBERS, methods=READ_AND_POST)
@sensitive_variables("token", "link")
def invite(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    roles = members.assignable_roles(person(request), tenant)
    form = InviteForm(request.POST or None, roles=roles, initial={"role": Role.DEVELOPER})
    if request.method == "POST" and form.is_valid():
        try:
            invitation, token = inviting.invite(tenant, form.cleaned_data["email"], form.cleaned_data["role"], **by(request))
        except MemberError as error:
            form.refuse(error)
        else:
            link = request.build_absolute_uri(reverse("invite", args=[token]))
            fate = letters.queue_invitation(invitation, link)
            context = {"tenant": tenant, "invitation": invitation, "link": link, "fate": fate}
            return render(request, "portal/members/invited.html", context)
    context = {
        "tenant": tenant,
        "form": form,
        "rights": _rights(),
        "roles": Role.choices,
        "mails": letters.is_mail_configured(),
    }
    return render(request, "portal/members/invite.html", context)


@require(Action.MANAGE_MEMBERS, methods=READ_AND_POST)
def show(request: HttpRequest, tenant: Tenant, pk: int) -> HttpResponse:
    """A member's role, to be changed."""
    member = _member(tenant, pk)
    roles = members.assignable_roles(person(request), tenant)
    if member.role not in roles:
        raise PermissionDenied
    form = RoleForm(request.POST or None, roles=roles, initial={"role": member.role})
    if request.method == "POST" and form.is_valid():
        try:
            changed = members.change_role(member, form.cleaned_data["role"], **by(request))
        except MemberError as error:
            form.refuse(error)
        else:
            told = _("Changed: it counts from the next page that this person opens.") if changed else _("Nothing was changed.")
            messages.success(request, told)
            return redirect("members", tenant.slug)
    context = {
        "tenant": tenant,
        "member": member,
        "form": form,
        "is_reader": member.user_id == person(request).pk,
        "is_last_owner": members.is_last_owner(member),
        "rights": _rights(),
        "roles": Role.choices,
    }
    return render(request, "portal/members/show.html", context)


@require(Action.MANAGE_MEMBERS, methods=READ_AND_POST)
def remove(request: HttpRequest, tenant: Tenant, pk: int) -> HttpResponse:
    member = _member(tenant, pk)
    if member.role not in members.assignable_roles(person(request), tenant):
        raise PermissionDenied
    is_reader = member.user_id == person(request).pk
    refused = ""
    if request.method == "POST":
        try:
            members.remove(member, **by(request))
        except MemberError as error:
            refused = error.message
        else:
            messages.success(request, _("%(person)s is no member any more.") % {"person": member.user})
            return redirect("home") if is_reader and not person(request).is_operator else redirect("members", tenant.slug)
    context = {
        "tenant": tenant,
        "member": member,
        "refused": refused,
        "is_reader": is_reader,
        "is_last_owner": members.is_last_owner(member),
        "keys": ApiKey.objects.for_tenant(tenant).usable().filter(created_by=member.user, is_playground=False).count(),
    }
    return render(request, "portal/members/remove.html", context)


@require(Action.MANAGE_MEMBERS, methods=POST)
def withdraw(request: HttpRequest, tenant: Tenant, pk: UUID) -> HttpResponse:
    invitation = get_object_or_404(Invitation.objects.for_tenant(tenant), pk=pk)
    if inviting.withdraw(invitation, **by(request)):
        told = _("Withdrawn: the link for %(email)s opens nothing any more.")
    else:
        told = _("The invitation for %(email)s was accepted or withdrawn before.")
    messages.success(request, told % {"email": invitation.email})
    return redirect("members", tenant.slug)


def _member(tenant: Tenant, pk: int) -> Membership:
    return get_object_or_404(Membership.objects.for_tenant(tenant).select_related("user", "tenant"), pk=pk)


def _shown(request: HttpRequest, rows: Sequence[Membership], roles: frozenset[str]) -> list[Shown]:
    reader = person(request).pk
    safe = second_factor.had_among(row.user for row in rows) if roles else None
    return [
        Shown(
            row, None if safe is None else row.user_id in safe, is_reader=row.user_id == reader, is_changeable=row.role in roles
        )
        for row in rows
    ]


def _invitations(tenant: Tenant, roles: frozenset[str]) -> list[tuple[Invitation, bool]]:
    """The open ones, and whether this person may withdraw them."""
    rows = Invitation.objects.for_tenant(tenant).open()[:INVITATIONS_SHOWN]
    return [(row, row.role in roles) for row in rows]


def _rank() -> Case:
    """Owners above admins, and so on: by what a role may do."""
    return Case(*(When(role=role, then=len(ALLOWED[role])) for role in Role), output_field=IntegerField())


def _rights() -> list[Right]:
    return [Right(str(MEMBERS_MAY[action]), [(str(role.label), action in ALLOWED[role]) for role in Role]) for action in Action]
