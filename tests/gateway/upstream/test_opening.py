"""Which failures of a backend another one is asked after, which are the client's own, and who takes over at the end."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from gateway.call import Call
from gateway.config.documents import Alias, Backend, Deployment, Platform, PoolMember
from gateway.exceptions import (
    ClientLeft,
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    Overloaded,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.routing.board import STRIKES, board
from gateway.routing.choice import Facts
from gateway.routing.road import Road
from gateway.upstream import attempt as attempt_module
from gateway.upstream import opening
from gateway.upstream.answers import read_answer
from gateway.upstream.attempt import Attempt
from gateway.upstream.errors import UpstreamSilence, UpstreamStalled
from gateway.upstream.opening import MAX_TRIES, Answers, Asked, first_answer, leave_where_it_hangs
from gateway.upstream.retry_budget import RetryBudget
from gateway.upstream.sse import EventRewriter
from tests.gateway.upstream.scripted import (
    LAST_CHUNK,
    PATIENCE_S,
    STREAM_HEAD,
    Exchange,
    Script,
    ScriptedBackend,
    chunk,
    nobody_listens,
    sized,
    until,
)

BLAMES_REQUEST = (
    b'{"error": {"message": "token_id(s) [402] in logit_bias contain out-of-vocab token ids.", "type": "BadRequestError",'
    b' "param": "logit_bias", "code": 400}}'
)
TOO_LONG = b'{"error": {"message": "This model\'s maximum context length is 8192 tokens. However ...", "code": 400}}'
BLAMES_ITSELF = b'{"error": {"message": "EngineCore encountered an issue.", "code": 500}}'
FAILS = b'{"error": {"message": "Internal server error", "type": "InternalServerError", "param": null, "code": 500}}'
EVENT = b'{"id":"x","choices":[{"index":0}]}'
ANSWER = b'{"id":"x","choices":[{"index":0,"finish_reason":"stop"}]}'

_names = itertools.count()


def streamed(data: bytes) -> Script:
    def script(exchange: Exchange) -> None:
        exchange.request()
        exchange.send(STREAM_HEAD + chunk(b"data: " + data + b"\n\n") + LAST_CHUNK)
        exchange.wait_for_close()

    return script


def plain(data: bytes, status: bytes = b"200 OK") -> Script:
    def script(exchange: Exchange) -> None:
        exchange.request()
        exchange.send(sized(data, status=status))

    return script


def silent(exchange: Exchange) -> None:
    exchange.request()
    exchange.wait_for_close()


def cut(exchange: Exchange) -> None:
    exchange.request()


def half(exchange: Exchange) -> None:
    exchange.request()
    exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{")
    exchange.wait_for_close()


def first_event(attempt: Attempt, _answers: Answers) -> bytes:
    """As a relay would: the answer stands once its first event is there."""
    rewriter = EventRewriter(
        completion_id="chatcmpl-1", alias="general", created_s=None, shows_usage=False, shows_running_usage=False
    )
    event = rewriter.rewrite(attempt.answer.read_some(time.monotonic() + PATIENCE_S).rstrip())[1]
    attempt.end("completed")
    return event


def whole_answer(attempt: Attempt, _answers: Answers) -> bytes:
    try:
        answer = read_answer(attempt.answer.read_all(10_000, attempt.first_token_deadline))
    except UpstreamSilence:
        raise UpstreamStalled from None
    attempt.end("completed")
    return str(answer["id"]).encode()


class Stand:
    """Deployments of scripted backends, asked one call after the other; of each, the first one is of weight 100."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.deployments: dict[str, Deployment] = {}
        self.backends: dict[str, list[ScriptedBackend]] = {}
        self.bodies: list[str] = []

    def deployment(self, name: str, *scripts: Script | None, connections: int = 1, **terms: object) -> Deployment:
        """script None: nobody listens. connections: so many are served, each by its script; then nobody listens any more."""
        served = [
            self._stack.enter_context(ScriptedBackend(*[script] * connections)) for script in scripts if script is not None
        ]
        rest = iter(served)
        members = tuple(
            PoolMember(self._backend(next(rest) if script is not None else None), 100 - 10 * index)
            for index, script in enumerate(scripts)
        )
        self.deployments[name] = Deployment(name, "tiny", members, **terms)  # type: ignore[arg-type]
        self.backends[name] = served
        return self.deployments[name]

    def _backend(self, served: ScriptedBackend | None) -> Backend:
        """Under a name that no other test has used: the board remembers."""
        url = served.config.url if served else f"http://127.0.0.1:{self._stack.enter_context(nobody_listens())}"
        return Backend(f"gpu-{next(_names)}", url)

    def ask(
        self,
        name: str = "main",
        *,
        alias: Alias | None = None,
        receive: Callable[[Attempt, Answers], bytes] = first_event,
        call: Call | None = None,
        prompt_tokens: int = 10,
        is_constrained: bool = False,
    ) -> tuple[Call, bytes | GatewayError]:
        call = call or Call(client_request_id=None, max_s=PATIENCE_S, record=lambda *_: None)
        road = Road(Platform(self.deployments), alias or Alias("general", "main", 0), self.deployments[name])
        facts = Facts(tenant_id="t", request_id=call.request_id, prompt_tokens=prompt_tokens)
        asked = Asked(road, road.reach(), facts, 100, None, receive is first_event, is_constrained, self._body_for)
        try:
            answer: bytes | GatewayError = first_answer(call, asked, receive=receive)
        except GatewayError as error:
            answer = error
        call.end(status=0, outcome="refused")
        for deployment in self.deployments.values():
            assert [board.view(member.backend).in_flight for member in deployment.members] == [0] * len(deployment.members)
        assert not attempt_module.waiting
        return call, answer

    def _body_for(self, deployment: Deployment) -> bytes:
        self.bodies.append(deployment.name)
        return b"{}"

    def accepted(self, name: str = "main") -> list[int]:
        return [backend.accepted for backend in self.backends[name]]


