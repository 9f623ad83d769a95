"""One chat call from its bytes to the last chunk: read, queue, generate at the pace that the knobs set, count, end.

Three things may be thrown into a call while it waits anywhere: ClientGone, EngineStopped, and what the knobs raise.
"""

import random
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NoReturn

import gevent
import orjson

from gateway.simulator import faults, knobs, schema
from gateway.simulator.answers import Choice, answer
from gateway.simulator.asks import Ask, Served, ask
from gateway.simulator.chat import Chat, ChatStream
from gateway.simulator.connection import ClientGone
from gateway.simulator.engine import Call, EngineStopped
from gateway.simulator.errors import Refusal, bad_request
from gateway.simulator.http11 import Request
from gateway.simulator.model import Model
from gateway.simulator.reply import Reply

_FOR_EVER_S: Final = 1e6
_SMALL_BYTES: Final = 16 * 1024


def chat(model: Model, request: Request, reply: Reply) -> None:
    """POST /v1/chat/completions. Raises ClientGone, Cut, Reset and EngineStopped for the connection to end by."""
    call = Call(headers=request.headers, body=request.body)
    with model.engine.remembered(call):
        try:
            _serve(model, request, reply, call)
        except Refusal as refusal:
            call.status, call.finished = refusal.status, "refused"
            try:
                reply.refuse(refusal)
            except faults.Hang:
                _stand_still()
        except ClientGone:
            call.finished = call.finished or "disconnect"
            raise
        except (faults.Cut, faults.Reset):
            call.finished = "cut"
            raise
        except EngineStopped:
            call.finished = call.finished or "abort"
            raise


def _serve(model: Model, request: Request, reply: Reply, call: Call) -> None:
    asked = _asked(request, model.served)
    turned = reply.knobs = _turned(model.knobs, request, asked)
    try:
        faults.refuse(turned, model.dice)
    except faults.Hang:
        _stand_still()
    choices = answer(asked, turned)
    model.engine.check_room()
    call.id = _id(request, asked.request_id, turned.canary)
    call.prompt_tokens = asked.prompt_tokens
    call.status = 200
    written = Chat(call, asked, choices, model.served, turned, int(time.time() + turned.clock_skew_s))
    if asked.streams:
        _stream(model, written, reply)
    else:
        _whole(model, written, reply)


def _asked(request: Request, served: Served) -> Ask:
    kind = request.headers.get("content-type", "")
    read = _read_again if len(request.body) <= _SMALL_BYTES else _read
    return read(kind, request.body, served)


def _read(content_type: str, body: bytes, served: Served) -> Ask:
    data = schema.read_json(content_type, body)
    return ask(data, schema.checked(data), served)


# In a load test thousands of calls have the same body: understanding it is half of what a plain call costs.
_read_again = lru_cache(512)(_read)


def _turned(now: knobs.Knobs, request: Request, asked: Ask) -> knobs.Knobs:
    """The knobs for this request alone."""
    changes = knobs.spoken(request.headers.get("x-sim-knobs", "")) | knobs.in_message(asked.last_user_text)
    try:
        return now.turned(changes, for_one_request=True) if changes else now
    except knobs.KnobError as error:
        raise bad_request(str(error)) from None


def _id(request: Request, field: str | None, marker: str) -> str:
    """The client's X-Request-Id, unchecked, over the field request_id, over a made-up one; all as recorded."""
    given = request.headers.get("x-request-id") or field or f"{random.getrandbits(64):016x}"
    return f"chatcmpl-{marker}-{given}" if marker else f"chatcmpl-{given}"


def _stream(model: Model, written: Chat, reply: Reply) -> None:
    stream, call, asked = ChatStream(written), written.call, written.asked
    reply.begin_stream()
    try:
        with model.engine.seats(call, asked.n, asked.priority, asked.salt, asked.prompt):
            _generate(model, written, stream, reply)
        reasons = [c.finish_reason for c in written.choices] if stream.has_ended else ["error"]
    except EngineStopped:
        for _, event in stream.aborted():
            reply.event(event)
        reasons = ["abort"]
    _finish(model, call, reasons)
    reply.end()


