"""Designed error pages: what happened, one next step, the request id. They ask neither the database nor the session."""

from collections.abc import Collection

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.cache import add_never_cache_headers
from django.utils.translation import gettext as _

from accounts.audit import HoldsKey
from portal import context


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if isinstance(exception, HoldsKey):
        return _key_in_text(request)
    return _page(
        request,
        status=400,
        title=_("This request could not be read"),
        explanation=_("The address or the data your browser sent is malformed. Go back to the start page and try again."),
    )


def _key_in_text(request: HttpRequest) -> HttpResponse:
    return _page(
        request,
        status=400,
        title=_("There is an API key in what you sent"),
        explanation=_(
            "Nothing was changed: other people could read the key there. Go back, take it out of the text and send the form "
            "again. If others may have seen the key already, revoke it."
        ),
    )


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _page(
        request,
        status=403,
        title=_("Your role does not allow this"),
        explanation=_("If you need it for your work, ask an admin of this tenant to change your role."),
    )


def viewing_only(request: HttpRequest) -> HttpResponse:
    return _page(
        request,
        status=403,
        title=_("You are only looking"),
        explanation=_(
            "You see this tenant as its members do, and can change nothing; nothing was changed. "
            "Stop viewing first, by the button at the top of the tenant's pages."
        ),
    )


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return _page(
        request,
        status=403,
        title=_("This form is out of date"),
        explanation=_(
            "Nothing was changed. Go back, reload the page and send the form again; your browser must accept cookies."
        ),
    )


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _page(
        request,
        status=404,
        title=_("There is nothing here for you"),
        explanation=_("The page does not exist, or it belongs to a tenant you are not a member of."),
    )


def method_not_allowed(request: HttpRequest, methods: Collection[str]) -> HttpResponse:
    response = _page(
        request,
        status=405,
        title=_("This address cannot be opened like that"),
        explanation=_("It is meant for a button on another page. Start from the start page."),
    )
    response["Allow"] = ", ".join(methods)
    return response


def too_many(request: HttpRequest) -> HttpResponse:
    return _page(
        request,
        status=429,
        title=_("Too many attempts"),
        explanation=_("Wait some minutes, then try again. Nothing was changed."),
    )


def server_error(request: HttpRequest) -> HttpResponse:
    return _page(
        request,
        status=500,
        title=_("Something went wrong on our side"),
        explanation=_("Try again in a minute. If it happens again, tell your operator the request id below."),
    )


def is_for_a_part(request: HttpRequest) -> bool:
    """Does htmx ask, for what it puts into the page that is open? Whatever page it is led to would stand in that one."""
    return request.headers.get("HX-Request") == "true"


def signed_out() -> HttpResponse:
    """To htmx, where a page leads to sign-in: poll.js says it on the page that is open."""
    response = HttpResponse(status=401)
    add_never_cache_headers(response)
    return response


def whole_page_again() -> HttpResponse:
    """To htmx: the page that is open is asked for anew, which leads on."""
    return HttpResponse(status=204, headers={"HX-Refresh": "true"})


def _page(request: HttpRequest, *, status: int, title: str, explanation: str) -> HttpResponse:
    """Rendered without the request on purpose: no context processor then reads the session or the user."""
    words = {"status": status, "title": title, "explanation": explanation}
    response = HttpResponse(render_to_string("errors/page.html", context.page(request) | words), status=status)
    add_never_cache_headers(response)
    return response
