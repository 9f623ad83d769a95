"""Who gets in: operators, providers, rules of the second factor, lock-outs. A link for a new password is in one answer
alone, that of the POST that made it.
"""

from typing import Any, Final
from uuid import UUID

from allauth.mfa.models import Authenticator
from django.conf import settings
from django.contrib import messages
from django.db.models import Exists, OuterRef
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _

from accounts import operators, security
from accounts.models import User
from portal import keyset
from portal.access import by, operator
from portal.forms.access import OperatorForm, RescueForm, RulesForm, UnlockForm
from portal.identity import lockouts, rescue
from portal.identity.second_factor import FACTORS

LOCKOUTS_SHOWN: Final = 50


@operator()
def index(request: HttpRequest) -> HttpResponse:
    return _page(request)


@operator(("POST",))
def add_operator(request: HttpRequest) -> HttpResponse:
    form = OperatorForm(request.POST)
    if not form.is_valid():
        return _page(request, operator_form=form)
    try:
        user, _is_new = operators.add(form.cleaned_data["email"], **by(request))
    except operators.OperatorError as error:
        form.add_error("email", error.message)
        return _page(request, operator_form=form)
    if user.has_usable_password():
        messages.success(request, _("%(email)s is an operator now.") % {"email": user.email})
        return redirect("admin_access")
    return _link(request, user, rescue.path_for_new_password(user))


@operator(("GET", "HEAD", "POST"))
def remove_operator(request: HttpRequest, pk: UUID) -> HttpResponse:
    user = get_object_or_404(User, pk=pk, is_operator=True)
    refusal = ""
    if request.method == "POST":
        try:
            operators.remove(user, **by(request))
        except operators.OperatorError as error:
            refusal = error.message
        else:
            messages.success(request, _("%(email)s is no operator any more.") % {"email": user.email})
            return redirect("home" if user == request.user else "admin_access")
    return render(request, "portal/access/remove.html", {"who": user, "refusal": refusal})


@operator(("POST",))
def set_rules(request: HttpRequest) -> HttpResponse:
    form = RulesForm(request.POST)
    if not form.is_valid():
        return _page(request, rules_form=form)
    is_changed = security.set_rules(form.cleaned_data["subjects"], **by(request))
    messages.success(request, _("The rules are in force.") if is_changed else _("Nothing was changed."))
    return redirect("admin_access")


@operator(("POST",))
def unlock(request: HttpRequest) -> HttpResponse:
    form = UnlockForm(request.POST)
    is_lifted = form.is_valid() and lockouts.lift(form.cleaned_data["email"], form.cleaned_data["address"], **by(request))
    messages.success(request, _("Unlocked: the next attempt counts.") if is_lifted else _("This lock-out is over already."))
    return redirect("admin_access")


@operator(("POST",))
def help_in(request: HttpRequest) -> HttpResponse:
    """For somebody who cannot get in: a link for a new password, or the second factor taken off."""
    form = RescueForm(request.POST)
    if not form.is_valid():
        return _page(request, rescue_form=form)
    user = form.user
    if form.cleaned_data["what"] == "link":
        return _link(request, user, rescue.hand_out_link(user, **by(request)))
    if rescue.remove_second_factor(user, **by(request)):
        messages.success(request, _("%(email)s signs in with the password alone now.") % {"email": user.email})
    else:
        messages.info(request, _("%(email)s has no second factor.") % {"email": user.email})
    return redirect("admin_access")


def _page(request: HttpRequest, **forms: Any) -> HttpResponse:
    rows = User.objects.filter(is_operator=True)
    rows = rows.annotate(
        has_second_factor=Exists(Authenticator.objects.filter(user=OuterRef("pk"), type__in=FACTORS)),
    )
    locked = lockouts.in_force()
    context = {
        "page": keyset.page_of(request, rows, (keyset.Column("email"),)),
        "operator_form": OperatorForm(),
        "rescue_form": RescueForm(),
        "rules_form": RulesForm(),
        "providers": settings.SOCIALACCOUNT_PROVIDERS["openid_connect"]["APPS"],
        "locked": locked[:LOCKOUTS_SHOWN] if locked is not None else None,
        "locked_more": max(0, len(locked or ()) - LOCKOUTS_SHOWN),
        "failures": settings.AXES_FAILURE_LIMIT,
        "minutes": int(settings.AXES_COOLOFF_TIME.total_seconds() // 60),
        **forms,
    }
    return render(request, "portal/access/index.html", context)


def _link(request: HttpRequest, user: User, path: str) -> HttpResponse:
    hours = settings.PASSWORD_RESET_TIMEOUT // 3600
    context = {"who": user, "link": request.build_absolute_uri(path), "hours": hours}
    return render(request, "portal/access/link.html", context)