@pytest.fixture
def stand() -> Iterator[Stand]:
    with ExitStack() as stack:
        yield Stand(stack)
        attempt_module.client.drop_idle(older_than_s=0)


@pytest.fixture(autouse=True)
def fresh_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    opening._budgets.clear()


@pytest.mark.parametrize(
    "script", [streamed(BLAMES_REQUEST), plain(BLAMES_REQUEST, b"400 Bad Request")], ids=["stream", "status"]
)
def test_a_request_that_one_backend_blames_is_refused_in_our_words_without_asking_another(stand: Stand, script: Script) -> None:
    stand.deployment("main", script, script)
    call, error = stand.ask()
    assert isinstance(error, InvalidRequest)
    assert error.param == "logit_bias"
    assert error.details == [{"param": "logit_bias", "message": "Holds token ids outside of this model's vocabulary."}]
    assert call.attempts == sum(stand.accepted()) == 1


@pytest.mark.parametrize(
    "script",
    [
        None,
        cut,
        streamed(BLAMES_ITSELF),
        plain(BLAMES_ITSELF, b"500 Oops"),
        plain(b"", b"503 Service Unavailable"),
        plain(b"", b"429 Too Many Requests"),
        plain(b"", b"502 Bad Gateway"),
        plain(b"", b"401 Unauthorized"),
        plain(b"", b"307 Temporary Redirect"),
        streamed(b"<html>"),
        lambda exchange: (exchange.request(), exchange.send(b"garbage\r\n\r\n")),
    ],
    ids=["refused", "cut", "error event", "500", "503", "429", "502", "401", "307", "no JSON", "no HTTP"],
)
def test_a_backend_that_fails_is_not_the_last_to_be_asked(stand: Stand, script: Script | None) -> None:
    stand.deployment("main", script, streamed(EVENT))
    call, event = stand.ask()
    assert isinstance(event, bytes)
    assert b"general" in event
    assert call.attempts in (1, 2)  # the choice may begin with either
    assert stand.accepted()[-1] == 1


ERRS = pytest.mark.parametrize(
    "script", [plain(FAILS, b"500 Internal Server Error"), streamed(FAILS)], ids=["status", "error event"]
)


@ERRS
def test_an_error_is_held_against_a_backend_where_another_answers_the_same_request(stand: Stand, script: Script) -> None:
    deployment = stand.deployment("main", script, streamed(EVENT), connections=100)
    sick, sound = (member.backend for member in deployment.members)
    while stand.accepted()[0] < STRIKES:
        assert isinstance(stand.ask(is_constrained=True)[1], bytes)
    assert board.view(sick).state == "ejected"
    assert board.view(sound).state != "ejected"


@ERRS
@pytest.mark.parametrize("is_constrained", [True, False])
def test_a_request_that_every_backend_stumbles_over_takes_none_of_them_out(
    stand: Stand, script: Script, is_constrained: bool
) -> None:
    """Some schemas and regexes make vLLM answer 500: one tenant could else take a deployment from all others."""
    deployment = stand.deployment("main", script, script, connections=2 * STRIKES)
    for _ in range(2 * STRIKES):
        call, error = stand.ask(is_constrained=is_constrained)
        assert isinstance(error, UpstreamUnavailable)
        assert call.attempts == 2
    assert {board.view(member.backend).state for member in deployment.members} == {"unknown"}


