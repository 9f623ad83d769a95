"""Which failures of a backend the next one is asked after, and which are the client's own."""

from collections.abc import Callable
from contextlib import ExitStack

import pytest

from gateway.call import Call
from gateway.config.documents import Deployment, PoolMember
from gateway.exceptions import InvalidRequest
from gateway.upstream.client import UpstreamResponse
from gateway.upstream.opening import first_answer
from gateway.upstream.sse import EventRewriter
from tests.gateway.upstream.scripted import LAST_CHUNK, PATIENCE_S, STREAM_HEAD, Exchange, ScriptedBackend, chunk, sized

BLAMES_REQUEST = (
    b'{"error": {"message": "token_id(s) [402] in logit_bias contain out-of-vocab token ids.", "type": "BadRequestError",'
    b' "param": "logit_bias", "code": 400}}'
)
BLAMES_ITSELF = b'{"error": {"message": "EngineCore encountered an issue.", "code": 500}}'


def streamed(data: bytes) -> Callable[[Exchange], None]:
    def script(exchange: Exchange) -> None:
        exchange.request()
        exchange.send(STREAM_HEAD + chunk(b"data: " + data + b"\n\n") + LAST_CHUNK)
        exchange.wait_for_close()

    return script


def plain(data: bytes, status: bytes) -> Callable[[Exchange], None]:
    def script(exchange: Exchange) -> None:
        exchange.request()
        exchange.send(sized(data, status=status))

    return script


def first_event(response: UpstreamResponse) -> bytes:
    """As a relay would: the answer stands once its first event is there."""
    rewriter = EventRewriter(
        completion_id="chatcmpl-1", alias="general", created_s=None, shows_usage=False, shows_running_usage=False
    )
    try:
        return rewriter.rewrite(response.read_some(PATIENCE_S).rstrip())[1]
    finally:
        response.close(reuse=False)


def ask(*scripts: Callable[[Exchange], None]) -> tuple[Call, list[int], bytes | InvalidRequest]:
    """Ask a deployment of these backends, in their order: the call, the connections each took, and what came of it."""
    call = Call(client_request_id=None, max_s=PATIENCE_S, record=lambda *_: None)
    with ExitStack() as stack:
        backends = [stack.enter_context(ScriptedBackend(script)) for script in scripts]
        deployment = Deployment(
            "tiny", "tiny", tuple(PoolMember(backend.config, 100 - index) for index, backend in enumerate(backends))
        )
        answer: bytes | InvalidRequest
        try:
            answer = first_answer(call, deployment, b"{}", receive=first_event)
        except InvalidRequest as error:
            answer = error
        call.end(status=0, outcome="refused")
        return call, [backend.accepted for backend in backends], answer


@pytest.mark.parametrize(
    "script", [streamed(BLAMES_REQUEST), plain(BLAMES_REQUEST, b"400 Bad Request")], ids=["stream", "status"]
)
def test_a_request_that_one_backend_blames_is_refused_in_our_words_without_asking_another(
    script: Callable[[Exchange], None],
) -> None:
    call, accepted, error = ask(script, script)
    assert isinstance(error, InvalidRequest)
    assert error.param == "logit_bias"
    assert error.details == [{"param": "logit_bias", "message": "Holds token ids outside of this model's vocabulary."}]
    assert (call.attempts, accepted) == (1, [1, 0])


@pytest.mark.parametrize("script", [streamed(BLAMES_ITSELF), plain(BLAMES_ITSELF, b"500 Oops")], ids=["stream", "status"])
def test_a_backend_that_blames_itself_is_not_the_last_to_be_asked(script: Callable[[Exchange], None]) -> None:
    call, accepted, event = ask(script, streamed(b'{"id":"x","choices":[{"index":0}]}'))
    assert isinstance(event, bytes)
    assert b"general" in event
    assert (call.attempts, accepted) == (2, [1, 1])
