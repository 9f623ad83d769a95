"""Looking at a tenant as its members do: what an operator's session remembers of it. What that allows, access.py says."""

from typing import Final

from django.http import HttpRequest

from accounts.models import Tenant

SESSION_KEY: Final = "viewed_tenant"
_FOUND: Final = "viewed_tenant"


def begin(request: HttpRequest, tenant: Tenant) -> None:
    request.session[SESSION_KEY] = str(tenant.pk)


def end(request: HttpRequest) -> Tenant | None:
    """Forget it. The tenant that was looked at; None where there was none, or it is gone."""
    pk = request.session.pop(SESSION_KEY, None)
    return None if pk is None else Tenant.objects.filter(pk=pk).first()


def recall(request: HttpRequest) -> Tenant | None:
    """Which tenant this session looks at, for the rest of the request. One that was deleted meanwhile ends it."""
    pk = request.session.get(SESSION_KEY)
    if pk is None:
        return None
    tenant = Tenant.objects.filter(pk=pk).first()
    if tenant is None:
        del request.session[SESSION_KEY]
    request.__dict__[_FOUND] = tenant
    return tenant


def viewed(request: HttpRequest) -> Tenant | None:
    """What recall() found. Asks neither the session nor the database."""
    tenant: Tenant | None = request.__dict__.get(_FOUND)
    return tenant
