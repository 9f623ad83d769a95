"""Calls to backends on real sockets: reuse, the one retry, cancellation, counts."""

import datetime
import ipaddress
import ssl
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.config.documents import Backend
from gateway.upstream import client as client_module
from gateway.upstream.client import Cancellation, UpstreamClient, UpstreamResponse
from gateway.upstream.errors import (
    UpstreamAborted,
    UpstreamCut,
    UpstreamGarbage,
    UpstreamRefused,
    UpstreamSilence,
)
from tests.gateway.upstream.scripted import (
    LAST_CHUNK,
    PATIENCE_S,
    STREAM_HEAD,
    Exchange,
    Script,
    ScriptedBackend,
    at_the_same_time,
    chunk,
    nobody_listens,
    sized,
)


def serve(*answers: bytes) -> Script:
    """Answers a request each, then closes when the client does."""

    def script(exchange: Exchange) -> None:
        for answer in answers:
            assert exchange.request()
            exchange.send(answer)
        exchange.wait_for_close()

    return script


def serve_and_close(*answers: bytes) -> Script:
    def script(exchange: Exchange) -> None:
        for answer in answers:
            assert exchange.request()
            exchange.send(answer)

    return script


def deadline() -> float:
    return time.monotonic() + PATIENCE_S


def open_call(
    client: UpstreamClient,
    backend: Backend,
    *,
    headers: dict[str, str] | None = None,
    cancellation: Cancellation | None = None,
    within_s: float = PATIENCE_S,
) -> UpstreamResponse:
    return client.open_call(
        backend,
        "/v1/chat/completions",
        b'{"model": "tiny"}',
        headers=headers or {},
        connect_s=PATIENCE_S,
        first_byte_deadline=time.monotonic() + within_s,
        cancellation=cancellation,
    )


def call(client: UpstreamClient, backend: Backend) -> bytes:
    response = open_call(client, backend)
    body = response.read_all(1000, deadline())
    response.close(reuse=True)
    return body


