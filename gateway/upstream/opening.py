"""From a deployment to an answer: its backends are tried in turn until one answers; after the client's first byte, never.

Where no backend of a deployment can answer, the one that takes over is asked, if there is one (routing/road.py).
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic
from typing import Final, TypeVar

from django.conf import settings

from gateway.call import Call
from gateway.config.documents import Deployment
from gateway.endings import stopped
from gateway.exceptions import ClientLeft, ContextLengthExceeded, GatewayError, Overloaded, UpstreamTimeout, UpstreamUnavailable
from gateway.routing.board import board
from gateway.routing.candidates import fits, is_out, ranked
from gateway.routing.choice import Facts
from gateway.routing.road import Road
from gateway.routing.slots import slots
from gateway.upstream.attempt import Attempt
from gateway.upstream.client import Cancellation, UpstreamClient, UpstreamResponse
from gateway.upstream.errors import (
    EngineDead,
    UpstreamAborted,
    UpstreamError,
    UpstreamFailed,
    UpstreamFull,
    UpstreamReported,
    UpstreamSilence,
    UpstreamStalled,
    UpstreamUnwilling,
)
from gateway.upstream.refusals import in_own_words
from gateway.upstream.retry_budget import RetryBudget

PATH: Final = "/v1/chat/completions"
MAX_TRIES: Final = 3  # of one deployment, each at another backend
REFUSAL_MAX_BYTES: Final = 64 * 1024
REFUSAL_MAX_S: Final = 5.0
# What a status says about the request, and not about the backend: no other backend would answer otherwise.
_ABOUT_THE_REQUEST: Final = frozenset({400, 413, 422})
_FULL: Final = frozenset({429, 503})
# vLLM's words while its API server outlives its engine, /health still at 200 (recorded from 0.32.0).
_ENGINE_DEAD: Final = (b"cannot schedule new futures", b"EngineCore encountered an issue")

client: Final = UpstreamClient()
_budgets: Final[defaultdict[str, RetryBudget]] = defaultdict(RetryBudget)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked, wherever it is answered. tokens: what it may use in all. max_tokens: of one choice; None: not said.

    body_for: the request as a deployment gets it.
    """

    road: Road
    facts: Facts
    tokens: int
    max_tokens: int | None
    streams: bool
    body_for: Callable[[Deployment], bytes] = field(repr=False)

    def fits(self, deployment: Deployment) -> bool:
        """vLLM shortens an answer to the room that is left, but refuses a wish for more than its whole context."""
        context = deployment.max_model_len
        is_wish_bearable = context is None or self.max_tokens is None or self.max_tokens <= context
        return is_wish_bearable and fits(deployment, self.facts, board)


def first_answer(call: Call, asked: Asked, *, receive: Callable[[Attempt, UpstreamResponse], T]) -> T:
    """What `receive` makes of the first backend's answer that has status 200.

    receive must not let a byte reach the client before it is sure of the answer; where it raises an UpstreamError, the next
    backend is tried, within the call's own deadline for all tries together. Where it returns, it ends the attempt, now or
    later. Raises InvalidRequest in our words where a backend refused the request itself, ClientLeft, Overloaded where all are
    full, and when no backend answered UpstreamUnavailable or UpstreamTimeout, whichever the last one was.
    """
    deployment = asked.road.first
    been = {deployment.name}
    while True:
        heir = _heir_unasked(asked, deployment)
        if heir is None or heir.name in been:
            try:
                return _answer_of(call, deployment, asked, receive)
            except (UpstreamUnavailable, UpstreamTimeout, ContextLengthExceeded) as failure:
                is_too_long = isinstance(failure, ContextLengthExceeded)
                heir = asked.road.where_too_long(deployment) if is_too_long else asked.road.where_out(deployment)
                if heir is None or heir.name in been or monotonic() >= call.deadline:
                    raise
        been.add(heir.name)
        deployment = heir


def _heir_unasked(asked: Asked, deployment: Deployment) -> Deployment | None:
    """Who takes over where it is known beforehand that `deployment` cannot answer."""
    if is_out(deployment, board):
        return asked.road.where_out(deployment)
    return None if asked.fits(deployment) else asked.road.where_too_long(deployment)


