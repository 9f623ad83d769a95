"""What a key may call."""

from typing import cast

from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from gateway.exceptions import InsufficientScope
from gateway.principal import Principal


class HasScope(BasePermission):
    """The key bears the view's `required_scope`; a view without one lets nobody in."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        require_scope(cast("Principal", request.user), view)
        return True


def require_scope(principal: Principal, view: APIView) -> None:
    """Raises InsufficientScope."""
    scope: str | None = getattr(view, "required_scope", None)
    if scope is None or not principal.has_scope(scope):
        raise InsufficientScope(getattr(view, "scope_refusal", None))
