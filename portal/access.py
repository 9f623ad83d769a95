"""Who may open a page, and by which methods: the one door.

Each view of the URLconf is declared with `public`, `signed_in`, `operator`, `require` or `internal`; a test walks the
URLconf and fails on one that is not. A stranger's tenant and a tenant that does not exist give the same 404.

An operator who looks at a tenant as its members do is, until that ends, no operator: that tenant alone is there, to be
read, and whatever is sent is refused.
"""

import time
from collections.abc import Callable, Collection
from functools import wraps
from typing import Any, Concatenate, Final, Literal, ParamSpec, Protocol, cast
from uuid import UUID

from django.contrib.auth.signals import user_logged_out
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.dispatch import receiver
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from accounts import tenants
from accounts.audit import By
from accounts.models import Tenant, User
from accounts.roles import Action, allows
from gateway import signature
from portal import viewing
from portal.identity import second_factor
from portal.middleware import REQUEST_ID
from portal.views import errors

P = ParamSpec("P")
Access = Literal["public", "signed_in", "operator", "internal"] | Action

READ: Final = ("GET", "HEAD")
AS_MEMBER: Final = frozenset({Action.VIEW, Action.VIEW_AUDIT})  # what an operator may who looks at a tenant as its members do
SIGNED_MAX_BYTES: Final = 64 * 1024


class Page(Protocol):
    """A view that says who may open it, and by which methods."""

    access: Access
    methods: Collection[str]

    def __call__(self, request: HttpRequest, /, *args: Any, **kwargs: Any) -> HttpResponseBase: ...


def public(methods: Collection[str] = READ) -> Callable[[Callable[..., HttpResponseBase]], Page]:
    """Anyone may open it."""

    def declare(view: Callable[..., HttpResponseBase]) -> Page:
        return _declared(view, "public", methods)

    return declare


def signed_in(
    methods: Collection[str] = READ, *, owing_second_factor: bool = False
) -> Callable[[Callable[..., HttpResponseBase]], Page]:
    """Anyone who signed in; others are sent to the sign-in page and come back afterwards.

    owing_second_factor: also who must set up a second factor first, and can open nothing else until then.
    """

    def declare(view: Callable[..., HttpResponseBase]) -> Page:
        return _declared(_behind_sign_in(view, owing_second_factor=owing_second_factor), "signed_in", methods)

    return declare


