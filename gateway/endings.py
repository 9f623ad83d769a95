"""How answers end, in words: for the client, for the call's record, for the metrics. Those of failures: upstream/errors.py."""

from typing import Final

from gateway.exceptions import GatewayError, InternalError, Overloaded, UpstreamTimeout, UpstreamUnavailable
from gateway.upstream.metering import Usage
from usage.events import Outcome

_LATE: Final = frozenset({"timeout", "stalled"})


def ending_of(outcome: Outcome, usage: Usage) -> str:
    """Of an answer that did not fail. A whole one whose backend did not say what it used is delivered, and told apart."""
    return "wrong_usage" if outcome == "completed" and usage.source == "estimated" else outcome


def error_of(ending: str, alias: str) -> GatewayError:
    """What the client is told where an answer that had begun failed."""
    if ending == "internal_error":
        return InternalError()
    if ending == "gateway_stopped":
        return stopped()
    return (UpstreamTimeout if ending in _LATE else UpstreamUnavailable)(alias, ending=ending)


def recorded_code(ending: str, alias: str) -> str | None:
    """The error code in the record of a call whose answer had begun; None: there is nothing to tell."""
    if ending == "wrong_usage":
        return "upstream_wrong_usage"
    return None if ending in ("completed", "client_left") else error_of(ending, alias).recorded_code


def outcome_of(error: GatewayError | None, status: int, *, client_left: bool) -> Outcome:
    """Of a call that ended before any answer had begun. status: as the client sees it."""
    if client_left:
        return "client_left"
    if error is None:
        return "completed"
    if status == 504:
        return "timeout"
    return "failed" if status >= 500 else "refused"


def stopped() -> GatewayError:
    """This process ends before the call does."""
    return Overloaded("The gateway is being restarted. Please try again.")
