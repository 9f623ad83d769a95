"""What the link of an invitation opens. Whoever holds it may read whom it is for; a link that is used, withdrawn, past its end
or made up answers the same.
"""

from typing import Final

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from accounts import inviting
from accounts.audit import By
from accounts.inviting import InvitationOver
from accounts.models import Invitation, Membership, User
from portal.access import by, public
from portal.forms.members import JoinForm
from portal.middleware import REQUEST_ID

READ_AND_POST: Final = ("GET", "HEAD", "POST")


@public(methods=READ_AND_POST)
@never_cache
@sensitive_variables("token")
@sensitive_post_parameters("password", "again")
def accept(request: HttpRequest, token: str) -> HttpResponse:
    try:
        invitation = inviting.find(token)
        if isinstance(request.user, User):
            return _for_signed_in(request, invitation, token, request.user)
        if User.objects.filter(email=invitation.email).exists():
            return _page(request, invitation, "sign_in")
        return _for_new(request, invitation, token)
    except InvitationOver:
        return render(request, "portal/invite/over.html", status=404)


def _for_signed_in(request: HttpRequest, invitation: Invitation, token: str, user: User) -> HttpResponse:
    if user.email != invitation.email:
        return _page(request, invitation, "other_person")
    if request.method == "POST":
        inviting.accept(token, **by(request))
        return _welcome(request, invitation)
    is_member = Membership.objects.for_tenant(invitation.tenant).filter(user=user).exists()
    return _page(request, invitation, "accept", is_member=is_member)


def _for_new(request: HttpRequest, invitation: Invitation, token: str) -> HttpResponse:
    form = JoinForm(request.POST or None, email=invitation.email)
    if request.method == "POST" and form.is_valid():
        said = form.cleaned_data
        nobody = By(actor=None, address=request.META.get("REMOTE_ADDR"), request_id=request.META.get(REQUEST_ID, ""))
        user = inviting.accept_anew(token, name=said["name"], password=said["password"], **nobody)
        # Named, because there may be several: the last one is that of passwords.
        login(request, user, backend=settings.AUTHENTICATION_BACKENDS[-1])
        return _welcome(request, invitation)
    return _page(request, invitation, "new_person", form=form)


def _welcome(request: HttpRequest, invitation: Invitation) -> HttpResponse:
    messages.success(request, _("Welcome: you are a member of %(tenant)s now.") % {"tenant": invitation.tenant.name})
    return redirect("tenant", invitation.tenant.slug)


def _page(request: HttpRequest, invitation: Invitation, state: str, **more: object) -> HttpResponse:
    """state: accept, sign_in, other_person or new_person."""
    return render(request, "portal/invite/page.html", {"invitation": invitation, "state": state, **more})
