"""The tenant's own manual of the API: a first call, its aliases, every error and header, and what a client does well to do."""

import json
from dataclasses import dataclass
from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from accounts.models import Tenant
from accounts.roles import Action
from gateway.api.errors import body
from gateway.exceptions import ModelNotFound
from gateway.models import ModelAlias
from portal import manual, snippets
from portal.access import may, require
from portal.alerts import signing
from portal.alerts.body import EXAMPLE

ALIASES_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class ErrorExample:
    status: int
    body: str


@require(Action.VIEW)
def index(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    aliases = list(ModelAlias.objects.filter(tenant=tenant).order_by("name")[: ALIASES_SHOWN + 1])
    url = snippets.base_url(settings.GATEWAY_PUBLIC_URL)
    context = {
        "tenant": tenant,
        "aliases": aliases[:ALIASES_SHOWN],
        "has_more": len(aliases) > ALIASES_SHOWN,
        "base_url": url,
        "errors": manual.error_rows(),
        "example": _example(tenant),
        "headers": manual.header_rows(),
        "fields": manual.field_groups(),
        "calls": manual.CALLS,
        "waits": manual.waits(),
        "webhook_example": json.dumps(EXAMPLE, indent=2, ensure_ascii=False),
        "python": signing.PYTHON,
        "javascript": signing.JAVASCRIPT,
        "may_manage_keys": may(request, tenant, Action.MANAGE_KEYS),
        **(snippets.every(url, aliases[0].name, _("Hello!")) if aliases else {}),
    }
    return render(request, "portal/docs/index.html", context)


def _example(tenant: Tenant) -> ErrorExample:
    """An error as this tenant's programs read it; a key may have another dialect."""
    error = ModelNotFound("no-such-alias")
    status = error.detail_status if tenant.error_dialect == "detail" else error.status
    return ErrorExample(status, json.dumps(body(error, tenant.error_dialect), indent=2))
