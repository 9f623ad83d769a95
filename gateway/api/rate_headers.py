"""x-ratelimit-*: how much of the tightest limits is left, on every success and every 429."""

from collections.abc import Iterable, Sequence

from gateway.api.response_headers import RATE_KINDS, rate_limit
from usage.limits import TOKEN_NAMES
from usage.reservation import LimitState


def rate_headers(states: Sequence[LimitState]) -> dict[str, str]:
    """Three headers for requests and three for tokens, each of the enforced limit with the smallest share left."""
    headers: dict[str, str] = {}
    if not states:
        return headers
    requests = tightest([state for state in states if state.bound.limit.name == "requests_per_minute"])
    tokens = tightest([state for state in states if state.bound.limit.name in TOKEN_NAMES])
    for kind, state in zip(RATE_KINDS, (requests, tokens), strict=True):
        if state is not None:
            headers[rate_limit("limit", kind)] = str(state.bound.limit.max)
            headers[rate_limit("remaining", kind)] = str(state.remaining)
            headers[rate_limit("reset", kind)] = duration_text(state.reset_s)
    return headers


def tightest(states: Iterable[LimitState]) -> LimitState | None:
    enforced = (state for state in states if state.bound.limit.is_enforced)
    return min(enforced, key=lambda state: state.remaining / max(1, state.bound.limit.max), default=None)


def duration_text(seconds: float) -> str:
    """As OpenAI writes it: 12ms, 1.5s, 6m0s, 2h3m4s."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms"
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + f"{minutes}m{rest}s"
