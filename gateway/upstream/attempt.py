"""Attempt: one try of one backend, from the request to the end of its answer. The board and the metrics hear of it once."""

from time import monotonic
from typing import Final

from django.conf import settings

from gateway import metrics
from gateway.config.documents import Backend, Deployment
from gateway.routing.board import Failure, board
from gateway.upstream.client import Cancellation, UpstreamResponse

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


class Attempt:
    """Made when the backend is chosen; must be ended, once or more.

    response: set when the head of the answer is there, and closed at the end. first_token_deadline: monotonic seconds.
    stall_max_s: the longest silence once the answer has begun.
    """

    __slots__ = (
        "_has_ended", "_started", "backend", "cancellation", "deployment", "first_token_deadline", "response", "stall_max_s",
    )  # fmt: skip

    def __init__(self, deployment: Deployment, backend: Backend, cancellation: Cancellation) -> None:
        self.deployment = deployment
        self.backend = backend
        self.cancellation = cancellation
        self.response: UpstreamResponse | None = None
        self._started = monotonic()
        self._has_ended = False
        self.first_token_deadline = self._started + _or(deployment.first_token_max_s, settings.FIRST_TOKEN_MAX_S)
        self.stall_max_s = _or(deployment.stall_max_s, settings.STALL_MAX_S)
        board.note_start(backend)
        _waiting.add(self)

    def elapsed_s(self) -> float:
        return monotonic() - self._started

    def note_first_token(self) -> None:
        """The first event of its stream is there."""
        _waiting.discard(self)
        board.note_success(self.backend, first_token_s=self.elapsed_s())

    def commit(self) -> None:
        """Something has reached the client: no other backend can answer any more, however long this one takes."""
        _waiting.discard(self)

    def end(self, ending: str, *, is_its_fault: bool = True) -> None:
        """How it ended: completed, client_left, refused_request, wrong_usage, or an `ending` of errors.py.

        is_its_fault: False where the call's own limits, or what the board knows already, ended it.
        """
        if self._has_ended:
            return
        self._has_ended = True
        _waiting.discard(self)
        if self.response is not None:
            self.response.close(reuse=False)
        if ending in _ANSWERS:
            board.note_success(self.backend, first_token_s=None)
        elif is_its_fault and ending in _FAILURES:
            board.note_failure(self.backend, _FAILURES[ending])
        board.note_end(self.backend)
        metrics.ATTEMPTS.labels(self.backend.name, ending).inc()


def _or(own_s: float | None, usual_s: float) -> float:
    return usual_s if own_s is None else own_s


# Those of which nothing has reached a client yet.
_waiting: Final[set[Attempt]] = set()


def give_up_where_it_hangs() -> None:
    """Wake all who wait at backends that have stopped generating: another one may answer them."""
    for attempt in list(_waiting):
        if board.hangs(attempt.backend):
            attempt.cancellation.give_up()
