"""One's own account: profile, password, second factor, passkeys, sessions; most of it allauth's views, behind the one door."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from allauth.account import views as account
from allauth.mfa.base import views as mfa
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes import views as recovery_codes
from allauth.mfa.totp import views as totp
from allauth.mfa.webauthn import views as webauthn
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import override

from accounts import audit, people
from accounts.models import AuditEvent
from portal import context, keyset
from portal.access import by, person, signed_in
from portal.forms.account import FactorNameForm, ProfileForm
from portal.identity import second_factor, sessions
from portal.views.language import keep, remember
from portal.wording import PROOFS

READ_AND_POST: Final = ("GET", "HEAD", "POST")
NEWEST_FIRST: Final = (keyset.Column("sequence", keyset.whole, is_descending=True),)
View = Callable[..., HttpResponseBase]


def written(view: View) -> View:
    """In one transaction, so that what the view writes and the audit event of it stand together."""

    @wraps(view)
    def page(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method != "POST":
            return view(request, *args, **kwargs)
        with transaction.atomic():
            return view(request, *args, **kwargs)

    return page


class SecondFactor(mfa.IndexView):  # type: ignore[misc]  # allauth ships no types
    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        owed = second_factor.is_owed_by(person(self.request))
        shown: dict[str, Any] = super().get_context_data(**kwargs)
        return shown | {"is_owed": owed}


class RenewRecoveryCodes(recovery_codes.GenerateRecoveryCodesView):  # type: ignore[misc]  # allauth ships no types
    def form_valid(self, form: Any) -> HttpResponse:
        response: HttpResponse = super().form_valid(form)
        user = person(self.request)
        audit.record(verb="person.recovery_codes_renewed", target=f"person {user}", **by(self.request))
        return response


# What leads to a second factor is open to who owes one; the rest of the account is not.
_setting_up = signed_in(READ_AND_POST, owing_second_factor=True)

password = signed_in(READ_AND_POST)(written(account.password_change))
password_set = signed_in(READ_AND_POST)(written(account.password_set))
confirm = _setting_up(account.reauthenticate)
confirm_code = _setting_up(mfa.reauthenticate)
confirm_passkey = _setting_up(webauthn.reauthenticate_webauthn)
factors = signed_in(owing_second_factor=True)(SecondFactor.as_view())
app_add = _setting_up(written(totp.activate_totp))
app_remove = signed_in(READ_AND_POST)(written(totp.deactivate_totp))
codes = signed_in(owing_second_factor=True)(recovery_codes.view_recovery_codes)
codes_renew = signed_in(READ_AND_POST)(written(RenewRecoveryCodes.as_view()))
codes_download = signed_in(owing_second_factor=True)(recovery_codes.download_recovery_codes)
passkeys = signed_in()(webauthn.list_webauthn)
passkey_add = _setting_up(written(webauthn.add_webauthn))
passkey_remove = signed_in(READ_AND_POST)(written(webauthn.remove_webauthn))


@signed_in(READ_AND_POST)
def profile(request: HttpRequest) -> HttpResponse:
    user = person(request)
    kept = {"name": user.name, "language": user.language, "theme": context.theme(request)}
    form = ProfileForm(request.POST or None, initial=kept)
    if request.method != "POST" or not form.is_valid():
        return render(request, "portal/account/profile.html", {"form": form})
    language = form.cleaned_data["language"]
    people.revise(user, name=form.cleaned_data["name"], language=language, **by(request))
    response = redirect("account")
    keep(response, context.THEME_COOKIE, form.cleaned_data["theme"], is_for_scripts=True)
    if language:
        remember(response, language)
    with override(language or None):
        messages.success(request, _("Your profile is saved."))
    return response


@signed_in()
def activity(request: HttpRequest) -> HttpResponse:
    """What happened to one's own account: sign-ins, those that failed too, and what protects it."""
    events = AuditEvent.objects.filter(target=f"person {person(request)}"[: audit.TARGET_MOST])
    page = keyset.page_of(request, events, NEWEST_FIRST, is_counted=False)
    shown = [(event, _told(event)) for event in page]
    return render(request, "portal/account/activity.html", {"page": page, "events": shown})


def _told(event: AuditEvent) -> str:
    """By what it was, in words."""
    facts = event.after if isinstance(event.after, dict) else {}
    named = facts.get("by") or facts.get("at") or facts.get("kind") or facts.get("provider") or ()
    names = [named] if isinstance(named, str) else named
    return ", ".join(str(PROOFS.get(name, name)) for name in names)


@signed_in(READ_AND_POST)
def factor_name(request: HttpRequest, pk: int) -> HttpResponse:
    """What an app or a passkey of one's own is called."""
    own = Authenticator.objects.filter(user=person(request), type__in=second_factor.FACTORS)
    factor = get_object_or_404(own, pk=pk)
    name = factor.data.get("name", "")
    form = FactorNameForm(request.POST or None, initial={"name": name})
    if request.method != "POST" or not form.is_valid():
        context = {"form": form, "name": name or factor.get_type_display(), "back": _page_of_factor(factor)}
        return render(request, "mfa/name.html", context)
    if second_factor.rename(factor, form.cleaned_data["name"], **by(request)):
        messages.success(request, _("It is called %(name)s now.") % form.cleaned_data)
    return redirect(_page_of_factor(factor))


def _page_of_factor(factor: Authenticator) -> str:
    return "mfa_index" if factor.type == Authenticator.Type.TOTP else "mfa_list_webauthn"


@signed_in(READ_AND_POST)
def own_sessions(request: HttpRequest) -> HttpResponse:
    """POST ends one, by its id, or all but this one."""
    user = person(request)
    rows = sessions.of(user)
    if request.method != "POST":
        return render(request, "portal/account/sessions.html", {"sessions": rows, "current": request.session.session_key})
    others = [row for row in rows if row.session_key != request.session.session_key]
    chosen = request.POST.get("session", "")
    if chosen:
        others = [row for row in others if str(row.pk) == chosen]
    sessions.end(user, others, **by(request))
    messages.success(request, _("Ended.") if others else _("There was no such session any more."))
    return redirect("sessions")
