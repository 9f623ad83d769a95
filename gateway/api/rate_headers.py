"""x-ratelimit-*: how much of the tightest limits is left, on every success and every 429."""

from functools import lru_cache
from typing import Final

from gateway.api.response_headers import RATE_KINDS, rate_limit
from usage.reservation import LimitStates

_NAMES: Final = [tuple(rate_limit(fact, kind) for fact in ("limit", "remaining", "reset")) for kind in RATE_KINDS]


def rate_headers(states: LimitStates) -> dict[str, str]:
    """Three headers for requests and three for tokens, each of the enforced limit with the smallest share left."""
    headers: dict[str, str] = {}
    for (limit, remaining, reset), places in zip(_NAMES, (states.limits.of_requests, states.limits.of_tokens), strict=True):
        if (told := states.tightest(places)) is not None:
            most, left, reset_s = told
            headers[limit] = str(most)
            headers[remaining] = str(left)
            headers[reset] = duration_text(reset_s)
    return headers


def duration_text(seconds: float) -> str:
    """As OpenAI writes it: 12ms, 1.5s, 6m0s, 2h3m4s."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms"
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    return _in_minutes(round(seconds))


@lru_cache(maxsize=4096)
def _in_minutes(seconds: int) -> str:
    """Kept, as all calls of a second are told of the same end of the day."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + f"{minutes}m{rest}s"
