"""How a call to a backend can fail. Internal: completion translates these into GatewayErrors. Pure.

No message here carries a byte of an answer: these errors reach logs.
"""

from gateway.exceptions import GatewayError


class UpstreamError(Exception):
    """A backend did not answer as it should have."""


class UpstreamRefused(UpstreamError):
    """No connection: refused, unreachable, no such name, TLS that does not hold, or not connected in time."""


class UpstreamCut(UpstreamError):
    """The connection, or the stream, ended before the answer did."""


class UpstreamSilence(UpstreamError):
    """Nothing came within the time given. The connection is still as it was: one may wait on."""


class UpstreamGarbage(UpstreamError):
    """What came is not HTTP/1.1, or larger than allowed."""


class UpstreamAborted(UpstreamError):
    """We ended it ourselves: the client has left."""


class MalformedStream(UpstreamError):
    """HTTP, but not a stream of chat events."""


class MalformedAnswer(UpstreamError):
    """HTTP, but not a chat completion."""


class UpstreamReported(UpstreamError):
    """An error event inside a stream. refusal: what it means where it blames the request, in our own words; else None."""

    def __init__(self, refusal: GatewayError | None = None) -> None:
        super().__init__("error event" if refusal is None else "error event that blames the request")
        self.refusal = refusal


class GenerationAborted(UpstreamError):
    """finish_reason "abort": vLLM was stopped, the text is cut short although the stream ends as if whole."""