def _generate(model: Model, written: Chat, stream: ChatStream, reply: Reply) -> None:
    """Write every event at its time; whoever is late writes several at once, as vLLM does."""
    turned, call = written.knobs, written.call
    events = stream.events()
    if faults.are_late(turned):
        events = faults.spoiled(events, turned)
    interval_s = _interval_s(written) / written.asked.n
    due_s = _first_token_s(written)
    _sleep_until(due_s)
    call.first_token_s = time.monotonic()
    try:
        for count, event in events:
            if not model.engine.moves.is_set():
                reply.flush()
                model.engine.moves.wait()
            call.completion_tokens += count
            reply.event(event)
            due_s += interval_s * count
            # Waiting comes last: whatever ends the wait, every token made is counted and on its way.
            if interval_s and stream.steps_left and due_s > time.monotonic():
                reply.flush()
                _sleep_until(due_s)
    except faults.Hang:
        reply.flush()
        _stand_still()


def _whole(model: Model, written: Chat, reply: Reply) -> None:
    call, asked = written.call, written.asked
    try:
        with model.engine.seats(call, asked.n, asked.priority, asked.salt, asked.prompt):
            choices = _generated(model, written)
    except EngineStopped:  # while it waited for its turn
        choices = [choice.cut(0) for choice in written.choices]
    _finish(model, call, [choice.finish_reason for choice in choices])
    try:
        reply.whole(written.whole(choices))
    except faults.Hang:
        reply.flush()
        _stand_still()


def _generated(model: Model, written: Chat) -> Sequence[Choice]:
    """The choices, after the time it takes; as far as they came by then when the engine stops. Raises ClientGone."""
    call, choices = written.call, written.choices
    begin_s, interval_s = _first_token_s(written), _interval_s(written)
    try:
        _sleep_until(begin_s)
        call.first_token_s = time.monotonic()
        _sleep_until(begin_s + interval_s * (max(choice.tokens for choice in choices) - 1))
        model.engine.moves.wait()
    except (ClientGone, EngineStopped) as error:
        done = _tokens_by(time.monotonic() - begin_s, interval_s)
        choices = [choice if choice.tokens <= done else choice.cut(done) for choice in choices]
        if isinstance(error, ClientGone):
            raise
    finally:
        call.completion_tokens = sum(choice.tokens for choice in choices)
    return choices


def _tokens_by(elapsed_s: float, interval_s: float) -> int:
    """How many tokens one choice has that long after its first one."""
    if elapsed_s < 0:
        return 0
    return 1 + int(elapsed_s / interval_s) if interval_s else 1


def _first_token_s(written: Chat) -> float:
    return written.call.scheduled_s + written.knobs.first_token_ms / 1000 / written.knobs.speed


def _interval_s(written: Chat) -> float:
    tokens_per_s = written.knobs.tokens_per_s * written.knobs.speed
    return 1 / tokens_per_s if tokens_per_s else 0.0


def _sleep_until(moment_s: float) -> None:
    left_s = moment_s - time.monotonic()
    if left_s > 0:
        gevent.sleep(left_s)


def _stand_still() -> NoReturn:
    """Until the client goes or the engine stops."""
    while True:
        gevent.sleep(_FOR_EVER_S)


def _finish(model: Model, call: Call, reasons: Sequence[str]) -> None:
    call.finished = reasons[0]
    for reason in reasons:
        model.engine.finished["stop" if reason == "tool_calls" else reason] += 1


def record(call: Call) -> dict[str, object]:
    """A call for /sim/requests; body: parsed, null when it was no JSON. Only tests ask for it."""
    try:
        body = orjson.loads(call.body)
    except ValueError:
        body = None
    return {
        "id": call.id,
        "status": call.status,
        "prompt_tokens": call.prompt_tokens,
        "cached_tokens": call.cached_tokens,
        "completion_tokens": call.completion_tokens,
        "finished": call.finished,
        "headers": call.headers,
        "body": body,
    }
