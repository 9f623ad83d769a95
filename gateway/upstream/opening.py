"""From a deployment to an answer: its backends are tried in turn until one answers; after the first event, never.

Where no backend of a deployment can answer, the one that takes over is asked, if there is one (routing/road.py).
"""

from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from dataclasses import field
from itertools import islice
from time import monotonic
from typing import Final, NoReturn, TypeVar

from django.conf import settings

from gateway.call import Call
from gateway.config.documents import Deployment
from gateway.endings import stopped
from gateway.exceptions import ClientLeft, ContextLengthExceeded, GatewayError, Overloaded, UpstreamTimeout, UpstreamUnavailable
from gateway.routing.board import board
from gateway.routing.candidates import fits, is_out, ranked
from gateway.routing.choice import Facts
from gateway.routing.road import Road
from gateway.routing.slots import slots
from gateway.upstream.attempt import Attempt, waiting
from gateway.upstream.client import Cancellation
from gateway.upstream.errors import (
    UpstreamAborted,
    UpstreamError,
    UpstreamFull,
    UpstreamReported,
    UpstreamSilence,
    UpstreamStalled,
)
from gateway.upstream.retry_budget import RetryBudget
from usage.values import light_dataclass

MAX_TRIES: Final = 3  # of one deployment, each at another backend

_budgets: Final[defaultdict[str, RetryBudget]] = defaultdict(RetryBudget)
T = TypeVar("T")


@light_dataclass
class Asked:
    """What is asked, wherever it is answered. tokens: what it may use in all. max_tokens: of one choice; None: not said.

    reach: of the road. body_for: the request as a deployment gets it. is_constrained: is the form of its answer bound?
    """

    road: Road
    reach: Sequence[Deployment]
    facts: Facts
    tokens: int
    max_tokens: int | None
    streams: bool
    is_constrained: bool
    body_for: Callable[[Deployment], bytes] = field(repr=False)

    def fits(self, deployment: Deployment) -> bool:
        """vLLM shortens an answer to the room that is left, but refuses a wish for more than its whole context."""
        context = deployment.max_model_len
        is_wish_bearable = context is None or self.max_tokens is None or self.max_tokens <= context
        return is_wish_bearable and fits(deployment, self.facts, board)


class Answers:
    """The answers of status 200 that one call gets: the first one, and after each that fails the next one.

    Both raise GatewayError when nobody is left to be asked: InvalidRequest in our words where a backend refused the request
    itself, ClientLeft, Overloaded where all are full, else UpstreamUnavailable or UpstreamTimeout, whichever came last.
    """

    __slots__ = ("_attempts",)

    def __init__(self, call: Call, asked: Asked) -> None:
        self._attempts = _attempts(call, asked)

    def first(self) -> Attempt:
        return next(self._attempts)

    def after(self, error: UpstreamError) -> Attempt:
        """Where the one before failed with `error`, and nothing of it has reached the client but comments."""
        return self._attempts.throw(error)


def first_answer(call: Call, asked: Asked, *, receive: Callable[[Attempt, Answers], T]) -> T:
    """What `receive` makes of the first backend's answer that it can make something of.

    Where receive raises an UpstreamError, the next backend is tried, within the call's own deadline for all tries together;
    nothing has reached the client then. Where it returns, it ends the attempt, now or later. Raises as Answers does.
    """
    answers = Answers(call, asked)
    attempt = answers.first()
    while True:
        try:
            return receive(attempt, answers)
        except UpstreamError as error:
            attempt = answers.after(error)
        except BaseException:
            attempt.end("internal_error")
            raise


def leave_where_it_hangs() -> None:
    """Move on all who wait at backends that have stopped generating, if they can be answered elsewhere: else it may go on."""
    for attempt in list(waiting):
        if board.hangs(attempt.backend) and _has_others(attempt) and _budgets[attempt.deployment.name].take(monotonic()):
            attempt.leave()


def _has_others(attempt: Attempt) -> bool:
    if attempt.deployment.fallback is not None:
        return True
    backends = (member.backend for member in attempt.deployment.members)
    others = (backend for backend in backends if backend.name not in attempt.tried and not backend.is_draining)
    return len(attempt.tried) < MAX_TRIES and any(board.view(backend).readiness > 0 for backend in others)


def _attempts(call: Call, asked: Asked) -> Generator[Attempt, None, NoReturn]:
    """One after the other; what is thrown in is how the one before failed."""
    deployment = asked.road.first
    been = {deployment.name}
    while True:
        heir = _heir_unasked(asked, deployment) if len(asked.reach) > 1 else None
        if heir is None or heir.name in been:
            failure = yield from _attempts_at(call, deployment, asked)
            heir = _heir(asked, deployment, failure)
            if heir is None or heir.name in been or monotonic() >= call.deadline:
                raise failure
        been.add(heir.name)
        deployment = heir


