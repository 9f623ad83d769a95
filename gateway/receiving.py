"""What is made of a backend's answer: a relay for a stream, the whole body for a plain call; and who is told of its end."""

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Final

from django.conf import settings

from gateway import lifecycle
from gateway.admission import learners
from gateway.api.chat_request import ChatRequest
from gateway.api.errors import error_event
from gateway.call import Call, in_time_s
from gateway.config.documents import Deployment
from gateway.endings import ending_of, error_of, recorded_code
from gateway.exceptions import ClientLeft, ContentBlocked, GatewayError, UpstreamTimeout
from gateway.policy.answer import AnswerGuard
from gateway.policy.stream_guard import StreamGuard
from gateway.server.turns import give_way
from gateway.upstream.answers import read_answer, shown
from gateway.upstream.attempt import Attempt
from gateway.upstream.client import UpstreamResponse
from gateway.upstream.errors import NobodyLeft, UpstreamAborted, UpstreamError, UpstreamSilence, UpstreamStalled
from gateway.upstream.metering import Meter, Usage
from gateway.upstream.opening import Answers
from gateway.upstream.pace import Pace
from gateway.upstream.relay import Relay
from gateway.upstream.sse import EventRewriter
from usage.events import Outcome
from usage.reservation import Progress, Reservation

ANSWER_MAX_BYTES: Final = 256 * 1024 * 1024
BYTES_A_TOKEN: Final = 4  # of an answer's JSON: about right for English, and for Japanese with its 3 bytes a character

pace: Final = Pace()
NewMeter = Callable[[Deployment], Meter]


def relayed(call: Call, request: ChatRequest, new_meter: NewMeter, attempt: Attempt, answers: Answers) -> Relay:
    """A relay whose first event is there, or is only slow: until then the answer's status is open."""
    meter = new_meter(attempt.deployment)
    told = _Told(call, meter, attempt, answers, guard_of(call, request.n))
    keep_alive_s: float = settings.KEEP_ALIVE_COMMENT_S
    if call.patience_s is not None:
        keep_alive_s = min(keep_alive_s, in_time_s(call.patience_s))
    relay = Relay(
        attempt.answer,
        EventRewriter(
            completion_id=f"chatcmpl-{call.request_id}",
            alias=call.alias,
            created_s=int(call.created_s),
            shows_usage=request.include_usage,
            shows_running_usage=request.continuous_usage,
        ),
        meter,
        error_event=told.error_event,
        on_end=told.of_the_end,
        on_first_event=told.of_the_first_event,
        take_over=told.of_a_failure,
        is_broken_off=lambda: call.is_broken_off,
        deadline=call.deadline,
        first_event_deadline=attempt.first_token_deadline,
        stall_max_s=attempt.stall_max_s,
        keep_alive_s=keep_alive_s,
        guard=told.guard,
    )
    if call.reservation is not None:
        lifecycle.settling().hold(call.request_id, partial(progress, call.reservation, meter))
    relay.wait_for_first_event(keep_alive_s)
    call.is_handed_over = True
    return relay


class _Told:
    """What a relay tells the call that it works for, whichever attempt the answer comes from by then."""

    __slots__ = ("_answers", "_attempt", "_call", "_meter", "_refusal", "guard")

    def __init__(self, call: Call, meter: Meter, attempt: Attempt, answers: Answers, guard: StreamGuard | None) -> None:
        self._call = call
        self._meter = meter
        self._attempt = attempt
        self._answers = answers
        self._refusal: GatewayError | None = None
        self.guard = guard

    def of_the_first_event(self) -> None:
        self._call.first_token_ms = self._call.elapsed_ms()
        self._attempt.note_first_token()

    def of_a_failure(self, error: UpstreamError) -> tuple[UpstreamResponse, float]:
        """Before the first event: the next backend's answer, and the deadline of its first event. Raises NobodyLeft."""
        try:
            self._attempt = self._answers.after(error)
        except ClientLeft:
            raise UpstreamAborted from None
        except GatewayError as refusal:
            self._refusal = refusal
            raise NobodyLeft from None
        return self._attempt.answer, self._attempt.first_token_deadline

    def of_the_end(self, outcome: Outcome, failure: str | None) -> None:
        if isinstance(self._refusal, UpstreamTimeout):
            outcome = "timeout"
        if self.guard is not None:
            self._call.decisions += self.guard.decisions
        finish(self._call, self._attempt, outcome, self._meter.usage(), failure=failure, refusal=self._refusal)

    def error_event(self, failure: str) -> bytes:
        return error_event(self._refusal or error_of(failure, self._call.alias))


def guard_of(call: Call, choices: int) -> StreamGuard | None:
    """None where no output rule applies to this call: its events pass unread."""
    if call.rules is None or call.masks is None or not call.rules.looks_at_output:
        return None
    return StreamGuard(call.rules, call.masks, choices)


def whole(call: Call, new_meter: NewMeter, attempt: Attempt, _answers: Answers) -> bytes:
    """A plain answer, read to its end, sanitised and metered. vLLM sends it when it is whole: the rest comes at once."""
    response = attempt.answer
    try:
        body = response.read_all(ANSWER_MAX_BYTES, min(call.deadline, monotonic() + attempt.stall_max_s))
    except UpstreamSilence:
        raise UpstreamStalled("half an answer") from None
    answer = read_answer(body)
    response.close(reuse=True)
    is_blocked = not guarded(call, answer)
    body = shown(answer, completion_id=f"chatcmpl-{call.request_id}", alias=call.alias, created_s=int(call.created_s))
    meter = new_meter(attempt.deployment)
    meter.note_answer(answer.get("usage"), completion_estimate_tokens=len(body) // BYTES_A_TOKEN)
    usage = meter.usage()
    tokens = usage.completion_tokens // len(answer["choices"])
    pace.note(attempt.deployment.name, tokens=tokens, seconds=attempt.elapsed_s())
    if is_blocked:
        finish(call, attempt, "completed", usage, refusal=ContentBlocked())
        raise ContentBlocked
    finish(call, attempt, "completed", usage)
    return body


def guarded(call: Call, answer: dict[str, Any]) -> bool:
    """Leave in a whole answer what the call's output rules let pass; False: nothing of it."""
    if call.rules is None or call.masks is None or not call.rules.looks_at_output:
        return True
    guard = AnswerGuard(call.rules, call.masks, pause=give_way)
    guard.take(answer)
    call.decisions += guard.decisions
    return not guard.is_blocked


def finish(
    call: Call,
    attempt: Attempt,
    outcome: Outcome,
    usage: Usage,
    *,
    failure: str | None = None,
    refusal: GatewayError | None = None,
) -> None:
    """An answer is over: all are told who learn from it, and the call ends. failure: how it failed, in a word.

    refusal: what the call came to where more than this one attempt failed.
    """
    if usage.source == "backend" and call.prompt is not None:
        learners[attempt.deployment.name].note(call.prompt, usage.prompt_tokens)
    ending = failure or ending_of(outcome, usage)
    attempt.end(ending, is_its_fault=monotonic() < call.deadline)
    code = refusal.recorded_code if refusal else recorded_code(ending, call.alias)
    status = refusal.status if isinstance(refusal, ContentBlocked) else 200
    call.end(status=status, outcome=outcome, error_code=code, usage=usage)


def progress(reservation: Reservation, meter: Meter) -> Progress:
    """How far a live call is, for its lease."""
    usage = meter.usage()
    return Progress(reservation, usage.completion_tokens, usage.prompt_tokens or None)
