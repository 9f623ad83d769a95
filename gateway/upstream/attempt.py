"""Attempt: one try of one backend, from the request to the end of its answer. The board and the metrics hear of it once."""

from time import monotonic
from typing import Final

from django.conf import settings

from gateway import metrics
from gateway.config.documents import Backend, Deployment
from gateway.routing.board import Failure, board
from gateway.routing.choice import expectations
from gateway.upstream.answers import read_answer
from gateway.upstream.client import Cancellation, UpstreamClient, UpstreamResponse
from gateway.upstream.errors import (
    EngineDead,
    UpstreamAborted,
    UpstreamErred,
    UpstreamError,
    UpstreamFailed,
    UpstreamFull,
    UpstreamGarbage,
    UpstreamUnwilling,
)
from gateway.upstream.refusals import in_own_words

PATH: Final = "/v1/chat/completions"
# Looked up once: Django's settings find out with each look whether they are set up.
_CONNECT_MAX_S: Final[float] = settings.CONNECT_MAX_S
_FIRST_TOKEN_MAX_S: Final[float] = settings.FIRST_TOKEN_MAX_S
_STALL_MAX_S: Final[float] = settings.STALL_MAX_S
REFUSAL_MAX_BYTES: Final = 64 * 1024
REFUSAL_MAX_S: Final = 5.0
# What a status says about the request, and not about the backend: no other backend would answer otherwise.
_ABOUT_THE_REQUEST: Final = frozenset({400, 413, 422})
_FULL: Final = frozenset({429, 503})
# vLLM's words while its API server outlives its engine, /health still at 200 (recorded from 0.32.0).
_ENGINE_DEAD: Final = (b"cannot schedule new futures", b"EngineCore encountered an issue")
# What is held against a backend, by how the attempt ended. A full queue is not, nor what a client or this gateway ended.
_FAILURES: Final = {
    "refused": Failure.REFUSED,
    "cut": Failure.CUT,
    "aborted": Failure.CUT,
    "timeout": Failure.FIRST_TOKEN_TIMEOUT,
    "stalled": Failure.STALLED,
    "status_5xx": Failure.STATUS_5XX,
    "error_event": Failure.STATUS_5XX,
    "engine_dead": Failure.ENGINE_DEAD,
    "status_other": Failure.GARBAGE,
    "error_body": Failure.GARBAGE,
    "garbage": Failure.GARBAGE,
}
_ANSWERS: Final = frozenset({"completed", "wrong_usage", "refused_request"})

client: Final = UpstreamClient()
# Attempts that have told their clients nothing yet: another backend may take over from them.
waiting: Final[set["Attempt"]] = set()