def test_a_request_carries_path_body_credential_and_headers() -> None:
    seen: list[bytes] = []

    def script(exchange: Exchange) -> None:
        seen.append(exchange.request())
        exchange.send(sized(b"{}"))

    with ScriptedBackend(script) as backend:
        config = Backend("gpu-1", f"{backend.config.url}/prefix/", "sk-backend")
        response = open_call(UpstreamClient(), config, headers={"X-Request-Id": "abc"})
        assert response.status == 200
        assert response.headers["content-length"] == "2"
        response.close(reuse=False)
    head, _, body = seen[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /prefix/v1/chat/completions HTTP/1.1"
    assert set(lines[1:]) == {
        b"Host: " + backend.config.url.removeprefix("http://").encode(),
        b"Content-Type: application/json",
        b"Content-Length: 17",
        b"Accept-Encoding: identity",
        b"X-Request-Id: abc",
        b"Authorization: Bearer sk-backend",
    }
    assert body == b'{"model": "tiny"}'


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\rb", "a\0b", "日本"])
def test_a_header_with_a_line_end_is_refused_before_anything_is_sent(value: str) -> None:
    client = UpstreamClient()
    with ScriptedBackend() as backend, pytest.raises(ValueError, match=r"header|encode"):
        open_call(client, backend.config, headers={"X-Request-Id": value})
    assert client.in_flight(backend.config) == 0


@pytest.mark.parametrize("url", ["ftp://host", "host:8000", "http://"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        open_call(UpstreamClient(), Backend("x", url))


def test_a_connection_is_used_again() -> None:
    client = UpstreamClient()
    with ScriptedBackend(serve(sized(b"1"), STREAM_HEAD + chunk(b"2") + LAST_CHUNK, sized(b"3"))) as backend:
        assert [call(client, backend.config) for _ in range(3)] == [b"1", b"2", b"3"]
        assert backend.accepted == 1
        client.drop_idle(older_than_s=0)
        backend.wait_for_end()


def test_the_last_used_connection_is_used_first() -> None:
    client = UpstreamClient()
    with ScriptedBackend(serve(sized(b"first")), serve(sized(b"second"), sized(b"again"))) as backend:
        one, two = open_call(client, backend.config), open_call(client, backend.config)
        for response in (one, two):
            response.read_all(100, deadline())
            response.close(reuse=True)
        assert call(client, backend.config) == b"again"
        client.drop_idle(older_than_s=0)


@pytest.mark.parametrize("answer", [sized(b"1", headers=b"connection: close\r\n"), sized(b"1") + b"surplus"])
def test_a_connection_that_closes_or_is_out_of_step_is_not_used_again(answer: bytes) -> None:
    client = UpstreamClient()
    with ScriptedBackend(serve(answer), serve(sized(b"2"))) as backend:
        assert [call(client, backend.config) for _ in range(2)] == [b"1", b"2"]
        client.drop_idle(older_than_s=0)
        backend.wait_for_end()


def test_an_answer_not_read_to_its_end_closes_its_connection() -> None:
    client = UpstreamClient()
    with ScriptedBackend(serve(STREAM_HEAD + chunk(b"data: 1\n\n"))) as backend:
        response = open_call(client, backend.config)
        response.read_some(time.monotonic() + PATIENCE_S)
        response.close(reuse=True)
        response.close(reuse=True)
        backend.wait_for_end()
        assert client.in_flight(backend.config) == 0


def test_the_last_chunk_may_follow_a_moment_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "DRAIN_S", PATIENCE_S)
    client = UpstreamClient()
    closing = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.request()
        exchange.send(STREAM_HEAD + chunk(b"data: [DONE]\n\n"))
        closing.wait(PATIENCE_S)
        exchange.send(LAST_CHUNK)
        exchange.request()
        exchange.send(sized(b"again"))

    with ScriptedBackend(script) as backend:
        response = open_call(client, backend.config)
        assert response.read_some(time.monotonic() + PATIENCE_S) == b"data: [DONE]\n\n"
        closing.set()
        response.close(reuse=True)
        assert call(client, backend.config) == b"again"


def test_an_idle_connection_that_was_closed_is_passed_over() -> None:
    client = UpstreamClient()
    with ScriptedBackend(serve_and_close(sized(b"1")), serve(sized(b"2"))) as backend:
        assert call(client, backend.config) == b"1"
        backend.wait_for_end()
        assert call(client, backend.config) == b"2"
        client.drop_idle(older_than_s=0)


def test_a_connection_idle_for_too_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    client = UpstreamClient()
    now = time.monotonic()
    with ScriptedBackend(serve(sized(b"1")), serve(sized(b"2"))) as backend:
        assert call(client, backend.config) == b"1"
        monkeypatch.setattr(client_module, "monotonic", lambda: now + 10)
        assert call(client, backend.config) == b"2"
        monkeypatch.setattr(client_module, "monotonic", lambda: now + 20)
        client.drop_idle()
        backend.wait_for_end()


def dies_on_the_second_request(exchange: Exchange) -> None:
    exchange.request()
    exchange.send(sized(b"1"))
    exchange.request()


def test_a_reused_connection_that_dies_unanswered_is_retried_once_on_a_fresh_one() -> None:
    client = UpstreamClient()
    with ScriptedBackend(dies_on_the_second_request, serve_and_close(sized(b"2"))) as backend:
        assert [call(client, backend.config) for _ in range(2)] == [b"1", b"2"]
        assert backend.accepted == 2


def test_the_retry_is_not_retried() -> None:
    client = UpstreamClient()
    with ScriptedBackend(dies_on_the_second_request, lambda exchange: None, serve(sized(b"never"))) as backend:
        assert call(client, backend.config) == b"1"
        with pytest.raises(UpstreamCut):
            call(client, backend.config)
        assert backend.accepted == 2
        assert client.in_flight(backend.config) == 0


def test_a_fresh_connection_is_not_retried() -> None:
    with ScriptedBackend(lambda exchange: None, serve(sized(b"never"))) as backend:
        with pytest.raises(UpstreamCut):
            call(UpstreamClient(), backend.config)
        assert backend.accepted == 1


def test_a_reused_connection_that_dies_after_a_byte_of_its_answer_is_not_retried() -> None:
    client = UpstreamClient()

    def script(exchange: Exchange) -> None:
        exchange.request()
        exchange.send(sized(b"1"))
        exchange.request()
        exchange.send(b"HTTP/1.1 200")

    with ScriptedBackend(script, serve(sized(b"never"))) as backend:
        assert call(client, backend.config) == b"1"
        with pytest.raises(UpstreamCut):
            call(client, backend.config)
        assert backend.accepted == 1


def test_a_backend_that_is_not_there_refuses() -> None:
    client = UpstreamClient()
    with nobody_listens() as port:
        config = Backend("gpu-1", f"http://127.0.0.1:{port}")
        with pytest.raises(UpstreamRefused):
            call(client, config)
    assert client.in_flight(config) == 0


def test_a_backend_that_does_not_answer_is_silent_and_is_left() -> None:
    client = UpstreamClient()
    with ScriptedBackend(serve(b"")) as backend:
        with pytest.raises(UpstreamSilence):
            open_call(client, backend.config, within_s=0.1)
        backend.wait_for_end()
    assert client.in_flight(backend.config) == 0


def test_a_redirect_is_an_answer_like_any_other() -> None:
    with ScriptedBackend(
        serve(sized(b"", status=b"307 Temporary Redirect", headers=b"location: http://127.0.0.1:1/\r\n"))
    ) as backend:
        response = open_call(UpstreamClient(), backend.config)
        assert response.status == 307
        response.close(reuse=False)


def test_proxy_variables_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with ScriptedBackend(serve_and_close(sized(b"1"))) as backend:
        assert call(UpstreamClient(), backend.config) == b"1"


def test_an_answer_larger_than_allowed_is_garbage() -> None:
    with ScriptedBackend(serve(sized(b"x" * 1001))) as backend:
        response = open_call(UpstreamClient(), backend.config)
        with pytest.raises(UpstreamGarbage):
            response.read_all(1000, deadline())
        response.close(reuse=False)


def test_an_answer_that_drips_meets_its_deadline() -> None:
    stop = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.request()
        exchange.send(STREAM_HEAD)
        while not stop.wait(0.005):
            exchange.send(chunk(b"x"))

    with ScriptedBackend(script) as backend:
        response = open_call(UpstreamClient(), backend.config)
        with pytest.raises(UpstreamSilence):
            response.read_all(100_000, time.monotonic() + 0.1)
        stop.set()
        backend.wait_for_end()
        response.close(reuse=False)


def test_calls_in_flight_are_counted_by_backend() -> None:
    client = UpstreamClient()
    with ScriptedBackend(serve(sized(b"1")), serve(sized(b"2"))) as backend, ScriptedBackend() as other:
        one, two = open_call(client, backend.config), open_call(client, backend.config)
        assert (client.in_flight(backend.config), client.in_flight(other.config)) == (2, 0)
        one.close(reuse=False)
        assert client.in_flight(backend.config) == 1
        two.close(reuse=True)
        assert client.in_flight(backend.config) == 0
        client.drop_idle(older_than_s=0)


def test_cancelling_ends_a_call_that_waits_for_its_head() -> None:
    client, cancellation, is_asked = UpstreamClient(), Cancellation(), threading.Event()

    def silent(exchange: Exchange) -> None:
        assert exchange.request()
        is_asked.set()
        exchange.wait_for_close()

    with ScriptedBackend(silent) as backend:

        def cancel() -> None:
            assert is_asked.wait(PATIENCE_S)
            cancellation.cancel()

        with at_the_same_time(cancel), pytest.raises(UpstreamAborted):
            open_call(client, backend.config, cancellation=cancellation)
        backend.wait_for_end()
    assert client.in_flight(backend.config) == 0


def test_a_cancelled_call_starts_nothing() -> None:
    client, cancellation = UpstreamClient(), Cancellation()
    cancellation.cancel()
    with ScriptedBackend(serve_and_close()) as backend, pytest.raises(UpstreamAborted):
        open_call(client, backend.config, cancellation=cancellation)


def test_a_late_cancel_does_not_end_the_next_call_on_the_same_connection() -> None:
    client, cancellation = UpstreamClient(), Cancellation()
    with ScriptedBackend(serve(sized(b"1"), sized(b"2"))) as backend:
        response = open_call(client, backend.config, cancellation=cancellation)
        response.read_all(100, deadline())
        response.close(reuse=True)
        following = open_call(client, backend.config)
        cancellation.cancel()
        response.abort()
        assert following.read_all(100, deadline()) == b"2"
        following.close(reuse=False)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 with its key, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "backend")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "backend.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


def over_tls(certificate: Path, script: Script) -> Script:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    def wrapped(exchange: Exchange) -> None:
        exchange.wrap(context)
        script(exchange)

    return wrapped


def https(backend: ScriptedBackend) -> Backend:
    return Backend("gpu-1", backend.config.url.replace("http:", "https:"))


def test_a_trusted_backend_is_called_over_tls(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    client, cancellation = UpstreamClient(), Cancellation()
    with ScriptedBackend(
        over_tls(certificate, serve(sized(b"1"), STREAM_HEAD + chunk(b"2") + LAST_CHUNK, STREAM_HEAD))
    ) as backend:
        assert [call(client, https(backend)) for _ in range(2)] == [b"1", b"2"]
        response = open_call(client, https(backend), cancellation=cancellation)
        threading.Timer(0.05, cancellation.cancel).start()
        with pytest.raises(UpstreamAborted):
            response.read_some(time.monotonic() + 60)
        response.close(reuse=False)
        assert backend.accepted == 1
        backend.wait_for_end()


def test_what_was_on_its_way_at_an_abort_comes_over_tls_too(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    def script(exchange: Exchange) -> None:
        assert exchange.request()
        exchange.send(STREAM_HEAD + chunk(b"read"))
        exchange.send(chunk(b"unread"))  # a record of its own: the first read leaves it
        exchange.wait_for_close()

    with ScriptedBackend(over_tls(certificate, script)) as backend:
        response = open_call(UpstreamClient(), https(backend))
        assert response.read_some(time.monotonic() + PATIENCE_S) == b"read"
        assert b"".join(response.rest()) == b"unread"
        response.close(reuse=False)


def test_a_backend_nobody_vouches_for_is_not_called(certificate: Path) -> None:
    def script(exchange: Exchange) -> None:
        with pytest.raises(ssl.SSLError):
            over_tls(certificate, serve())(exchange)

    with ScriptedBackend(script) as backend, pytest.raises(UpstreamRefused):
        call(UpstreamClient(), https(backend))
