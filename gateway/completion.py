"""complete(): one call to a model, as a sentence. Read this first; each verb has its own room.

resolve the alias -> shape the request for it -> judge it by its content policies -> hold what it may cost -> take the first
backend's answer -> relay it, or return it whole
"""

from functools import partial

from gateway.admission import admit, learners
from gateway.api.chat_request import ChatRequest, Upstream, for_alias
from gateway.call import Call, in_time_s
from gateway.config import directory
from gateway.config.documents import Deployment
from gateway.exceptions import ClientLeft, ModelNotFound, Overloaded, UpstreamUnavailable
from gateway.guarding import guarded
from gateway.principal import Principal
from gateway.receiving import pace, relayed, whole
from gateway.routing.affinity import beginning
from gateway.routing.choice import Facts
from gateway.routing.road import Road, drawn
from gateway.upstream.encoding import Bodies, end_user_label, facts_of, is_constrained
from gateway.upstream.metering import CEILING_TOKENS, NO_USAGE, Meter, Usage
from gateway.upstream.opening import Asked, first_answer
from gateway.upstream.relay import Relay
from gateway.upstream.tokenizing import count_prompt_tokens
from usage.estimates import Prompt, measure
from usage.store import StoreUnavailable


def complete(call: Call, principal: Principal, request: ChatRequest) -> bytes | Relay:
    """Answer `request`: the whole body for a plain call, which is ended then; for a streamed one a relay, which ends it.

    Before this returns nothing has reached the client, so that every failure still has its status.
    Raises GatewayError: ModelNotFound, InvalidRequest, ContentBlocked, ContextLengthExceeded, Overloaded,
    UpstreamUnavailable, UpstreamTimeout, ClientLeft.
    """
    road = resolve(call, principal, request.model)
    upstream = shape(call, principal, request, road)
    upstream = guarded(call, principal, road, upstream, complete=unguarded)
    return answered(call, principal, request, road, upstream)


def unguarded(call: Call, principal: Principal, request: ChatRequest) -> bytes | Relay:
    """A call of the gateway's own, to a policy's judge: else no verdict would ever come to an end."""
    road = resolve(call, principal, request.model)
    return answered(call, principal, request, road, shape(call, principal, request, road))


def answered(call: Call, principal: Principal, request: ChatRequest, road: Road, upstream: Upstream) -> bytes | Relay:
    """Held, asked and answered."""
    asked = admitted(call, principal, request, road, upstream)
    meter = partial(meter_for, call, upstream)
    try:
        if request.stream:
            return first_answer(call, asked, receive=partial(relayed, call, request, meter))
        return first_answer(call, asked, receive=partial(whole, call, meter))
    except ClientLeft:
        usage = usage_at_leaving(call, upstream) if not request.stream else NO_USAGE
        call.end(status=499, outcome="client_left", error_code="client_left", usage=usage)
        raise


def resolve(call: Call, principal: Principal, model: str) -> Road:
    """The alias the client named, if it is this key's, and the deployments that stand behind it for this call."""
    alias = principal.alias(model)
    if alias is None:
        raise ModelNotFound(model)
    call.alias = alias.name
    try:
        platform = directory.current().platform()
    except StoreUnavailable:
        raise Overloaded(retry_after_s=1) from None
    deployments = platform.deployments
    first = deployments.get(drawn(alias, call.request_id)) or deployments.get(alias.deployment)
    if first is None:
        raise UpstreamUnavailable(alias.name)
    call.deployment = first.name
    return Road(platform, alias, first)


def shape(call: Call, principal: Principal, request: ChatRequest, road: Road) -> Upstream:
    """The request as this alias and tenant allow it; what the call's record needs of it is noted."""
    upstream = for_alias(request, road.alias, principal.tenant)
    call.stream = request.stream
    call.dropped_params = upstream.dropped
    call.metadata = dict(request.metadata) if request.metadata else None
    if request.user:
        call.end_user = end_user_label(principal.tenant, request.user)
    if call.patience_s is not None and not request.stream:  # a stream has comments to keep its client patient
        call.deadline = min(call.deadline, call.started + in_time_s(call.patience_s))
    return upstream


def admitted(call: Call, principal: Principal, request: ChatRequest, road: Road, upstream: Upstream) -> Asked:
    """The request as the backends get it, once what it may cost is held; with the output limit that was reserved for."""
    fields = upstream.fields
    bodies = Bodies(fields, request, principal.tenant, road.first)
    call.prompt = measure(bodies.of(road.first), **facts_of(fields["messages"]))
    facts = Facts(
        tenant_id=principal.tenant.id,
        request_id=call.request_id,
        prompt_tokens=prompt_tokens(call, call.prompt, road.first, upstream),
        prefix_digest=beginning(fields["messages"], fields.get("tools")),
    )
    reach, wished = road.reach(), request.max_tokens is not None
    tokens = admit(call, principal, road.alias, reach, upstream, call.prompt, wished=wished)
    return Asked(road, reach, facts, tokens, fields.get("max_tokens"), request.stream, is_constrained(fields), bodies.of)


def prompt_tokens(call: Call, prompt: Prompt, deployment: Deployment, upstream: Upstream) -> int:
    """The likely number; the exact one where it decides which deployment has room for it."""
    context = deployment.max_model_len
    likely, most = call.prompt_estimate = learners[deployment.name].estimate(prompt)
    if context is None or deployment.context_fallback is None:
        return likely
    is_in_doubt = likely < 2 * context and most >= context
    return (count_prompt_tokens(deployment, upstream.fields) if is_in_doubt else None) or likely


def meter_for(call: Call, upstream: Upstream, deployment: Deployment) -> Meter:
    """A meter of its own for each try: what a failed backend generated is nobody's."""
    return Meter(
        choices=upstream.fields.get("n") or 1,
        prompt_estimate_tokens=call.prompt_estimate[0],
        ceiling_tokens=deployment.max_model_len or CEILING_TOKENS,
    )


def usage_at_leaving(call: Call, upstream: Upstream) -> Usage:
    """What a plain call had probably used when its client left: the backend tells only with the whole answer."""
    most = upstream.fields.get("max_tokens") or CEILING_TOKENS
    tokens = pace.expected_tokens(call.deployment or "", seconds=call.elapsed_ms() / 1000, most=most)
    return Usage(call.prompt_estimate[0], 0, tokens * (upstream.fields.get("n") or 1), "estimated")
