"""complete(): one call to a model, as a sentence. Read this first; each verb has its own room.

resolve the alias -> shape the request for it -> take the first backend's answer -> relay it, or return it whole
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from django.conf import settings

from gateway import lifecycle
from gateway.admission import admit, learners
from gateway.api.chat_request import ChatRequest, Upstream, for_alias
from gateway.api.errors import error_event
from gateway.call import Call
from gateway.config import directory
from gateway.config.documents import Alias, Deployment
from gateway.exceptions import (
    ClientLeft,
    GatewayError,
    InternalError,
    ModelNotFound,
    Overloaded,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.principal import Principal
from gateway.upstream.answers import read_answer, shown
from gateway.upstream.client import UpstreamResponse
from gateway.upstream.encoding import encode, end_user_label, facts_of
from gateway.upstream.metering import CEILING_TOKENS, Meter, Usage
from gateway.upstream.opening import first_answer
from gateway.upstream.pace import Pace
from gateway.upstream.relay import Relay
from gateway.upstream.sse import EventRewriter
from usage.estimates import measure
from usage.events import Outcome
from usage.reservation import Progress, Reservation
from usage.store import StoreUnavailable

ANSWER_MAX_BYTES: Final = 256 * 1024 * 1024
BYTES_A_TOKEN: Final = 4  # of a request's JSON: about right for English, and for Japanese with its 3 bytes a character

pace: Final = Pace()


def complete(call: Call, principal: Principal, request: ChatRequest) -> bytes | Relay:
    """Answer `request`: the whole body for a plain call, which is ended then; for a streamed one a relay, which ends it.

    Before this returns nothing has reached the client, so that every failure still has its status.
    Raises GatewayError: ModelNotFound, InvalidRequest, ContextLengthExceeded, Overloaded, UpstreamUnavailable,
    UpstreamTimeout, ClientLeft.
    """
    alias, deployment = resolve(call, principal, request.model)
    upstream = shape(call, principal, request, alias)
    body = admitted(call, principal, request, alias, deployment, upstream)
    meter = partial(meter_for, upstream, deployment, call)
    try:
        if request.stream:
            return first_answer(call, deployment, body, receive=partial(relayed, call, request, meter))
        return first_answer(call, deployment, body, receive=partial(whole, call, meter))
    except ClientLeft:
        usage = usage_at_leaving(call, upstream) if not request.stream else meter().usage()
        call.end(status=499, outcome="client_left", error_code="client_left", usage=usage)
        raise


def resolve(call: Call, principal: Principal, model: str) -> tuple[Alias, Deployment]:
    """The alias the client named, if it is this key's, and what it stands for."""
    alias = principal.alias(model)
    if alias is None:
        raise ModelNotFound(model)
    call.alias = alias.name
    try:
        deployment = directory.current().platform().deployments.get(alias.deployment)
    except StoreUnavailable:
        raise Overloaded(retry_after_s=1) from None
    if deployment is None:
        raise UpstreamUnavailable(alias.name)
    call.deployment = deployment.name
    return alias, deployment


def shape(call: Call, principal: Principal, request: ChatRequest, alias: Alias) -> Upstream:
    """The request as this alias and tenant allow it; what the call's record needs of it is noted."""
    upstream = for_alias(request, alias, principal.tenant)
    call.stream = request.stream
    call.dropped_params = upstream.dropped
    call.metadata = dict(request.metadata) if request.metadata else None
    call.end_user = end_user_label(principal.tenant, request.user)
    return upstream


def admitted(
    call: Call, principal: Principal, request: ChatRequest, alias: Alias, deployment: Deployment, upstream: Upstream
) -> bytes:
    """The request as the backend gets it, once what it may cost is held; with the output limit that was reserved for."""
    body = encode(upstream.fields, request, deployment, principal.tenant)
    asked = upstream.fields.get("max_tokens")
    call.prompt = measure(body, **facts_of(upstream.fields["messages"]))
    admit(call, principal, alias, deployment, upstream, call.prompt, wished=request.max_tokens is not None)
    if upstream.fields.get("max_tokens") != asked:
        return encode(upstream.fields, request, deployment, principal.tenant)
    return body


