"""From a deployment to an answer: its backends are tried in turn until one answers; after the client's first byte, never."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

from django.conf import settings

from gateway import metrics
from gateway.call import Call
from gateway.config.documents import Backend, Deployment
from gateway.exceptions import ClientLeft, GatewayError, Overloaded, UpstreamTimeout, UpstreamUnavailable
from gateway.routing.candidates import candidates
from gateway.upstream.client import Cancellation, UpstreamClient, UpstreamResponse
from gateway.upstream.errors import UpstreamAborted, UpstreamError, UpstreamReported, UpstreamSilence
from gateway.upstream.refusals import in_own_words

PATH: Final = "/v1/chat/completions"
REFUSAL_MAX_BYTES: Final = 64 * 1024
REFUSAL_MAX_S: Final = 5.0
# What a status says about the request, and not about the backend: no other backend would answer otherwise.
_ABOUT_THE_REQUEST: Final = frozenset({400, 413, 422})
_FULL: Final = frozenset({429, 503})

client: Final = UpstreamClient()
T = TypeVar("T")


def first_answer(call: Call, deployment: Deployment, body: bytes, *, receive: Callable[[UpstreamResponse], T]) -> T:
    """What `receive` makes of the first backend's answer that has status 200.

    receive must not let a byte reach the client before it is sure of the answer; where it raises an UpstreamError, the next
    backend is tried, within the call's own deadline for all tries together.
    Raises InvalidRequest in our words where a backend refused the request itself, ClientLeft, and when no backend
    answered UpstreamUnavailable, Overloaded or UpstreamTimeout, whichever the last one was.
    """
    cancellation = Cancellation()
    call.on_abandon(cancellation.cancel)
    failure: GatewayError = UpstreamUnavailable(call.alias)
    for backend in candidates(deployment, client.in_flight):
        call.attempts += 1
        call.backend = backend.name
        try:
            response = _ask(call, backend, body, cancellation)
            if response.status == 200:
                answer = receive(response)
                metrics.ATTEMPTS.labels(backend.name, "answered").inc()
                return answer
            failure = _failure(call, response)
        except UpstreamAborted:
            raise ClientLeft from None
        except UpstreamError as error:
            failure = _gateway_error(call, error)
        metrics.ATTEMPTS.labels(backend.name, failure.code).inc()
        if isinstance(failure, UpstreamTimeout):
            break  # the time was the call's, not the backend's: none is left
    raise failure


def _ask(call: Call, backend: Backend, body: bytes, cancellation: Cancellation) -> UpstreamResponse:
    return client.open_call(
        backend,
        PATH,
        body,
        # Never the client's: vLLM makes it the id of the request, and two at once with the same id meet in its engine.
        headers={"X-Request-Id": f"{call.request_id}-{call.attempts}"},
        connect_s=settings.CONNECT_MAX_S,
        first_byte_deadline=call.deadline,
        cancellation=cancellation,
    )


def _failure(call: Call, response: UpstreamResponse) -> GatewayError:
    """What a status other than 200 means. Raises the client's own fault at once."""
    try:
        if response.status in _ABOUT_THE_REQUEST:
            deadline = min(call.deadline, time.monotonic() + REFUSAL_MAX_S)
            body = response.read_all(REFUSAL_MAX_BYTES, deadline)
            response.close(reuse=True)
            raise in_own_words(body)
    finally:
        response.close(reuse=False)
    if response.status in _FULL:
        return Overloaded(f"The requested model alias '{call.alias}' is at its capacity. Please try again later.")
    return UpstreamUnavailable(call.alias)


def _gateway_error(call: Call, error: UpstreamError) -> GatewayError:
    """What a broken answer means. Raises the client's own fault at once: no other backend would answer otherwise."""
    if isinstance(error, UpstreamReported) and error.refusal is not None:
        raise error.refusal from None
    if isinstance(error, UpstreamSilence):
        return UpstreamTimeout(call.alias)
    return UpstreamUnavailable(call.alias)
