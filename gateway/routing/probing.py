"""Asks one backend how it is: /health, /v1/models, /metrics, over one fresh connection. No token is ever spent on it."""

import re
import ssl
import time
from functools import cache
from typing import Final
from urllib.parse import urlsplit

from gateway.config.documents import Backend
from gateway.routing.verdicts import Answer, Findings
from gateway.upstream.connection import Connection
from gateway.upstream.errors import UpstreamError, UpstreamGarbage

ROUND_MAX_S: Final = 2.0
# Before a backend is believed to be down it is asked again: a lone refusal is a full backlog, or a moment of its restart.
PAUSE_S: Final = 0.1
ANSWER_MAX_BYTES: Final = 4 * 1024 * 1024


def probe_twice(backend: Backend, *, max_s: float = ROUND_MAX_S) -> Findings:
    """As probe; where the backend seems to be down, what a second round says."""
    findings = probe(backend, max_s=max_s)
    if isinstance(findings.health, Answer) and findings.health.status == 200:
        return findings
    time.sleep(PAUSE_S)
    return probe(backend, max_s=max_s)


def probe(backend: Backend, *, max_s: float = ROUND_MAX_S) -> Findings:
    """One round, within max_s in all. What fails after /health is left out: that costs knowledge, not the backend."""
    round_of = _Round(backend, time.monotonic() + max_s)
    try:
        health = round_of.ask("/health")
        if health.status != 200:
            return Findings(health)
        models = metrics = None
        try:
            models = round_of.ask("/v1/models")
            metrics = round_of.ask("/metrics")
        except UpstreamError:
            pass
        return Findings(health, models, metrics)
    except UpstreamError as error:
        return Findings(error)
    finally:
        round_of.close()


def metrics_page(backend: Backend, *, max_s: float = ROUND_MAX_S) -> bytes | None:
    """Its /metrics alone; None where it gives none in time."""
    round_of = _Round(backend, time.monotonic() + max_s)
    try:
        answer = round_of.ask("/metrics")
    except UpstreamError:
        return None
    finally:
        round_of.close()
    return answer.body if answer.status == 200 else None


class _Round:
    """The questions of one round: on one connection, as long as the backend keeps it open."""

    def __init__(self, backend: Backend, deadline: float) -> None:
        self._backend = backend
        self._url = urlsplit(backend.url)
        self._deadline = deadline
        self._connection: Connection | None = None

    def ask(self, path: str) -> Answer:
        """Raises UpstreamError."""
        if self._connection is None or not self._connection.is_reusable:
            self.close()
            self._connection = self._connect()
        self._connection.send(self._request(path), self._deadline)
        status = self._connection.read_head(self._deadline).status
        parts = []
        size_bytes = 0
        while part := self._connection.read_some(self._deadline):
            parts.append(part)
            size_bytes += len(part)
            if size_bytes > ANSWER_MAX_BYTES:
                raise UpstreamGarbage(f"an answer of more than {ANSWER_MAX_BYTES} bytes")
        return Answer(status, b"".join(parts))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _connect(self) -> Connection:
        is_tls = self._url.scheme == "https"
        port = self._url.port or (443 if is_tls else 80)
        connect_s = max(0.01, self._deadline - time.monotonic())
        return Connection.open(str(self._url.hostname), port, tls=_tls() if is_tls else None, connect_s=connect_s)

    def _request(self, path: str) -> bytes:
        lines = [
            f"GET {self._url.path.rstrip('/')}{path} HTTP/1.1",
            f"Host: {self._url.netloc}",
            "Accept-Encoding: identity",
        ]
        credential = self._backend.credential
        if credential is not None:
            if re.fullmatch(r"[\x20-\x7e]*", credential) is None:  # a line end in it would begin a header of its own
                raise UpstreamGarbage("a credential that fits no header")
            lines.append(f"Authorization: Bearer {credential}")
        return "\r\n".join([*lines, "", ""]).encode()


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
