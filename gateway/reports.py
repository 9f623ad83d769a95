"""Reports that only the portal can make, for it has the database: asked over HTTP, signed. See portal/views/reports.py."""

import threading
import time
from typing import Any, Final

import orjson
import requests
import structlog
from django.conf import settings

from accounts.scopes import USAGE_TENANT
from gateway import signature
from gateway.exceptions import InternalError, InvalidRequest, Overloaded
from gateway.principal import Principal

TIMEOUT_S: Final = (1.0, 10.0)  # to connect, to read
RETRY_S: Final = 2.0
# The portal is people's too: a worker asks for no more than these at once, and others wait as long as for a connection.
AT_ONCE: Final = 4
WAIT_S: Final = 1.0

_log = structlog.get_logger("gateway")
_turns: Final = threading.BoundedSemaphore(AT_ONCE)


def ask(report: str, principal: Principal, **details: Any) -> bytes | None:
    """The report as JSON, of the principal's tenant or, without the scope for that, of its key alone; None: no such call.

    Raises InvalidRequest, Overloaded, InternalError.
    """
    key_id = None if principal.has_scope(USAGE_TENANT) else principal.key.id
    body = orjson.dumps({"report": report, "tenant_id": principal.tenant.id, "key_id": key_id, **details})
    response = _post(body)
    if response.status_code == 204:
        return None
    if response.status_code == 200:
        return response.content
    if response.status_code == 400 and response.headers.get("content-type") == "application/json":
        raise invalid(**response.json())
    _log.error("report_failed", report=report, status=response.status_code, remedy=_REMEDIES.get(response.status_code))
    if response.status_code in (502, 503, 504):
        raise _out()
    raise InternalError


def invalid(param: str, message: str) -> InvalidRequest:
    """A parameter of the client's that will not do, and why."""
    return InvalidRequest("Invalid usage request.", param=param, details=[{"param": param, "message": message}])


# The portal's own refusals: an installation's mistake, which its operator reads in the log.
_REMEDIES: Final = {
    400: "Is the host of SEKISHO_PORTAL_URL among SEKISHO_ALLOWED_HOSTS of the portal?",
    404: "Have portal and gateway the same SEKISHO_SECRET_KEY and the same time, and does SEKISHO_PORTAL_URL name the portal?",
}


def _post(body: bytes) -> requests.Response:
    if not _turns.acquire(timeout=WAIT_S):
        raise _out()
    try:
        try:
            return _post_once(body)
        except requests.ConnectionError:  # as from a portal worker that is being replaced; a report may be asked for again
            return _post_once(body)
    except requests.RequestException as error:
        _log.warning("portal_unreachable", error_class=type(error).__name__)
        raise _out() from None
    finally:
        _turns.release()


def _post_once(body: bytes) -> requests.Response:
    return _session.post(
        f"{settings.PORTAL_URL}/internal/reports/",
        data=body,
        headers={signature.HEADER: signature.sign(body, now_s=time.time())},
        timeout=TIMEOUT_S,
        allow_redirects=False,
    )


def _out() -> Overloaded:
    return Overloaded("Usage reports are not available at the moment. Please try again later.", retry_after_s=RETRY_S)


def _new_session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # a proxy of the environment is for other calls
    # A kept connection may be closed under the next report, which a new one costs less than.
    session.headers.update({"content-type": "application/json", "connection": "close"})
    return session


_session: Final = _new_session()