@ERRS
@pytest.mark.parametrize("is_constrained", [True, False])
def test_where_there_is_nobody_else_to_ask_an_error_is_the_backends_unless_the_request_binds_its_answer(
    stand: Stand, script: Script, is_constrained: bool
) -> None:
    deployment = stand.deployment("main", script, connections=STRIKES)
    for _ in range(STRIKES):
        assert isinstance(stand.ask(is_constrained=is_constrained)[1], UpstreamUnavailable)
    assert board.view(deployment.members[0].backend).state == ("unknown" if is_constrained else "ejected")


@pytest.mark.parametrize("script", [silent, half], ids=["no head", "half an answer"])
def test_a_whole_answer_that_stands_still_is_given_by_another(stand: Stand, script: Script) -> None:
    limits = {"first_token_max_s": 0.3, "stall_max_s": 0.3}
    stand.deployment("main", half, half, plain(ANSWER), **limits)
    _call, answer = stand.ask(receive=whole_answer)
    assert answer == b"x"


def test_the_first_token_time_out_of_the_deployment_moves_on(stand: Stand) -> None:
    stand.deployment("main", silent, silent, first_token_max_s=0.2)
    call, error = stand.ask()
    assert isinstance(error, UpstreamTimeout)
    assert error.recorded_code == "upstream_timeout"
    assert call.attempts == 2
    assert stand.accepted() == [1, 1], "another one each time"


def test_no_more_than_three_are_tried(stand: Stand) -> None:
    stand.deployment("main", cut, cut, cut, cut, cut)
    call, error = stand.ask()
    assert isinstance(error, UpstreamUnavailable)
    assert (error.code, error.recorded_code) == ("upstream_unavailable", "upstream_cut")
    assert call.attempts == sum(stand.accepted()) == MAX_TRIES


def test_without_a_retry_left_the_first_failure_is_the_last(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryBudget, "take", lambda *_: False)
    stand.deployment("main", cut, cut)
    assert stand.ask()[0].attempts == 1


def test_one_that_is_merely_full_is_worth_coming_back(stand: Stand) -> None:
    stand.deployment("main", plain(b"", b"503 Service Unavailable"), cut)
    _call, error = stand.ask()
    assert isinstance(error, Overloaded)
    assert error.retry_after_s


def test_full_is_held_against_nobody(stand: Stand) -> None:
    for _ in range(5):
        deployment = stand.deployment("main", plain(b"", b"503 Service Unavailable"))
        backend = replace(deployment.members[0].backend, name="gpu-full")
        stand.deployments["main"] = replace(deployment, members=(PoolMember(backend, 1),))
        assert isinstance(stand.ask()[1], Overloaded)
    assert board.view(backend).state == "unknown"


def test_the_calls_own_time_is_shared_by_all_tries(stand: Stand) -> None:
    stand.deployment("main", silent, silent)
    call, error = stand.ask(call=Call(client_request_id=None, max_s=0.3, record=lambda *_: None))
    assert isinstance(error, UpstreamTimeout)
    assert call.attempts == 1, "no time was left for another"


def test_a_deployment_takes_over_where_every_backend_is_out(stand: Stand) -> None:
    stand.deployment("main", None, cut, fallback="other")
    stand.deployment("other", streamed(EVENT))
    call, event = stand.ask()
    assert isinstance(event, bytes)
    assert (call.deployment, call.attempts) == ("other", 3)
    assert stand.bodies[-1] == "other", "with a body of its own"


def test_who_takes_over_may_fail_too(stand: Stand) -> None:
    stand.deployment("main", None, fallback="other")
    stand.deployment("other", None, fallback="main")  # a circle, though nobody can configure one
    call, error = stand.ask()
    assert isinstance(error, UpstreamUnavailable)
    assert (call.deployment, call.attempts) == ("other", 2)


def test_a_full_deployment_is_not_taken_over(stand: Stand) -> None:
    stand.deployment("main", plain(b"", b"503 Service Unavailable"), fallback="other")
    stand.deployment("other", streamed(EVENT))
    assert isinstance(stand.ask()[1], Overloaded)


