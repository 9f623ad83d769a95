"""How a server starts, keeps connections and goes down."""

import os
import re
import socket
import subprocess
import sys
import threading

import pytest

from tests.gateway.simulator.wire import Answer, Client, chat, exchange
from tests.simulator import PATIENCE_S, PROJECT, Simulator, simulator, wait_until

SLOW = "[[sim tokens=2000 tokens_per_s=50]]"
HEALTH = b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n"


def call_in_background(sim: Simulator, content: str, *, stream: bool) -> tuple[threading.Thread, list[Answer]]:
    """Start a call and wait until it runs."""
    answers: list[Answer] = []
    running = sim.metrics()["num_requests_running"]
    thread = threading.Thread(target=lambda: answers.append(chat(sim.address, content, stream=stream)))
    thread.start()
    wait_until(lambda: sim.metrics()["num_requests_running"] == running + 1)
    return thread, answers


def test_sigterm_ends_what_runs_with_abort() -> None:
    with simulator() as sim:
        streamer, streamed = call_in_background(sim, SLOW, stream=True)
        waiter, waited = call_in_background(sim, SLOW, stream=False)
        assert sim.stop() == 0
        streamer.join()
        waiter.join()
    assert streamed[0].end == "done"
    assert streamed[0].events[-2]["choices"][0]["finish_reason"] == "abort"
    assert streamed[0].events[-2]["system_fingerprint"]
    assert streamed[0].events[-1] == "[DONE]"
    assert waited[0].status == 200
    assert waited[0].json["choices"][0]["finish_reason"] == "abort"
    assert waited[0].json["usage"]["completion_tokens"] < 2000


def test_connections_are_refused_and_taken_again() -> None:
    with simulator() as sim:
        thread, answers = call_in_background(sim, "[[sim tokens=40 tokens_per_s=40]]", stream=True)
        sim.refuse()
        with pytest.raises(ConnectionRefusedError):
            Client(sim.address)
        thread.join()
        assert answers[0].events[-1] == "[DONE]", "what ran went on"
        sim.accept()
        assert chat(sim.address).status == 200


def test_sigterm_frees_those_who_wait_or_hang() -> None:
    with simulator(max_num_seqs=1) as sim:
        first, _ = call_in_background(sim, SLOW, stream=True)
        with Client(sim.address) as waiting, Client(sim.address) as hanging:
            waiting.chat(stream=True)
            hanging.chat(messages=[{"role": "user", "content": "[[sim hang]]"}])
            wait_until(lambda: len(sim.requests()) == 3)
            assert sim.stop() == 0
            assert waiting.read().events[-2]["choices"][0]["finish_reason"] == "abort"
            assert hanging.sock.recv(100) == b""
        first.join()


def test_with_a_shutdown_timeout_what_runs_may_finish() -> None:
    with simulator("--shutdown-timeout", "3") as sim:
        thread, answers = call_in_background(sim, "[[sim tokens=30 tokens_per_s=40]]", stream=True)
        sim.process.terminate()
        wait_until(lambda: chat(sim.address).status == 500)
        refused = chat(sim.address)
        assert refused.json["error"]["message"] == "cannot schedule new futures after shutdown"
        assert exchange(sim.address, HEALTH).status == 200
        thread.join()
        assert sim.process.wait(PATIENCE_S) == 0
    assert answers[0].events[-2]["choices"][0]["finish_reason"] == "stop"


def test_killed_it_says_no_goodbye() -> None:
    with simulator() as sim:
        thread, answers = call_in_background(sim, SLOW, stream=True)
        sim.kill()
        thread.join()
    assert answers[0].end in {"fin", "reset"}
    assert "[DONE]" not in answers[0].events


def test_an_idle_connection_is_closed() -> None:
    with simulator("--keep-alive-s", "0.2") as sim, Client(sim.address) as client:
        client.chat(max_tokens=1)
        assert client.read().end == "done"
        assert client.sock.recv(100) == b""


def test_a_connection_that_never_asked_is_left_open() -> None:
    with simulator("--keep-alive-s", "0.1") as sim, Client(sim.address) as client:
        client.sock.settimeout(0.6)
        with pytest.raises(TimeoutError):
            client.sock.recv(100)


def test_many_requests_share_a_connection(sim: Simulator) -> None:
    with Client(sim.address) as client:
        for _ in range(3):
            client.chat(stream=True, max_tokens=2)
            assert client.read().events[-1] == "[DONE]"
            client.chat(max_tokens=2)
            assert client.read().json["usage"]["completion_tokens"] == 2


def test_a_request_may_come_byte_by_byte(sim: Simulator) -> None:
    request = b"POST /tokenize HTTP/1.1\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    request += b'8;x=y\r\n{"prompt\r\n9\r\n": "abcd"\r\n1\r\n}\r\n0\r\ntrailer: 1\r\n\r\n'
    with Client(sim.address) as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request:
            client.send(bytes([byte]))
        assert client.read().json["count"] == 1


def test_several_models_are_served() -> None:
    with simulator("--model", "a", "--model", "org/b") as sim:
        models = exchange(sim.address, b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n").json
        assert [m["id"] for m in models["data"]] == ["a", "org/b"]
        assert chat(sim.address, model="org/b", max_tokens=1).json["model"] == "org/b"
        assert chat(sim.address, max_tokens=1).json["model"] == "a"
        assert chat(sim.address, model="c").json["error"]["message"] == "The model `c` does not exist. Valid aliases: a, org/b."


@pytest.mark.parametrize("arguments", [["--tokens", "many"], ["--no-such-option"]])
def test_a_wrong_option_is_told_at_once(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "gateway.simulator", *arguments]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode != 0
    assert "Traceback" not in ended.stderr
    assert arguments[0].lstrip("-") in ended.stderr


def test_a_taken_port_is_told_in_one_line(sim: Simulator) -> None:
    command = [sys.executable, "-m", "gateway.simulator", "--port", str(sim.address[1])]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1


def test_manage_py_becomes_the_simulator(tmp_path: os.PathLike[str]) -> None:
    command = [sys.executable, PROJECT / "manage.py", "simulate", "--port", "0", "--model", "from-manage"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert re.search(r"http://\S+ serves from-manage", process.stdout.readline())
    finally:
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
        process.stdout.close()
