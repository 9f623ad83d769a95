"""What the gateway, which has no database, asks for its clients: usage, and the story of one call. See gateway/reports.py."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import orjson
import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse

from accounts.models import Tenant
from portal.access import internal
from usage.reports import ReportTooLarge, request_report, usage_report
from usage.store import StoreUnavailable, connect
from usage.unposted import unposted_report

_log = structlog.get_logger("portal")


class Refused(Exception):
    """It cannot be answered as asked. param: what is wrong; the message says how, for people."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


@internal
def answer(request: HttpRequest) -> HttpResponse:
    """{"report", "tenant_id", "key_id" or null for all keys, ...} -> 200 with the report, 204 where there is no such
    call, 400 with {"param", "message"}, 503 while a store is out."""
    asked = orjson.loads(request.body)
    try:
        tenant = Tenant.objects.get(pk=asked["tenant_id"])
        report = REPORTS[asked["report"]](tenant, asked)
    except Refused as error:
        return _json({"param": error.param, "message": str(error)}, status=400)
    except Tenant.DoesNotExist:  # deleted: in a moment the gateway knows it too
        return HttpResponse(status=503)
    except (OperationalError, InterfaceError, StoreUnavailable) as error:
        _log.warning("report_waits", error_class=type(error).__name__)
        return HttpResponse(status=503)
    return HttpResponse(status=204) if report is None else _json(report)


def usage(tenant: Tenant, asked: dict[str, Any]) -> dict[str, Any]:
    start, end = (datetime.fromisoformat(text) if (text := asked[name]) else None for name in ("start", "end"))
    try:
        return usage_report(tenant, start, end, bucket=asked["bucket"], group_by=asked["group_by"], key_id=asked["key_id"])
    except ReportTooLarge as error:
        raise Refused("bucket", str(error)) from error
    except ValueError as error:
        raise Refused("end", str(error)) from error


def past_request(tenant: Tenant, asked: dict[str, Any]) -> dict[str, Any] | None:
    """From the ledger, or from the journal while it is not posted; once more, if it was posted between the two looks."""
    request_id, key_id = asked["request_id"], asked["key_id"]
    with connect(settings.REDIS_URL, max_connections=1, timeout_s=2) as journal:
        return (
            request_report(request_id, tenant, key_id=key_id)
            or unposted_report(journal, request_id, tenant, key_id=key_id)
            or request_report(request_id, tenant, key_id=key_id)
        )


REPORTS: Final[dict[str, Callable[[Tenant, dict[str, Any]], dict[str, Any] | None]]] = {"usage": usage, "request": past_request}


def _json(value: Any, *, status: int = 200) -> HttpResponse:
    return HttpResponse(orjson.dumps(value), status=status, content_type="application/json")