def test_a_prompt_that_a_backend_finds_too_long_goes_where_there_is_room(stand: Stand) -> None:
    stand.deployment("main", plain(TOO_LONG, b"400 Bad Request"), context_fallback="long", fallback="other")
    stand.deployment("long", streamed(EVENT))
    stand.deployment("other", streamed(EVENT))
    call, event = stand.ask()
    assert isinstance(event, bytes)
    assert (call.deployment, call.attempts) == ("long", 2)


def test_a_prompt_that_fits_nowhere_is_the_clients_fault(stand: Stand) -> None:
    stand.deployment("main", plain(TOO_LONG, b"400 Bad Request"), fallback="other")
    stand.deployment("other", streamed(EVENT))
    assert isinstance(stand.ask()[1], ContextLengthExceeded)


def test_the_stable_deployment_takes_over_from_a_canary_that_is_out(stand: Stand) -> None:
    stand.deployment("main", streamed(EVENT))
    stand.deployment("canary", None)
    call, event = stand.ask("canary", alias=Alias("general", "main", 0, canary="canary", canary_percent=100))
    assert isinstance(event, bytes)
    assert call.deployment == "main"


@pytest.mark.parametrize("receive", [first_event, whole_answer])
def test_a_client_that_leaves_ends_the_try_and_nobody_else_is_asked(
    stand: Stand, receive: Callable[[Attempt, Answers], bytes]
) -> None:
    stand.deployment("main", silent, silent)
    call = Call(client_request_id=None, max_s=PATIENCE_S, record=lambda *_: None)
    threading.Timer(0.1, call.abandon).start()
    _call, error = stand.ask(call=call, receive=receive)
    assert isinstance(error, ClientLeft)
    assert sum(stand.accepted()) == 1


def test_a_call_that_we_break_off_gets_a_status(stand: Stand) -> None:
    stand.deployment("main", silent, silent)
    call = Call(client_request_id=None, max_s=PATIENCE_S, record=lambda *_: None)
    threading.Timer(0.1, call.break_off).start()
    _call, error = stand.ask(call=call)
    assert isinstance(error, Overloaded)
    assert sum(stand.accepted()) == 1


@pytest.fixture
def hangs(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[[], None]]:
    """Lets the first backend of a deployment be tried first, and be found to hang; returns what looks for such."""

    def let(deployment: Deployment) -> Callable[[], None]:
        backends = [member.backend for member in deployment.members]
        monkeypatch.setattr(opening, "ranked", lambda *_: iter(backends))
        monkeypatch.setattr(type(board), "hangs", lambda _self, backend: backend.name == backends[0].name)

        def look() -> None:
            until(lambda: bool(attempt_module.waiting))
            leave_where_it_hangs()

        return look

    return let


def test_who_waits_at_a_backend_that_hangs_is_answered_by_another(
    stand: Stand, hangs: Callable[..., Callable[[], None]]
) -> None:
    look = hangs(stand.deployment("main", silent, streamed(EVENT)))
    looking = threading.Thread(target=lambda: (until(lambda: stand.accepted() == [1, 0]), look()))
    looking.start()
    call, event = stand.ask()
    looking.join()
    assert isinstance(event, bytes)
    assert (call.attempts, stand.accepted()) == (2, [1, 1])


def test_who_cannot_be_answered_elsewhere_waits_on(stand: Stand, hangs: Callable[..., Callable[[], None]]) -> None:
    may_go_on = threading.Event()

    def late(exchange: Exchange) -> None:
        exchange.request()
        assert may_go_on.wait(PATIENCE_S)
        exchange.send(STREAM_HEAD + chunk(b"data: " + EVENT + b"\n\n") + LAST_CHUNK)
        exchange.wait_for_close()

    look = hangs(stand.deployment("main", late))
    looking = threading.Thread(target=lambda: (look(), may_go_on.set()))
    looking.start()
    call, event = stand.ask()
    looking.join()
    assert isinstance(event, bytes)
    assert call.attempts == 1


def test_after_an_answer_that_fails_later_the_next_one_may_follow(stand: Stand) -> None:
    stand.deployment("main", *[streamed(EVENT)] * 4)
    seen: list[str] = []

    def receive(attempt: Attempt, answers: Answers) -> bytes:
        """As a relay that has sent nothing but comments."""
        while True:
            seen.append(attempt.backend.name)
            attempt = answers.after(UpstreamStalled())

    call, error = stand.ask(receive=receive)
    assert isinstance(error, UpstreamTimeout)
    assert error.recorded_code == "upstream_stalled"
    assert call.attempts == len(set(seen)) == MAX_TRIES