def _heir_unasked(asked: Asked, deployment: Deployment) -> Deployment | None:
    """Who takes over where it is known beforehand that `deployment` cannot answer."""
    where_out, where_too_long = asked.road.where_out(deployment), asked.road.where_too_long(deployment)
    if where_out is None and where_too_long is None:
        return None
    if is_out(deployment, board):
        return where_out
    return None if where_too_long is None or asked.fits(deployment) else where_too_long


def _heir(asked: Asked, deployment: Deployment, failure: GatewayError) -> Deployment | None:
    """Who takes over after such a failure of `deployment`."""
    if isinstance(failure, ContextLengthExceeded):
        return asked.road.where_too_long(deployment)
    return asked.road.where_out(deployment) if isinstance(failure, (UpstreamUnavailable, UpstreamTimeout)) else None


def _attempts_at(call: Call, deployment: Deployment, asked: Asked) -> Generator[Attempt, None, GatewayError]:
    """As _attempts, at the backends of this deployment alone. Returns what it comes to that none of them answered."""
    call.deployment = deployment.name
    budget = _budgets[deployment.name]
    budget.note_call(monotonic())
    cancellation = Cancellation()
    slot = slots.slot(deployment, asked.facts, tokens=asked.tokens, deadline=call.deadline)
    call.hold(slot, cancellation.cancel)
    tried: frozenset[str] = frozenset()
    failures: list[UpstreamError] = []
    suspects: list[Attempt] = []
    attempt: Attempt | None = None
    try:
        for backend in islice(ranked(deployment, asked.facts, board, slot), MAX_TRIES):
            if attempt is not None and not attempt.is_left and not budget.take(monotonic()):
                break
            tried |= {backend.name}
            attempt = Attempt(deployment, backend, tried, cancellation, streams=asked.streams, suspects=suspects)
            try:
                _open(call, attempt, asked)
                yield attempt
            except UpstreamError as error:
                failures.append(_failure(call, attempt, error))
                if failures[-1].is_ambiguous:
                    suspects.append(attempt)
    except GatewayError as error:
        slot.release()
        return _departure(call) if isinstance(error, ClientLeft) else error
    slot.release()
    if len(suspects) == 1 and not asked.is_constrained:  # there was nobody else to ask, or nobody else could say
        suspects[0].blame()
    return _gateway_error(call, failures)


def _open(call: Call, attempt: Attempt, asked: Asked) -> None:
    call.attempts += 1
    call.backend = attempt.backend.name
    deadline = call.deadline
    if call.is_handed_over:  # its client gets comments, but not while we wait here
        deadline = min(deadline, monotonic() + settings.KEEP_ALIVE_COMMENT_S)
    try:
        request_id = f"{call.request_id}-{call.attempts}"
        attempt.open(asked.body_for(attempt.deployment), request_id=request_id, deadline=deadline)
    except GatewayError:
        attempt.end("refused_request")
        raise


def _failure(call: Call, attempt: Attempt, error: UpstreamError) -> UpstreamError:
    """Note how an attempt failed. Raises where nobody else is to be asked: the call is over, or the request is to blame."""
    if isinstance(error, UpstreamAborted):
        if call.is_over:
            attempt.end("client_left" if call.client_left else "gateway_stopped")
            raise _departure(call)
        error = UpstreamStalled("left: its engine hangs")
        attempt.end(error.ending, is_its_fault=False)
    elif isinstance(error, UpstreamReported) and error.refusal is not None:
        attempt.end("refused_request")
        raise error.refusal
    elif monotonic() >= call.deadline:
        attempt.end("timeout", is_its_fault=False)
        raise UpstreamTimeout(call.alias)  # the time was the call's, not the backend's: none is left
    attempt.end(error.ending, is_its_fault=not error.is_ambiguous)
    return error


def _departure(call: Call) -> GatewayError:
    """Why a call was cancelled, for whoever is left to be told."""
    return ClientLeft() if call.client_left else stopped()


def _gateway_error(call: Call, failures: list[UpstreamError]) -> GatewayError:
    """What it comes to that all tries failed. With one that is merely full, it is worth coming back."""
    if any(isinstance(failure, UpstreamFull) for failure in failures):
        return Overloaded(f"The requested model alias '{call.alias}' is at its capacity. Please try again later.")
    if not failures:
        return UpstreamUnavailable(call.alias)
    last = failures[-1]
    is_late = isinstance(last, (UpstreamSilence, UpstreamStalled))
    return (UpstreamTimeout if is_late else UpstreamUnavailable)(call.alias, ending=last.ending)
