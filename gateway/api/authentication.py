"""Who calls: from `Authorization: Bearer` to a Principal."""

import re
import time
from functools import cache
from typing import Any, Final

from django.conf import settings
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from accounts.keys import Pepper, peppers
from gateway import last_used, lifecycle
from gateway.api.addresses import client_address
from gateway.config import directory
from gateway.exceptions import InvalidApiKey, Overloaded
from gateway.principal import Principal
from usage.store import StoreUnavailable

_BEARER: Final = re.compile(r"(?i:bearer) ([\x21-\x7e]{1,600})", re.ASCII)


class ApiKeyAuthentication(BaseAuthentication):
    """Every refusal is the same InvalidApiKey; a store that is out is Overloaded, never a 401."""

    def authenticate(self, request: Request) -> tuple[Principal, None]:
        return authenticated(request.META), None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def authenticated(environ: dict[str, Any]) -> Principal:
    """Who sends this request. Raises InvalidApiKey, Overloaded."""
    match = _BEARER.fullmatch(environ.get("HTTP_AUTHORIZATION", ""))
    if match is None:
        raise InvalidApiKey
    now_s = time.time()
    try:
        config = directory.current()
        key = config.find_key(match[1], pepper_ring())
        if key is None or not key.is_usable(now_s=now_s):
            raise InvalidApiKey
        if key.networks and not key.admits_address(client_address(environ)):
            raise InvalidApiKey
        tenant = config.tenant(key.tenant_id)
    except StoreUnavailable:
        raise Overloaded(retry_after_s=1) from None
    if tenant is None or not tenant.is_active:
        raise InvalidApiKey
    if last_used.is_due(key.lookup_id, now_s):
        lifecycle.note_use(key.lookup_id, now_s)
    return Principal(tenant, key)


@cache
def pepper_ring() -> tuple[Pepper, ...]:
    """Of the settings, once a process."""
    return peppers(settings.KEY_PEPPERS)