def operator(
    methods: Collection[str] = READ, *, ends_viewing: bool = False
) -> Callable[[Callable[..., HttpResponseBase]], Page]:
    """Those who run the platform. For anybody else there is nothing here. ends_viewing: also while they view as a tenant."""

    def declare(view: Callable[..., HttpResponseBase]) -> Page:
        @wraps(view)
        def of_platform(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if viewing.viewed(request) is not None:
                return errors.viewing_only(request)
            if not person(request).is_operator:
                raise Http404
            return view(request, *args, **kwargs)

        return _declared(_behind_sign_in(of_platform, ends_viewing=ends_viewing), "operator", methods)

    return declare


def require(
    action: Action, methods: Collection[str] = READ
) -> Callable[[Callable[Concatenate[HttpRequest, Tenant, P], HttpResponseBase]], Page]:
    """Members of the tenant whose role allows `action`, and operators. The URL's `slug` reaches the view as a Tenant."""

    def declare(view: Callable[Concatenate[HttpRequest, Tenant, P], HttpResponseBase]) -> Page:
        @wraps(view)
        def of_tenant(request: HttpRequest, slug: str, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            return view(request, tenant_for(request, slug, action), *args, **kwargs)

        return _declared(_behind_sign_in(of_tenant), action, methods)

    return declare


def internal(view: Callable[[HttpRequest], HttpResponseBase]) -> Page:
    """The gateway, by POST. For anybody else, and with a signature that is not of this moment, there is nothing here."""

    @wraps(view)
    def page(request: HttpRequest) -> HttpResponseBase:
        is_short = int(request.META.get("CONTENT_LENGTH") or 0) <= SIGNED_MAX_BYTES
        signed = request.headers.get(signature.HEADER, "")
        if request.method == "POST" and is_short and signature.is_signed(request.body, signed, now_s=time.time()):
            return view(request)
        raise Http404

    declared = cast(Page, csrf_exempt(page))
    declared.access, declared.methods = "internal", ("POST",)
    return declared


def tenant_for(request: HttpRequest, slug: str, action: Action) -> Tenant:
    """The tenant, if the person may do `action` in it.

    Raises Http404 when there is no such tenant and when the person is no member, not to be told apart;
    PermissionDenied when a member's role does not allow it.
    """
    tenant = viewing.viewed(request)
    if tenant is None:
        tenant = Tenant.objects.visible_to(person(request)).filter(slug=slug).first()
    if tenant is None or tenant.slug != slug:
        raise Http404
    if not may(request, tenant, action):
        raise PermissionDenied
    return tenant


def may(request: HttpRequest, tenant: Tenant, action: Action) -> bool:
    """Is `action` to be offered? A view that does it asks for itself, by `require`."""
    if viewing.viewed(request) is not None:
        return action in AS_MEMBER and viewing.viewed(request) == tenant
    return person(request).is_operator or allows(_role(request, tenant), action)


def _role(request: HttpRequest, tenant: Tenant) -> str:
    """The person's role in the tenant, asked once a request; "" for a stranger."""
    roles: dict[UUID, str] = request.__dict__.setdefault("roles_of_tenants", {})
    if tenant.pk not in roles:
        found = tenant.memberships.filter(user=person(request)).values_list("role", flat=True).first()
        roles[tenant.pk] = found or ""
    return roles[tenant.pk]


def person(request: HttpRequest) -> User:
    """Who signed in. Raises PermissionDenied for nobody: a view that asks is declared `signed_in` or `require`."""
    if not isinstance(request.user, User):
        raise PermissionDenied
    return request.user


def by(request: HttpRequest) -> By:
    """Who acts, for the audit trail."""
    return acting(request, person(request))


def acting(request: HttpRequest, actor: User | None) -> By:
    """The same where nobody signed in yet."""
    return By(actor=actor, address=request.META.get("REMOTE_ADDR"), request_id=request.META.get(REQUEST_ID, ""))


def _behind_sign_in(
    view: Callable[..., HttpResponseBase], *, ends_viewing: bool = False, owing_second_factor: bool = False
) -> Callable[..., HttpResponseBase]:
    # Not cached: the browser's back button must show nothing after sign-out.
    @wraps(view)
    @never_cache
    def page(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not request.user.is_authenticated and errors.is_for_a_part(request):
            return errors.signed_out()
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path() if request.method in READ else "/")
        if not owing_second_factor and second_factor.is_owed_by(person(request)):
            return errors.whole_page_again() if errors.is_for_a_part(request) else redirect("mfa_index")
        if not ends_viewing and person(request).is_operator and viewing.recall(request) is not None:
            person(request).is_operator = False  # for this request: what pages show to operators alone is not shown either
            if request.method not in READ:
                return errors.viewing_only(request)
        return view(request, *args, **kwargs)

    return page


@receiver(user_logged_out, dispatch_uid="viewing-ends-with-the-session")
def end_viewing(request: HttpRequest, user: User | None, **_: Any) -> None:
    if user is not None and (tenant := viewing.end(request)) is not None:
        tenants.end_viewing(tenant, **by(request))


def _declared(view: Callable[..., HttpResponseBase], access: Access, methods: Collection[str]) -> Page:
    @wraps(view)
    def page(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method not in methods:
            return errors.method_not_allowed(request, methods)
        return view(request, *args, **kwargs)

    declared = cast(Page, page)
    declared.access, declared.methods = access, methods
    return declared