def relayed(call: Call, request: ChatRequest, new_meter: Callable[[], Meter], response: UpstreamResponse) -> Relay:
    """A relay whose first event is there, or is only slow: until then the answer's status is open."""
    meter = new_meter()

    def ended(outcome: Outcome, code: str | None) -> None:
        if relay.first_event_at_s is not None:
            call.first_token_ms = int((relay.first_event_at_s - call.started) * 1000)
        usage = meter.usage()
        learn(call, usage)
        call.end(status=200, outcome=outcome, error_code=code, usage=usage)

    relay = Relay(
        response,
        EventRewriter(
            completion_id=f"chatcmpl-{call.request_id}",
            alias=call.alias,
            created_s=None,
            shows_usage=request.include_usage,
            shows_running_usage=request.continuous_usage,
        ),
        meter,
        error_event=lambda code: error_event(error_of(code, call.alias)),
        on_end=ended,
        deadline=call.deadline,
        first_event_deadline=call.started + settings.FIRST_TOKEN_MAX_S,
        keep_alive_s=settings.KEEP_ALIVE_COMMENT_S,
    )
    if call.reservation is not None:
        lifecycle.settling().hold(call.request_id, partial(progress, call.reservation, meter))
    relay.wait_for_first_event(settings.KEEP_ALIVE_COMMENT_S)
    call.is_handed_over = True
    return relay


def whole(call: Call, new_meter: Callable[[], Meter], response: UpstreamResponse) -> bytes:
    """A plain answer, read to its end, sanitised and metered."""
    try:
        answer = read_answer(response.read_all(ANSWER_MAX_BYTES, call.deadline))
        response.close(reuse=True)
    finally:
        response.close(reuse=False)
    body = shown(answer, completion_id=f"chatcmpl-{call.request_id}", alias=call.alias)
    meter = new_meter()
    meter.note_answer(answer.get("usage"), completion_estimate_tokens=len(body) // BYTES_A_TOKEN)
    usage = meter.usage()
    pace.note(call.deployment or "", tokens=usage.completion_tokens // len(answer["choices"]), seconds=call.elapsed_ms() / 1000)
    learn(call, usage)
    call.end(status=200, outcome="completed", usage=usage)
    return body


def learn(call: Call, usage: Usage) -> None:
    """Let the bounds of this deployment's prompts know what this one came to."""
    if usage.source == "backend" and call.prompt is not None and call.deployment is not None:
        learners[call.deployment].note(call.prompt, usage.prompt_tokens)


def meter_for(upstream: Upstream, deployment: Deployment, call: Call) -> Meter:
    """A meter of its own for each try: what a failed backend generated is nobody's."""
    return Meter(
        choices=upstream.fields.get("n") or 1,
        prompt_estimate_tokens=likely_prompt_tokens(call),
        ceiling_tokens=deployment.max_model_len or CEILING_TOKENS,
    )


def likely_prompt_tokens(call: Call) -> int:
    return learners[call.deployment or ""].realistic_tokens(call.prompt) if call.prompt else 0


def usage_at_leaving(call: Call, upstream: Upstream) -> Usage:
    """What a plain call had probably used when its client left: the backend tells only with the whole answer."""
    most = upstream.fields.get("max_tokens") or CEILING_TOKENS
    tokens = pace.expected_tokens(call.deployment or "", seconds=call.elapsed_ms() / 1000, most=most)
    return Usage(likely_prompt_tokens(call), 0, tokens * (upstream.fields.get("n") or 1), "estimated")


def progress(reservation: Reservation, meter: Meter) -> Progress:
    """How far a live call is, for its lease."""
    usage = meter.usage()
    return Progress(reservation, usage.completion_tokens, usage.prompt_tokens or None)


def error_of(code: str, alias: str) -> GatewayError:
    """The error for the code that a relay ended with."""
    known: dict[str, Callable[[], GatewayError]] = {
        "upstream_timeout": lambda: UpstreamTimeout(alias),
        "upstream_unavailable": lambda: UpstreamUnavailable(alias),
    }
    return known.get(code, InternalError)()
