"""The headers that the gateway adds to its answers, by name. Pure; the docs explain each of them."""

from typing import Final

REQUEST_ID: Final = "x-request-id"
QUEUE_MS: Final = "x-gateway-queue-ms"
CLAMPED: Final = "x-gateway-clamped"
DROPPED_PARAMS: Final = "x-gateway-dropped-params"
RETRY_AFTER: Final = "retry-after"
RETRY_AFTER_MS: Final = "retry-after-ms"
SHOULD_RETRY: Final = "x-should-retry"
RATE_KINDS: Final = ("requests", "tokens")


def rate_limit(fact: str, kind: str) -> str:
    """fact: limit, remaining or reset; kind: one of RATE_KINDS."""
    return f"x-ratelimit-{fact}-{kind}"


# What a page of another origin may read of an answer (CORS), and what the docs tell of.
TOLD: Final = (
    REQUEST_ID,
    *(rate_limit(fact, kind) for kind in RATE_KINDS for fact in ("limit", "remaining", "reset")),
    RETRY_AFTER,
    RETRY_AFTER_MS,
    SHOULD_RETRY,
    DROPPED_PARAMS,
    CLAMPED,
    QUEUE_MS,
)
