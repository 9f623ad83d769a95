"""Ports and addresses of one machine's processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from portal.processes import NoFreePort, Place, free_port, gateway, portal
from tests.processes import PROJECT


def test_a_taken_port_gives_way_to_the_next_that_is_free() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = free_port("127.0.0.1", port)
    assert port < found < port + 100


def test_two_roles_never_get_the_same_port() -> None:
    first = free_port("127.0.0.1", 0)
    assert free_port("127.0.0.1", first, taken=(first,)) != first


def test_no_free_port_is_said_with_its_number() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 65535))
        taken.listen()
        with pytest.raises(NoFreePort, match="65535"):
            free_port("127.0.0.1", 65535)


def test_a_host_of_another_machine_is_an_error() -> None:
    with pytest.raises(OSError, match="assign"):
        free_port("203.0.113.213", 0)


@pytest.mark.parametrize(
    ("host", "bind", "api"),
    [
        ("127.0.0.1", "127.0.0.1:8001", "http://127.0.0.1:8001"),
        ("0.0.0.0", "0.0.0.0:8001", "http://127.0.0.1:8001"),  # noqa: S104 - compared, not bound
        ("::1", "[::1]:8001", "http://[::1]:8001"),
        ("::", "[::]:8001", "http://[::1]:8001"),
    ],
)
def test_an_address_is_one_that_can_be_called(host: str, bind: str, api: str) -> None:
    place = Place(Path(), host, 8001, 8000, 8002)
    assert place.bind(place.api_port) == bind
    assert place.api == api


def test_the_gateway_is_told_where_the_portal_is_and_the_portal_that_it_is_called_so() -> None:
    place = Place(Path(), "127.0.0.1", 8001, 18000, 8002)
    for role in (gateway(place, workers=1), portal(place)):
        assert role.environment["SEKISHO_PORTAL_URL"] == "http://127.0.0.1:18000"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://portal.internal:8000/", "portal.internal"),
        ("https://portal.internal", "portal.internal"),
        ("http://[::1]:8000", "[::1]"),
    ],
)
def test_the_portal_answers_to_the_name_by_which_the_gateway_calls_it(url: str, host: str) -> None:
    program = "from portal.settings import web; print(web.PORTAL_URL, *web.ALLOWED_HOSTS)"
    environment = os.environ | {"SEKISHO_PORTAL_URL": url, "SEKISHO_ALLOWED_HOSTS": "sekisho.example.com"}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == [url.rstrip("/"), "sekisho.example.com", host]
