"""What a key may know of itself: /v1/usage, /v1/limits, /v1/requests/{id}; with the scope usage:tenant, of its whole tenant."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.core.exceptions import TooManyFieldsSent
from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts import scopes
from gateway import lifecycle, reports
from gateway.api.openapi import GROUPS
from gateway.api.permissions import HasScope
from gateway.api.views import GatewayView, json_response, principal_of
from gateway.exceptions import InvalidRequest, Overloaded, RequestNotFound
from gateway.principal import Principal
from gateway.reports import invalid
from usage.limits import BoundLimit
from usage.money import units
from usage.reservation import LimitState
from usage.spans import SPANS
from usage.store import StoreUnavailable

BUCKET_DEFAULT: Final = "hour"
PARAMS: Final = ("start", "end", "bucket", "group_by")
YEARS: Final = range(2000, 2200)  # far from the ends of the calendar, where time zones and sums of times overflow
LIMITS_AT_ONCE: Final = 100  # a script holds up every call while it runs


class SeesUsage(HasScope):
    """The scope for the tenant's usage includes the one for the key's own."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        return principal_of(request).has_scope(scopes.USAGE_TENANT) or super().has_permission(request, view)


class SelfService(GatewayView):
    permission_classes = (SeesUsage,)
    required_scope = scopes.USAGE
    scope_refusal = "This API key is not authorized to read usage."


class Usage(SelfService):
    endpoint = "usage"

    def get(self, request: Request) -> HttpResponse:
        report = reports.ask("usage", principal_of(request), **usage_query(parameters(request)))
        return HttpResponse(report, content_type="application/json")


class Limits(SelfService):
    endpoint = "limits"

    def get(self, request: Request) -> HttpResponse:
        principal = principal_of(request)
        try:
            states = limit_states(principal)
        except StoreUnavailable:
            raise Overloaded(retry_after_s=1) from None
        return json_response({"object": "list", "data": [limit_object(state, principal) for state in states]})


class PastRequest(SelfService):
    endpoint = "requests.one"

    def get(self, request: Request, request_id: str) -> HttpResponse:
        try:
            # Clients that cannot see headers have the id of the completion, which is made from it.
            wanted = UUID(request_id.removeprefix("chatcmpl-"))
        except ValueError:
            raise RequestNotFound from None
        report = reports.ask("request", principal_of(request), request_id=str(wanted))
        if report is None:
            raise RequestNotFound
        return HttpResponse(report, content_type="application/json")


# ---- /v1/usage


def parameters(request: Request) -> dict[str, list[str]]:
    """Every parameter with its values. Raises InvalidRequest."""
    try:
        return dict(request.query_params.lists())
    except TooManyFieldsSent:
        raise InvalidRequest("Invalid usage request.", details=[{"message": "Too many parameters."}]) from None


def usage_query(given: dict[str, list[str]]) -> dict[str, Any]:
    """What the portal is asked; an empty value is none. Raises InvalidRequest, naming the parameter."""
    for name, values in given.items():
        if name not in PARAMS:
            raise invalid(name, f"There is no such parameter. There are {', '.join(PARAMS)}.")
        if len(values) > 1 and name != "group_by":
            raise invalid(name, "Given more than once.")
    bucket = given.get("bucket", [""])[0] or BUCKET_DEFAULT
    if bucket not in SPANS:
        raise invalid("bucket", f"Must be one of {', '.join(SPANS)}.")
    groups = [name.strip() for value in given.get("group_by", []) for name in value.split(",") if name.strip()]
    if not set(groups) <= set(GROUPS):
        raise invalid("group_by", f"Must be some of {','.join(GROUPS)}.")
    return {"start": moment(given, "start"), "end": moment(given, "end"), "bucket": bucket, "group_by": groups}


def moment(given: dict[str, list[str]], name: str) -> str | None:
    """A time of ISO 8601, or None. Without a zone it is the tenant's. Raises InvalidRequest."""
    text = given.get(name, [""])[0]
    if not text:
        return None
    try:
        # The + of a zone that a client did not escape arrives as a space.
        value = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        value = None
    if value is None or value.year not in YEARS:
        raise invalid(name, f"Must be a time of ISO 8601 from {YEARS[0]} to {YEARS[-1]}, like 2026-11-20T09:00:00+09:00.")
    return value.isoformat()


# ---- /v1/limits


def limit_states(principal: Principal) -> list[LimitState]:
    """Every limit on the key, the aliases it may use (with usage:tenant, all) and its tenant. Raises StoreUnavailable."""
    tenant, key = principal.tenant, principal.key
    sees_all = principal.has_scope(scopes.USAGE_TENANT)
    aliases = sorted(tenant.aliases.values(), key=lambda a: a.name) if sees_all else principal.aliases()
    limits: Sequence[BoundLimit] = (
        *(BoundLimit("key", key.id, limit) for limit in key.limits),
        *(BoundLimit("alias", alias.name, limit) for alias in aliases for limit in alias.limits),
        *(BoundLimit("tenant", tenant.id, limit) for limit in tenant.limits),
    )
    return [
        state
        for at in range(0, len(limits), LIMITS_AT_ONCE)
        for state in lifecycle.settling().state(tenant.id, limits[at : at + LIMITS_AT_ONCE], time_zone=tenant.time_zone)
    ]


def limit_object(state: LimitState, principal: Principal) -> dict[str, Any]:
    """One entry of /v1/limits. Money in units of the currency, as decimal text; all else in whole numbers."""
    bound, limit = state.bound, state.bound.limit
    amount = units if limit.name == "money_per_month" else int
    names = {"key": principal.key.name, "alias": bound.subject_id, "tenant": principal.tenant.slug}
    return {
        "subject": bound.subject,
        "name": names[bound.subject],
        "limit": limit.name,
        "max": amount(limit.max),
        "used": amount(state.used),
        "reserved": amount(state.reserved),
        "remaining": amount(state.remaining),
        "reset_s": state.reset_s,
        "mode": limit.mode,
    }
