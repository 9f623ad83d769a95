"""The language of the pages: kept in a cookie, and on the user's row for the next sign-in elsewhere."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.utils.http import url_has_allowed_host_and_scheme

from accounts import people
from accounts.models import User
from portal.access import by, public
from portal.forms.language import LanguageForm
from portal.views import errors


@public(methods=("POST",))
def switch(request: HttpRequest) -> HttpResponse:
    form = LanguageForm(request.POST)
    if not form.is_valid():
        return errors.bad_request(request)
    language = form.cleaned_data["language"]
    if isinstance(request.user, User):
        people.revise(request.user, language=language, **by(request))
    response = redirect(_own_page(request, form.cleaned_data["next"]))
    remember(response, language)
    return response


def remember(response: HttpResponseBase, language: str) -> None:
    keep(response, settings.LANGUAGE_COOKIE_NAME, language)


def keep(response: HttpResponseBase, cookie: str, value: str, *, is_for_scripts: bool = False) -> None:
    """A choice of how pages look, for a year, in this browser."""
    response.set_cookie(
        cookie,
        value,
        max_age=settings.LANGUAGE_COOKIE_AGE,
        samesite="Lax",
        secure=settings.LANGUAGE_COOKIE_SECURE,
        httponly=not is_for_scripts,
    )


def _own_page(request: HttpRequest, address: str) -> str:
    is_ours = url_has_allowed_host_and_scheme(address, {request.get_host()}, require_https=request.is_secure())
    return address if is_ours else "/"
