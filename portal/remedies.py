"""Why calls go wrong, in people's words, and what they can do: by the code that is recorded with a call. No I/O."""

from dataclasses import dataclass
from typing import Final

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


@dataclass(frozen=True, slots=True)
class Remedy:
    """page: the URL name of a tenant's page that helps; None: there is none."""

    why: Promise
    what_to_do: Promise
    page: str | None = None


_BACKEND: Final = Remedy(
    _("The model's backend did not answer, or ended in the middle."),
    _("Try again. If it goes on, tell the operator of this installation the request id."),
)
_SLOW: Final = Remedy(
    _("The model's backend did not answer in time."),
    _("Try again, ask for shorter answers, or stream them. If it goes on, tell the operator the request id."),
)
REMEDIES: Final[dict[str, Remedy]] = {
    "rate_limited": Remedy(
        _("More requests came in a minute than a limit allows."),
        _("Let the program wait as long as retry-after says, or spread its calls."),
        "limits",
    ),
    "token_quota_exceeded": Remedy(
        _("The tokens or the money of an hour, a day or a month are used up."),
        _("Wait until the limit is free again, ask for shorter answers, or ask the operator for a higher limit."),
        "limits",
    ),
    "concurrency_limit_exceeded": Remedy(
        _("More requests were running at the same time than a limit allows."),
        _("Let the program wait for an answer before it sends the next call."),
        "limits",
    ),
    "content_blocked": Remedy(
        _("A content policy said no."),
        _("See in the request which rule it was; an admin of this tenant can change the policy."),
        "policies",
    ),
    "model_not_found": Remedy(
        _("The program named a model that there is not, or that its key may not call."),
        _("Let it send the name of an alias, and see that the key is not bound to others."),
        "aliases",
    ),
    "context_length_exceeded": Remedy(
        _("The prompt does not fit into the model's context."),
        _("Send less, or use an alias with a larger context."),
        "aliases",
    ),
    "invalid_request": Remedy(
        _("The call was not as the API takes it."),
        _("The answer says which field; mend the program."),
    ),
    "request_too_large": Remedy(
        _("The call is longer than the gateway takes."),
        _("Send less: shorter messages, or smaller pictures."),
    ),
    "unsupported_media_type": Remedy(
        _("The call's body is not JSON in UTF-8."),
        _("Send it as application/json, as it is or coded with gzip."),
    ),
    "method_not_allowed": Remedy(
        _("The address takes another method."),
        _("Send POST to chat, GET to lists; the header allow says which."),
    ),
    "unsupported_endpoint": Remedy(
        _("There is no such address."),
        _("See that the base URL ends in /v1; the message names what there is."),
    ),
    "request_not_found": Remedy(
        _("No call of this id has ended, or the key may not see it."),
        _("Check the id; a call that still runs is not there yet."),
    ),
    "invalid_api_key": Remedy(
        _(
            "The key is missing, wrong, expired or revoked, it comes from a network it may not be used from, or its tenant "
            "is suspended."
        ),
        _(
            "See in the list of keys which it is. A revoked key never comes back: make a new one. While a tenant is suspended, "
            "each of its pages says so, and whom to ask."
        ),
        "keys",
    ),
    "insufficient_scope": Remedy(
        _("The key may not do this."),
        _("Use a key with the scope for it, or let a developer of this tenant change the key."),
        "keys",
    ),
    "overloaded": Remedy(
        _("The gateway or all backends were full."),
        _("Let the program wait as long as retry-after says. If it goes on, tell the operator."),
    ),
    "client_left": Remedy(
        _("The program ended the connection before the answer was whole."),
        _("If it was not meant to, give it a longer time-out."),
    ),
    "lost": Remedy(
        _("The process of the gateway that held the call ended before the call did."),
        _("Let the program try again. If it happens more than once, tell the operator the request id."),
    ),
    "upstream_unavailable": _BACKEND,
    "upstream_timeout": _SLOW,
    "internal_error": Remedy(
        _("A fault of the gateway."),
        _("Tell the operator of this installation the request id."),
    ),
}


def remedy(code: str) -> Remedy | None:
    """None for a code that nothing can be said of."""
    if code in REMEDIES:
        return REMEDIES[code]
    if code.startswith("upstream_"):
        return _SLOW if "timeout" in code else _BACKEND
    return None