class Attempt:
    """Made when the backend is chosen; must be ended, once or more.

    tried: names of the backends that its call has tried so far, this one included. streams: is it a stream that is asked for?
    suspects: of the same call, whose failure may have been the request's: once another answers it, it was theirs.
    is_left: leave() was called.
    first_token_deadline: monotonic seconds. stall_max_s: the longest silence once the answer has begun.
    """

    __slots__ = (
        "_answer", "_cancellation", "_has_ended", "_queued", "_started", "_streams", "_suspects", "backend", "deployment",
        "first_token_deadline", "is_left", "stall_max_s", "tried",
    )  # fmt: skip

    def __init__(
        self,
        deployment: Deployment,
        backend: Backend,
        tried: frozenset[str],
        cancellation: Cancellation,
        *,
        streams: bool,
        suspects: "list[Attempt]",
    ) -> None:
        self.deployment = deployment
        self.backend = backend
        self.tried = tried
        self.is_left = False
        self._answer: UpstreamResponse | None = None
        self._cancellation = cancellation
        self._started = monotonic()
        self._has_ended = False
        first_s, stall_s = deployment.first_token_max_s, deployment.stall_max_s
        self.first_token_deadline = self._started + (_FIRST_TOKEN_MAX_S if first_s is None else first_s)
        self.stall_max_s = _STALL_MAX_S if stall_s is None else stall_s
        self._streams = streams
        self._suspects = suspects
        self._queued = expectations.queued(board.view(backend), self._started) if streams else 0.0  # for its first token
        board.note_start(backend)
        waiting.add(self)

    def open(self, body: bytes, *, request_id: str, deadline: float) -> None:
        """Ask, and wait for the head of its answer. deadline: monotonic seconds.

        Raises UpstreamError where it is no answer; InvalidRequest, ContextLengthExceeded where it blames the request.
        """
        answer = self._answer = client.open_call(
            self.backend,
            PATH,
            body,
            # Never the client's: vLLM makes it the id of the request, and two at once with the same id meet in its engine.
            headers={"X-Request-Id": request_id},
            connect_s=_CONNECT_MAX_S,
            # A whole answer has no first token that one could wait for.
            first_byte_deadline=min(deadline, self.first_token_deadline) if self._streams else deadline,
            rest_s=self.stall_max_s,
            cancellation=self._cancellation,
        )
        if answer.status != 200:
            raise _fault(answer, deadline)
        if self._streams and not answer.is_event_stream:
            read_answer(answer.read_all(REFUSAL_MAX_BYTES, min(deadline, monotonic() + REFUSAL_MAX_S)))
            raise UpstreamGarbage("a whole answer where a stream was asked for")

    @property
    def answer(self) -> UpstreamResponse:
        """Once open() has returned. Closed at the end."""
        if self._answer is None:
            raise RuntimeError("the attempt has not been opened")
        return self._answer

    def elapsed_s(self) -> float:
        return monotonic() - self._started

    def note_first_token(self) -> None:
        """The first event of its stream is there, and on its way to the client."""
        waiting.discard(self)
        elapsed_s = self.elapsed_s()
        board.note_success(self.backend, first_token_s=elapsed_s)
        if self._suspects:
            self._blame_suspects()
        expectations.note_first_token(self.backend.name, queued=self._queued, first_token_s=elapsed_s)

    def leave(self) -> None:
        """Whoever waits for it gets UpstreamAborted, and goes on to another backend."""
        self.is_left = True
        waiting.discard(self)
        self._cancellation.give_up()

    def blame(self) -> None:
        """That it failed was its backend's fault, and not the request's."""
        board.note_failure(self.backend, Failure.STATUS_5XX)

    def _blame_suspects(self) -> None:
        """The request was answered here."""
        while self._suspects:
            self._suspects.pop().blame()

    def end(self, ending: str, *, is_its_fault: bool = True) -> None:
        """How it ended: completed, client_left, refused_request, wrong_usage, or an `ending` of errors.py.

        is_its_fault: False where the call's own limits, or what the board knows already, ended it, or where it is yet in doubt.
        """
        if self._has_ended:
            return
        self._has_ended = True
        waiting.discard(self)
        if self._answer is not None and not self._answer.is_closed:
            self._answer.close(reuse=False)
        if ending in _ANSWERS:
            board.note_success(self.backend, first_token_s=None)
            if self._suspects and ending != "refused_request":
                self._blame_suspects()
        elif is_its_fault and ending in _FAILURES:
            board.note_failure(self.backend, _FAILURES[ending])
        board.note_end(self.backend)
        metrics.counts[metrics.ATTEMPTS, self.backend.name, ending] += 1


def _fault(answer: UpstreamResponse, deadline: float) -> UpstreamError:
    """What a status other than 200 says of the backend. Raises the client's own fault at once."""
    is_about_the_request = answer.status in _ABOUT_THE_REQUEST
    body = b""
    try:
        body = answer.read_all(REFUSAL_MAX_BYTES, min(deadline, monotonic() + REFUSAL_MAX_S))
        answer.close(reuse=True)
    except UpstreamError as error:
        if is_about_the_request or isinstance(error, UpstreamAborted):
            raise  # of the others the status says enough
    if is_about_the_request:
        raise in_own_words(body)
    if answer.status in _FULL:
        return UpstreamFull()
    if answer.status == 500 and any(words in body for words in _ENGINE_DEAD):
        return EngineDead()
    if answer.status == 500:
        return UpstreamErred()
    return UpstreamFailed() if answer.status > 500 else UpstreamUnwilling()
