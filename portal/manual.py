"""What the docs say, generated from the tables that the gateway itself runs by: errors, headers, request fields, waits."""

from dataclasses import dataclass
from typing import Final

from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts.scopes import CHAT, MODELS, USAGE
from gateway.api import response_headers as headers
from gateway.api.fields import CHECK, FIELDS, FORWARD, IGNORED, OWNED, PRIVILEGED
from gateway.exceptions import told
from portal.remedies import REMEDIES, Remedy


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """status: as HTTP, in the dialects that have the error object."""

    status: int
    type: str
    code: str
    remedy: Remedy


@dataclass(frozen=True, slots=True)
class Call:
    """scope: what a key needs for it."""

    address: str
    scope: str
    words: Promise


@dataclass(frozen=True, slots=True)
class FieldGroup:
    """Request fields that are dealt with alike."""

    words: Promise
    names: list[str]


@dataclass(frozen=True, slots=True)
class Waits:
    """How long the gateway waits, in seconds."""

    call_max_s: int
    first_token_max_s: int
    stall_max_s: int
    queue_max_s: int
    keep_alive_s: int


_LIMIT: Final = _("How much the tightest limit allows.")
_REMAINING: Final = _("How much of it is left.")
_RESET: Final = _("When all of it is free again, as a duration: 6m0s.")
HEADERS: Final[dict[str, Promise]] = {
    headers.REQUEST_ID: _("The id of this call, on every answer. Keep it in your logs: it finds the call in the portal."),
    **{headers.rate_limit("limit", kind): _LIMIT for kind in headers.RATE_KINDS},
    **{headers.rate_limit("remaining", kind): _REMAINING for kind in headers.RATE_KINDS},
    **{headers.rate_limit("reset", kind): _RESET for kind in headers.RATE_KINDS},
    headers.RETRY_AFTER: _("On 429 and 503: in how many seconds the call will fit. It is true: wait that long."),
    headers.RETRY_AFTER_MS: _("The same in milliseconds."),
    headers.SHOULD_RETRY: _("“false” where a repetition helps nobody: the wait is over a minute, or a policy said no."),
    headers.DROPPED_PARAMS: _("A warning: the request fields that were left out, because nothing here does what they ask for."),
    headers.CLAMPED: _("A warning: max_tokens was more than the alias allows, and was lowered to that."),
    headers.QUEUE_MS: _("How long the call waited for a free place, in milliseconds."),
}
CALLS: Final = (
    Call("POST /v1/chat/completions", CHAT, _("Chat with a model, whole or streamed.")),
    Call("GET /v1/models", MODELS, _("The aliases this key may call.")),
    Call("GET /v1/models/{alias}", MODELS, _("One of them.")),
    Call("GET /v1/usage", USAGE, _("Requests, tokens and costs over time, by alias or key.")),
    Call("GET /v1/limits", USAGE, _("Each limit with what is used, reserved and left.")),
    Call("GET /v1/requests/{x-request-id}", USAGE, _("One call that has ended: why it was refused, how long it took.")),
)
_TREATMENTS: Final[dict[str, Promise]] = {
    CHECK: _("Checked, then sent to the model"),
    FORWARD: _("Sent to the model as they are"),
    OWNED: _("Obeyed by the gateway itself"),
    PRIVILEGED: _("Only where the alias allows them by name"),
    IGNORED: _("Accepted and left out, with a warning"),
}


def error_rows() -> list[ErrorRow]:
    return [ErrorRow(error.status, error.type, error.code, REMEDIES[error.code]) for error in told()]


def header_rows() -> list[tuple[list[str], Promise]]:
    """Headers of which the same is to be said share a row."""
    rows: dict[Promise, list[str]] = {}
    for name in headers.TOLD:
        rows.setdefault(HEADERS[name], []).append(name)
    return [(names, words) for words, names in rows.items()]


def field_groups() -> list[FieldGroup]:
    groups: dict[str, list[str]] = {treatment: [] for treatment in _TREATMENTS}
    for field in FIELDS.values():
        groups[field.kind].append(field.name)
    return [FieldGroup(_TREATMENTS[treatment], names) for treatment, names in groups.items() if names]


def waits() -> Waits:
    return Waits(
        call_max_s=round(settings.CALL_MAX_S),
        first_token_max_s=round(settings.FIRST_TOKEN_MAX_S),
        stall_max_s=round(settings.STALL_MAX_S),
        queue_max_s=round(settings.QUEUE_MAX_S),
        keep_alive_s=round(settings.KEEP_ALIVE_COMMENT_S),
    )
