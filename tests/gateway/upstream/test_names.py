"""A resolver that is slow or out stops no call to a backend that was found before; a name that moves is followed."""

import socket
import threading
from typing import Any

import pytest

from gateway.upstream import names
from gateway.upstream.errors import UpstreamRefused

HOST = "gpu.test"


class Resolver:
    """In place of the system's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.address: str | None = "10.0.0.1"
        self.asked = 0
        self.may_answer = threading.Event()
        self.may_answer.set()
        names._name.cache_clear()
        monkeypatch.setattr(socket, "getaddrinfo", self)
        self._monkeypatch = monkeypatch

    def __call__(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked += 1
        assert self.may_answer.wait(10)
        if self.address is None:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.address, port))]

    def let_it_age(self) -> None:
        self._monkeypatch.setattr(names, "FRESH_S", -1.0)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    return Resolver(monkeypatch)


def found() -> str:
    (_family, address), *_ = names.look_up(HOST, 8000, within_s=5)
    return str(address[0])


def test_an_address_is_not_asked_for(resolver: Resolver) -> None:
    assert names.look_up("127.0.0.1", 8000, within_s=1) == [(socket.AF_INET, ("127.0.0.1", 8000))]
    assert names.look_up("::1", 8000, within_s=1) == [(socket.AF_INET6, ("::1", 8000, 0, 0))]
    assert resolver.asked == 0


def test_a_name_is_asked_for_once_a_second(resolver: Resolver) -> None:
    assert [found() for _ in range(10)] == ["10.0.0.1"] * 10
    assert resolver.asked == 1


def test_a_name_that_moves_is_followed(resolver: Resolver) -> None:
    assert found() == "10.0.0.1"
    resolver.let_it_age()
    resolver.address = "10.0.0.2"
    assert found() == "10.0.0.2"


def test_what_was_found_before_stands_while_the_resolver_is_out(resolver: Resolver) -> None:
    assert found() == "10.0.0.1"
    resolver.let_it_age()
    resolver.address = None
    assert found() == "10.0.0.1"


def test_a_name_that_was_never_found_is_no_connection(resolver: Resolver) -> None:
    resolver.address = None
    with pytest.raises(UpstreamRefused):
        found()
