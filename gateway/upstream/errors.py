"""How a call to a backend can fail. Internal: opening.py and relay.py translate these into GatewayErrors. Pure.

ending: the word for it in usage events (`upstream_<ending>`), in metrics and, where it is held against the backend, on the
board. No message here carries a byte of an answer: these errors reach logs.
"""

from typing import ClassVar

from gateway.exceptions import GatewayError


class UpstreamError(Exception):
    """A backend did not answer as it should have."""

    ending: ClassVar[str] = "garbage"
    # Does it say no more than that something went wrong? It may be the request then: vLLM answers 500 to some schemas and
    # regexes. Only another backend's answer tells whose fault it is.
    is_ambiguous: ClassVar[bool] = False


class UpstreamRefused(UpstreamError):
    """No connection: refused, unreachable, no such name, TLS that does not hold, or not connected in time."""

    ending = "refused"


class UpstreamCut(UpstreamError):
    """The connection, or the stream, ended before the answer did."""

    ending = "cut"


class UpstreamSilence(UpstreamError):
    """Nothing came within the time given. The connection is still as it was: one may wait on."""

    ending = "timeout"


class UpstreamStalled(UpstreamError):
    """The answer had begun, and stood still for too long; or the backend has stopped generating for everybody."""

    ending = "stalled"


class UpstreamGarbage(UpstreamError):
    """What came is not HTTP/1.1, larger than allowed, or not of the kind that was asked for."""


class UpstreamAborted(UpstreamError):
    """We ended it ourselves: the client has left, this gateway ends, or the backend is given up."""

    ending = "client_left"


class NobodyLeft(UpstreamError):
    """An answer failed before its first event, and no other backend could take over."""

    ending = "nobody_left"


class UpstreamFull(UpstreamError):
    """Its queue is full (503, 429). Another backend may have room; never held against this one."""

    ending = "full"


class EngineDead(UpstreamError):
    """It says itself that its engine is gone, though it still answers."""

    ending = "engine_dead"


class UpstreamFailed(UpstreamError):
    """Status 5xx."""

    ending = "status_5xx"


class UpstreamErred(UpstreamFailed):
    """Status 500, and no word that its engine is gone."""

    is_ambiguous = True


class UpstreamUnwilling(UpstreamError):
    """A status that says nothing of the request, and nothing good of the set-up: 401, 404, a redirect."""

    ending = "status_other"


class MalformedStream(UpstreamError):
    """HTTP, but not a stream of chat events."""


class MalformedAnswer(UpstreamError):
    """HTTP, but not a chat completion."""


class UpstreamReported(UpstreamError):
    """An error event inside a stream. refusal: what it means where it blames the request, in our own words; else None."""

    ending = "error_event"
    is_ambiguous = True

    def __init__(self, refusal: GatewayError | None = None) -> None:
        super().__init__("an error event" if refusal is None else "an error event that blames the request")
        self.refusal = refusal


class ErrorBody(UpstreamReported):
    """Status 200, and an error for an answer."""

    ending = "error_body"
    is_ambiguous = False


class GenerationAborted(UpstreamError):
    """finish_reason "abort": vLLM was stopped, the text is cut short although the stream ends as if whole."""

    ending = "aborted"
