"""Pages that tenants and the platform both have: one view, which gets the tenant, or None for the platform."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse

from accounts.models import Tenant
from accounts.roles import Action
from portal.access import READ, Page, may, operator, require

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, Tenant | None, P], HttpResponseBase]


@dataclass(frozen=True, slots=True)
class Pages:
    """of_tenant: for those who may do the action there. of_platform: for operators. The latter's URL name begins `admin_`."""

    of_tenant: Page
    of_platform: Page


def held(action: Action, methods: Collection[str] = READ) -> Callable[[View[P]], Pages]:
    """Declare both, in the words of portal/access.py."""

    def declare(view: View[P]) -> Pages:
        @wraps(view)
        def of_platform(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            return view(request, None, *args, **kwargs)

        return Pages(require(action, methods)(view), operator(methods)(of_platform))

    return declare


def url_of(holder: Tenant | None, page: str, *args: object) -> str:
    """The page of this name, of the tenant or of the platform."""
    return reverse(page, args=[holder.slug, *args]) if holder else reverse(f"admin_{page}", args=list(args))


def may_here(request: HttpRequest, holder: Tenant | None, action: Action) -> bool:
    """Whoever sees a page of the platform may do what it offers."""
    return holder is None or may(request, holder, action)