def _answer_of(call: Call, deployment: Deployment, asked: Asked, receive: Callable[[Attempt, UpstreamResponse], T]) -> T:
    """As first_answer, from the backends of this deployment alone."""
    call.deployment = deployment.name
    budget = _budgets[deployment.name]
    budget.note_call(monotonic())
    cancellation = Cancellation()
    slot = slots.slot(deployment, asked.facts, tokens=asked.tokens, deadline=call.deadline)
    call.hold(slot, cancellation.cancel)
    failures: list[UpstreamError] = []
    try:
        for backend in islice(ranked(deployment, asked.facts, board, slot), MAX_TRIES):
            if failures and not budget.take(monotonic()):
                break
            attempt = Attempt(deployment, backend, cancellation)
            try:
                return receive(attempt, _ask(call, attempt, asked))
            except UpstreamError as error:
                failures.append(_failure(call, attempt, error))
            except BaseException as error:
                attempt.end("refused_request" if isinstance(error, GatewayError) else "internal_error")
                raise
        raise _gateway_error(call, failures)
    except BaseException as error:
        slot.release()
        if isinstance(error, ClientLeft):
            raise _departure(call) from None
        raise


def _ask(call: Call, attempt: Attempt, asked: Asked) -> UpstreamResponse:
    """The head of its answer. Raises UpstreamError where that is not 200, GatewayError where it blames the request."""
    call.attempts += 1
    call.backend = attempt.backend.name
    response = attempt.response = client.open_call(
        attempt.backend,
        PATH,
        asked.body_for(attempt.deployment),
        # Never the client's: vLLM makes it the id of the request, and two at once with the same id meet in its engine.
        headers={"X-Request-Id": f"{call.request_id}-{call.attempts}"},
        connect_s=settings.CONNECT_MAX_S,
        # A whole answer has no first token that one could wait for.
        first_byte_deadline=min(call.deadline, attempt.first_token_deadline) if asked.streams else call.deadline,
        rest_s=attempt.stall_max_s,
        cancellation=attempt.cancellation,
    )
    if response.status != 200:
        raise _fault(call, response)
    return response


def _fault(call: Call, response: UpstreamResponse) -> UpstreamError:
    """What a status other than 200 says of the backend. Raises the client's own fault at once."""
    is_about_the_request = response.status in _ABOUT_THE_REQUEST
    body = b""
    try:
        body = response.read_all(REFUSAL_MAX_BYTES, min(call.deadline, monotonic() + REFUSAL_MAX_S))
        response.close(reuse=True)
    except UpstreamError as error:
        if is_about_the_request or isinstance(error, UpstreamAborted):
            raise  # of the others the status says enough
    if is_about_the_request:
        raise in_own_words(body)
    if response.status in _FULL:
        return UpstreamFull()
    if response.status == 500 and any(words in body for words in _ENGINE_DEAD):
        return EngineDead()
    return UpstreamFailed() if response.status >= 500 else UpstreamUnwilling()


def _failure(call: Call, attempt: Attempt, error: UpstreamError) -> UpstreamError:
    """Note how an attempt failed. Raises where nobody else is to be asked: the call is over, or the request is to blame."""
    if isinstance(error, UpstreamAborted):
        if call.is_over:
            attempt.end("client_left" if call.client_left else "gateway_stopped")
            raise _departure(call)
        error = UpstreamStalled("given up: its engine hangs")
        attempt.end(error.ending, is_its_fault=False)
    elif isinstance(error, UpstreamReported) and error.refusal is not None:
        attempt.end("refused_request")
        raise error.refusal
    elif monotonic() >= call.deadline:
        attempt.end("timeout", is_its_fault=False)
        raise UpstreamTimeout(call.alias)  # the time was the call's, not the backend's: none is left
    attempt.end(error.ending)
    return error


def _departure(call: Call) -> GatewayError:
    """Why a call was cancelled, for whoever is left to be told."""
    return ClientLeft() if call.client_left else stopped()


def _gateway_error(call: Call, failures: list[UpstreamError]) -> GatewayError:
    """What it comes to that all tries failed. With one that is merely full, it is worth coming back."""
    if any(isinstance(failure, UpstreamFull) for failure in failures):
        return Overloaded(f"The requested model alias '{call.alias}' is at its capacity. Please try again later.")
    if not failures:
        return UpstreamUnavailable(call.alias)
    last = failures[-1]
    is_late = isinstance(last, (UpstreamSilence, UpstreamStalled))
    return (UpstreamTimeout if is_late else UpstreamUnavailable)(call.alias, ending=last.ending)
