"""The GatewayError tree: every refusal and failure a client of /v1 can see. Pure; rendered in api/errors.py alone.

    GatewayError
      InvalidRequest 400          ContextLengthExceeded 400      RequestTooLarge 413     UnsupportedMediaType 415
      InvalidApiKey 401           InsufficientScope 403          ContentBlocked 403
      ModelNotFound 404       UnsupportedEndpoint 404           RequestNotFound 404
      MethodNotAllowed 405        UpstreamUnavailable 502        Overloaded 503          UpstreamTimeout 504
      RateLimited 429
        TokenQuotaExceeded        ConcurrencyLimitExceeded          RequestRateExceeded
      InternalError 500           ClientLeft 499 (never on the wire)

Types, codes and messages are the wire contract's, word for word.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final


class GatewayError(Exception):
    """status, type, code, message: as on the wire. retry_after_s: true seconds until the call would fit, or None."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    default_message: ClassVar[str] = "Internal server error"

    def __init__(
        self,
        message: str | None = None,
        *,
        param: str | None = None,
        details: Sequence[Mapping[str, Any]] | None = None,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        closes_connection: bool = False,
    ) -> None:
        self.message = message or self.default_message
        self.param = param
        self.details = details
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})
        # True where the boundary of the next request on this connection is in doubt.
        self.closes_connection = closes_connection
        super().__init__(self.message)

    @property
    def recorded_code(self) -> str:
        """The code in the call's log line and usage event: tells apart what a client need not."""
        return self.code

    @property
    def detail(self) -> str:
        """The sentence of the `detail` dialect; the message, unless that dialect has words of its own."""
        return self.message

    @property
    def detail_status(self) -> int:
        """The status in the `detail` dialect; differs for an unknown model alone."""
        return self.status


class InvalidRequest(GatewayError):
    """The body, or one field, is not what the contract allows. `param` names the field, `details` say why."""

    status, type, code = 400, "invalid_request_error", "invalid_request"
    default_message = "Invalid chat completion request."


class ContextLengthExceeded(GatewayError):
    status, type, code = 400, "invalid_request_error", "context_length_exceeded"
    default_message = "The prompt does not fit into this model's context."


class InvalidApiKey(GatewayError):
    """Missing, malformed, unknown, expired or revoked: the client is never told which."""

    status, type, code = 401, "authentication_error", "invalid_api_key"
    default_message = "Invalid API key"


class InsufficientScope(GatewayError):
    status, type, code = 403, "invalid_request_error", "insufficient_scope"
    default_message = "This API key is not authorized to invoke chat completions."


class ContentBlocked(GatewayError):
    """A content policy says no. By which rule is in the tenant's own record of the call, and nowhere else."""

    status, type, code = 403, "invalid_request_error", "content_blocked"
    default_message = "Your request was blocked by a content policy."

    def __init__(self) -> None:
        super().__init__(headers={"x-should-retry": "false"})


class ModelNotFound(GatewayError):
    """Absent, or not this tenant's, or not this key's: not to be told apart."""

    status, type, code = 404, "model_not_found", "model_not_found"
    default_message = "The requested model was not found."

    def __init__(self, model: str) -> None:
        super().__init__(param="model")
        self.model = model

    @property
    def detail(self) -> str:
        return f"Model {self.model} not found"

    @property
    def detail_status(self) -> int:
        return 400


class RequestNotFound(GatewayError):
    """No call of this id has ended, or it is not this tenant's, or not this key's: not to be told apart."""

    status, type, code = 404, "invalid_request_error", "request_not_found"
    default_message = "The requested call was not found."


class UnsupportedEndpoint(GatewayError):
    status, type, code = 404, "invalid_request_error", "unsupported_endpoint"
    default_message = "This endpoint is not supported."


class MethodNotAllowed(GatewayError):
    status, type, code = 405, "invalid_request_error", "method_not_allowed"
    default_message = "This method is not allowed here."


class RequestTooLarge(GatewayError):
    status, type, code = 413, "invalid_request_error", "request_too_large"
    default_message = "The request is too large."


class UnsupportedMediaType(GatewayError):
    status, type, code = 415, "invalid_request_error", "unsupported_media_type"
    default_message = "The request body must be application/json in UTF-8."


class InternalError(GatewayError):
    """A fault of ours; its traceback is in the log under the request id, never in the answer."""


class Overloaded(GatewayError):
    """The gateway or every backend is full, or a store it needs is out. Always with a retry_after_s."""

    status, type, code = 503, "server_error", "overloaded"
    default_message = "The service is temporarily overloaded. Please try again later."

    def __init__(self, message: str | None = None, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s=retry_after_s)


class RateLimited(GatewayError):
    """A limit says no."""

    status, type, code = 429, "rate_limited", "rate_limited"

    def __init__(self, message: str | None = None, *, retry_after_s: float, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s, headers=headers)


class TokenQuotaExceeded(RateLimited):
    """Tokens or money of an hour, a day or a month are used up; the message says which, how much, and of how much."""

    code = "token_quota_exceeded"


class ConcurrencyLimitExceeded(RateLimited):
    code = "concurrency_limit_exceeded"
    default_message = "Too many concurrent requests. Please try again later."


class RequestRateExceeded(RateLimited):
    code = "rate_limited"


class AliasError(GatewayError):
    """A failure told in the name of the alias, the only name a client knows. ending: how the last backend failed, a word."""

    def __init__(self, alias: str, *, ending: str | None = None) -> None:
        super().__init__(self.sentence(alias))
        self.ending = ending

    @property
    def recorded_code(self) -> str:
        return self.code if self.ending is None else f"upstream_{self.ending}"

    @staticmethod
    def sentence(alias: str) -> str:
        return f"The requested model alias '{alias}' is temporarily unavailable."


class UpstreamUnavailable(AliasError):
    """No backend could answer, or the one that did ended in the middle."""

    status, type, code = 502, "upstream_unavailable", "upstream_unavailable"


class UpstreamTimeout(AliasError):
    """No first byte in time, a silence that is too long, or the call's whole time is over."""

    status, type, code = 504, "upstream_unavailable", "upstream_timeout"

    @staticmethod
    def sentence(alias: str) -> str:
        return f"The requested model alias '{alias}' did not answer in time."


class ClientLeft(GatewayError):
    """Nobody is there to answer: the status is nginx's, for the log alone."""

    status, type, code = 499, "client_left", "client_left"
    default_message = "The client has left."


def told() -> list[type[GatewayError]]:
    """One class of the tree for each code that a client can see, by status and code."""
    classes: dict[str, type[GatewayError]] = {}
    waiting: list[type[GatewayError]] = [GatewayError]
    while waiting:
        error = waiting.pop(0)
        classes.setdefault(error.code, error)
        waiting += error.__subclasses__()
    del classes[ClientLeft.code]
    return sorted(classes.values(), key=lambda error: (error.status, error.code))


# Above this the official SDKs' own patience ends; x-should-retry: false is the one signal all their versions obey.
LONG_WAIT_S: Final = 60
