"""Admission: the most that a call may cost is held before a backend is asked. A refusal becomes a GatewayError here.

What it may cost: an upper bound of its prompt, and the longest output it may have, for each of its choices.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from gateway import lifecycle
from gateway.api.chat_request import Upstream
from gateway.call import Call, us_since
from gateway.config.documents import Alias, Deployment
from gateway.exceptions import ConcurrencyLimitExceeded, Overloaded, RateLimited, RequestRateExceeded, TokenQuotaExceeded
from gateway.pricing import cost_nano
from gateway.principal import Principal
from gateway.upstream.tokenizing import count_prompt_tokens
from usage.estimates import BoundLearner, Prompt
from usage.limits import TOKEN_NAMES, Bound, bind
from usage.reservation import LimitState, Progress, Refusal, Reservation
from usage.store import StoreUnavailable
from usage.values import light_dataclass

# Of a deployment that states no context: more than most answers, and not beyond what a limit could bear.
OUTPUT_DEFAULT_TOKENS: Final = 4096
CLAMPED_MIN_TOKENS: Final = 16  # a shorter answer than this helps nobody
UNSET_MIN_TOKENS: Final = 256  # where the client named no limit, the answer may be shortened to no less
_WINDOWS: Final = {"tokens_per_hour": "Hourly", "tokens_per_day": "Daily", "tokens_per_month": "Monthly"}
NEVER_S: Final = 3600.0
NANO: Final = 1_000_000_000

# What each deployment's prompts come to, as its backends count them. One a worker, which learns it anew.
learners: Final[defaultdict[str, BoundLearner]] = defaultdict(BoundLearner)


@light_dataclass
class Asked:
    """A call before admission. output_tokens: the longest output of one choice; is_wished: the client named it.

    context_tokens: of the roomiest deployment that may answer; None: not stated.
    """

    principal: Principal
    alias: Alias
    context_tokens: int | None
    upstream: Upstream
    limits: Bound
    choices: int
    output_tokens: int
    is_wished: bool


def admit(
    call: Call,
    principal: Principal,
    alias: Alias,
    reach: Sequence[Deployment],
    upstream: Upstream,
    prompt: Prompt,
    *,
    wished: bool,
) -> int:
    """Hold what the call may cost in every limit of its key, alias and tenant, or in none. Returns its tokens, for its weight.

    reach: the deployments that may answer, the first one first; what is held is enough for any. prompt: measured, and
    call.prompt_estimate what the first one makes of it. wished: the client itself named a limit of its output. Sets the
    output limit that was reserved for in upstream.fields, so that the generation cannot outrun it, and call.admission_us.
    Raises TokenQuotaExceeded, ConcurrencyLimitExceeded, RequestRateExceeded, Overloaded.
    """
    begun = time.perf_counter()
    limits = bind(principal.tenant, principal.key, alias)
    choices = upstream.fields.get("n") or 1
    context_tokens = roomiest(reach)
    output_tokens = output_limit(upstream, reach[0].max_model_len, context_tokens)
    asked = Asked(principal, alias, context_tokens, upstream, limits, choices, output_tokens, wished)
    realistic, bound = call.prompt_estimate
    for other in reach[1:]:
        bound = max(bound, learners[other.name].upper_bound_tokens(prompt))
    try:
        answer, output = take(call, asked, bound), output_tokens
        if isinstance(answer, Refusal):
            answer, output = fitted(call, asked, answer, reach[0], bound)
    finally:
        call.admission_us = us_since(begun)
    if answer is not None:
        call.reservation = answer
        call.limit_states = answer.states
    if limits:
        upstream.fields["max_tokens"] = output
    return realistic + output * choices


def fitted(call: Call, asked: Asked, refusal: Refusal, first: Deployment, bound: int) -> tuple[Reservation | None, int]:
    """Of a call that was refused by the bound of its prompt: held by an exact count, or with a shorter output. And that output.

    Raises as admit() does.
    """
    answer: Reservation | Refusal | None = refusal
    output = asked.output_tokens
    if an_exact_count_helps(refusal, asked, call.prompt_estimate[0]):
        exact = count_prompt_tokens(first, asked.upstream.fields)
        if exact is not None:
            answer = take(call, asked, exact)
    if isinstance(answer, Refusal) and (shorter := shortened(answer, asked)):
        answer, output = take(call, replace(asked, output_tokens=shorter), bound), shorter
        call.is_clamped = True
    if isinstance(answer, Refusal):
        call.limit_states = answer.states
        raise refusal_error(answer, asked.alias.name)
    return answer, output


def roomiest(reach: Sequence[Deployment]) -> int | None:
    """The largest context among them, tokens; None when one of them states none."""
    most = 0
    for deployment in reach:
        context = deployment.max_model_len
        if context is None:
            return None
        most = max(most, context)
    return most


def output_limit(upstream: Upstream, first_context: int | None, context: int | None) -> int:
    """The longest output of one choice: the client's or the alias's limit, never beyond the context.

    first_context: of the deployment that is asked first, which bounds an answer whose length nobody named.
    What the prompt takes of the context is the backend's to subtract: it does so exactly, and silently.
    """
    wished: int | None = upstream.fields.get("max_tokens")
    if wished is None:
        return OUTPUT_DEFAULT_TOKENS if first_context is None else max(1, first_context - 1)
    return wished if context is None else min(wished, max(1, context - 1))


def take(call: Call, asked: Asked, prompt_tokens: int) -> Reservation | Refusal | None:
    """Reserve for a prompt of at most `prompt_tokens`. None: Redis is out, and there is nothing to enforce."""
    output_tokens = asked.output_tokens * asked.choices
    context = asked.context_tokens
    if context is not None:
        prompt_tokens = min(prompt_tokens, context)
        if asked.choices == 1:  # prompt and output together fit the context, whatever each of them is
            output_tokens = min(output_tokens, max(1, context - prompt_tokens))
    tenant, price = asked.principal.tenant, asked.alias.price
    call.price = price
    enforces, settling = asked.limits.refuses, lifecycle.settling()
    try:
        answer = settling.reserve(
            call.request_id,
            tenant.id,
            asked.limits,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            cost_nano=cost_nano(price, prompt_tokens, 0, output_tokens),
            time_zone=tenant.time_zone,
            meta=call.skeleton(),
            serves_on=tenant.store_out == "degraded" or not enforces,
        )
    except StoreUnavailable:
        if enforces:
            raise Overloaded(retry_after_s=1) from None
        return None
    if isinstance(answer, Reservation):
        # From here on, not from a stream's first byte: a whole answer, and a place in a backend's queue, outlast a lease.
        settling.hold(call.request_id, partial(Progress, answer, 0))
    return answer


def an_exact_count_helps(refusal: Refusal, asked: Asked, realistic_tokens: int) -> bool:
    """Is it worth asking a backend, because the call would fit with the likely prompt, or because only the bound never will?"""
    in_the_way = refusal.refusing
    if not all(state.bound.limit.name in TOKEN_NAMES for state in in_the_way):
        return False
    need = realistic_tokens + asked.output_tokens * asked.choices
    if refusal.retry_after_s is None:
        return all(state.bound.limit.max >= need for state in in_the_way)
    return all(state.remaining >= need for state in in_the_way)


def shortened(refusal: Refusal, asked: Asked) -> int:
    """The output a choice may have so that the call fits; 0 where it may not be shortened, or by too much.

    It may be if every limit in the way clamps, and always if the client left its length open.
    """
    clamps = all(state.bound.limit.clamps for state in refusal.refusing)
    if not clamps and asked.is_wished:
        return 0
    output_tokens = refusal.fits_tokens // asked.choices
    least = CLAMPED_MIN_TOKENS if clamps else UNSET_MIN_TOKENS
    return output_tokens if least <= output_tokens < asked.output_tokens else 0


def refusal_error(refusal: Refusal, alias: str) -> RateLimited:
    """In the contract's words: which limit, how much of it is used and held, and how much there is."""
    state = refusal.by
    name, wait_s = state.bound.limit.name, refusal.retry_after_s
    if wait_s is None:  # it never fits: no waiting helps, and the long time says to SDKs what the words say to people
        wait_s = max(state.reset_s, NEVER_S)
    if name == "concurrent_requests":
        return ConcurrencyLimitExceeded(retry_after_s=wait_s)
    if name == "requests_per_minute":
        return RequestRateExceeded(request_rate_words(state, alias), retry_after_s=wait_s)
    usage, most = state.used + state.reserved, state.bound.limit.max
    if name == "money_per_month":
        words = f"Monthly budget exceeded. Current usage: {usage / NANO:.2f}, Limit: {most / NANO:.2f}"
    else:
        words = f"{_WINDOWS[name]} token limit exceeded. Current usage: {usage}, Limit: {most}"
    return TokenQuotaExceeded(words, retry_after_s=wait_s)


def request_rate_words(state: LimitState, alias: str) -> str:
    if state.bound.subject == "alias":
        return f"The requested model alias '{alias}' is temporarily unavailable."
    return f"Too many requests in a minute. Limit: {state.bound.limit.max}"
