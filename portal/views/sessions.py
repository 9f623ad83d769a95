"""Signing in and out: allauth's views, each behind the one door; and what a person who is locked out sees."""

import logging
from collections.abc import Callable
from typing import Any, Final

from allauth.account import views as account
from allauth.account.utils import get_next_redirect_url
from allauth.mfa.base import views as mfa
from allauth.mfa.webauthn import views as webauthn
from allauth.socialaccount import views as social
from allauth.socialaccount.providers.openid_connect import views as openid_connect
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils.cache import add_never_cache_headers
from django.utils.translation import gettext as _
from requests import RequestException

from portal import letters
from portal.access import public
from portal.forms.account import ForgottenPasswordForm
from portal.identity import lockouts
from portal.views.account import written

logger = logging.getLogger(__name__)

READ_AND_POST: Final = ("GET", "HEAD", "POST")


class SignInByPasskey(webauthn.LoginWebAuthnView):  # type: ignore[misc]  # allauth ships no types
    """Goes on to the page that was asked for, as the password does."""

    def form_valid(self, form: Any) -> HttpResponse:
        login = webauthn.Login(
            user=form.cleaned_data["credential"].user, redirect_url=get_next_redirect_url(self.request, "next")
        )
        response: HttpResponse = webauthn.flows.perform_passwordless_login(self.request, form.cleaned_data["credential"], login)
        return response


sign_in = public(READ_AND_POST)(account.login)
sign_out = public(("POST",))(account.logout)
second_factor = public(READ_AND_POST)(mfa.authenticate)
by_passkey = public(READ_AND_POST)(SignInByPasskey.as_view())
closed = public()(account.account_inactive)
new_password = public(READ_AND_POST)(written(account.password_reset_from_key))
new_password_set = public()(account.password_reset_from_key_done)
forgotten_sent = public()(account.password_reset_done)
provider_cancelled = public()(social.login_cancelled)
provider_failed = public()(social.login_error)


@public(READ_AND_POST)
def forgotten(request: HttpRequest) -> HttpResponseBase:
    """Without mail there is nobody to send a link to: the page says whom to ask."""
    if not settings.IS_MAIL_CONFIGURED:
        return render(request, "account/password_reset.html", {"form": None})
    try:
        answer: HttpResponseBase = account.password_reset(request)
    except letters.QueueUnavailable:
        form = ForgottenPasswordForm(request.POST)
        form.add_error(None, _("Nothing could be sent just now. Try again in a minute; if it stays so, tell an operator."))
        answer = render(request, "account/password_reset.html", {"form": form}, status=503)
    return answer


@public(("POST",))
def by_provider(request: HttpRequest, provider_id: str) -> HttpResponseBase:
    """To the provider, by a page that leads on: browsers hold a form to this host, redirects after it included."""
    answer = _asked(openid_connect.login, request, provider_id)
    if answer.status_code != 302 or "://" not in answer["Location"]:
        return answer
    page = render(request, "socialaccount/leave.html", {"address": answer["Location"]})
    add_never_cache_headers(page)
    return page


@public()
def provider_answer(request: HttpRequest, provider_id: str) -> HttpResponseBase:
    return _asked(openid_connect.callback, request, provider_id)


def _asked(view: Callable[..., HttpResponseBase], request: HttpRequest, provider_id: str) -> HttpResponseBase:
    """What needs the provider itself; a page that says so where it is out."""
    try:
        return view(request, provider_id)
    except RequestException:
        logger.exception("The sign-in provider %s gave no answer.", provider_id)
        return render(request, "socialaccount/authentication_error.html", status=502)


def locked_out(request: HttpRequest, *args: Any) -> HttpResponse:
    """django-axes shows it in place of whatever the view answered."""
    email = lockouts.account_of(request) or str(getattr(request.user, "email", ""))
    until = lockouts.end_of(email, lockouts.address_of(request))
    page = render(request, "account/locked.html", {"until": until, "minutes": lockouts.minutes_until(until)}, status=429)
    add_never_cache_headers(page)
    return page
