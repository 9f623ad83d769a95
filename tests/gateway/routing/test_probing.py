"""One round of probes against the simulated vLLM, over real sockets."""

import socket
import threading
import time
from contextlib import closing

import pytest

from gateway.config.documents import Backend
from gateway.routing.gauges import read_gauges
from gateway.routing.probing import probe, probe_twice
from gateway.routing.verdicts import Answer, judge
from gateway.upstream.errors import UpstreamCut, UpstreamGarbage, UpstreamRefused, UpstreamSilence
from tests.scripted import scripted_backend
from tests.simulator import Simulator, simulator


def backend(url: str, credential: str | None = None) -> Backend:
    return Backend("gpu-1", url, credential)


def test_all_three_answers_come_and_no_token_is_spent(vllm: Simulator) -> None:
    findings = probe(backend(vllm.url))
    assert findings.health == Answer(200, b"")
    assert findings.models is not None
    assert findings.metrics is not None
    assert read_gauges(findings.metrics.body) is not None
    verdict = judge(findings, {"tiny"}, previous=None, now_s=0.0)
    assert (verdict.problem, verdict.models, verdict.max_model_len) == (None, ("tiny",), 8192)
    assert vllm.requests() == []


def test_credential_goes_along_and_a_wrong_one_is_found() -> None:
    with simulator("--api-key", "right") as guarded:
        assert judge(probe(backend(guarded.url, "right")), {"tiny"}, previous=None, now_s=0.0).problem is None
        problem = judge(probe(backend(guarded.url, "wrong")), {"tiny"}, previous=None, now_s=0.0).problem
        assert problem is not None
        assert problem.reason == "credential"


def test_credential_that_fits_no_header_is_never_sent(vllm: Simulator) -> None:
    assert isinstance(probe(backend(vllm.url, "a\r\nX-Evil: 1")).health, UpstreamGarbage)


def test_url_with_a_path_keeps_it() -> None:
    with scripted_backend() as scripted:
        scripted.reply = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
        findings = probe(backend(scripted.url + "/llama"))
        assert findings.health == Answer(503, b"")
        assert scripted.asked[0].startswith(b"GET /llama/health HTTP/1.1\r\nHost: 127.0.0.1:")


def test_backend_that_closes_after_each_answer_is_asked_all_the_same() -> None:
    with simulator(framing="close") as closing_one:
        findings = probe(backend(closing_one.url))
        assert None not in (findings.models, findings.metrics)


def test_closed_port_is_refused() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert isinstance(probe(backend(url)).health, UpstreamRefused)


def test_health_that_does_not_answer_is_silence_within_the_time(vllm: Simulator) -> None:
    vllm.knobs(health_delay_ms=60_000)
    begun_s = time.monotonic()
    assert isinstance(probe_twice(backend(vllm.url), max_s=0.2).health, UpstreamSilence)
    assert time.monotonic() - begun_s < 20


def test_late_metrics_cost_no_health(vllm: Simulator) -> None:
    """A round's time may be over after /health: that says nothing against the backend."""
    vllm.knobs(health_delay_ms=250)
    findings = probe(backend(vllm.url), max_s=0.251)
    assert findings.health == Answer(200, b"") or isinstance(findings.health, UpstreamSilence)
    vllm.knobs(health_delay_ms=0)
    assert probe(backend(vllm.url), max_s=5).metrics is not None


@pytest.mark.parametrize(
    ("reply", "error"),
    [(b"", UpstreamCut), (b"SSH-2.0-OpenSSH_9.6\r\n", UpstreamGarbage), (b"HTTP/1.1 200 OK\r\n", UpstreamCut)],
)
def test_what_is_no_answer_is_told_apart(reply: bytes, error: type[Exception]) -> None:
    with scripted_backend() as scripted:
        scripted.reply = reply
        assert isinstance(probe(backend(scripted.url)).health, error)


def test_one_refusal_is_not_believed() -> None:
    """The port opens between the two tries."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        answered = threading.Event()

        def serve() -> None:
            listener.listen()
            client, _ = listener.accept()
            with client:
                client.recv(65536)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                answered.wait(20)

        first = probe(backend(url))
        assert isinstance(first.health, UpstreamRefused)
        threading.Timer(0.03, serve).start()
        try:
            assert probe_twice(backend(url), max_s=1).health == Answer(200, b"")
        finally:
            answered.set()
