"""Where a webhook may go: nowhere inside the house, not by names that lead there, and not for long."""

import socket
import threading
import time
from ipaddress import ip_address
from typing import Any

import pytest

from portal.alerts import outgoing
from portal.alerts.outgoing import AddressRefused, Reach
from tests.portal.alerts.conftest import LOOPBACK, Receiver

TENANT = Reach()
OPERATOR = Reach(plain_http=True, is_house=True)
OPEN = Reach(plain_http=True, networks=tuple(LOOPBACK))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.5", "172.16.1.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",  # noqa: S104 - not bound
        "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
        "64:ff9b::a00:5", "2002:7f00:1::", "192.0.2.1",
    ],
)  # fmt: skip
def test_addresses_of_the_house_are_refused_to_tenants(address: str) -> None:
    assert not TENANT.allows(ip_address(address))


@pytest.mark.parametrize("address", ["203.0.114.7", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert TENANT.allows(ip_address(address))


def test_operators_reach_the_house_but_not_where_clouds_keep_credentials() -> None:
    assert OPERATOR.allows(ip_address("10.0.0.5"))
    assert OPERATOR.allows(ip_address("127.0.0.1"))
    assert not OPERATOR.allows(ip_address("169.254.169.254"))


def test_a_network_that_is_named_is_allowed() -> None:
    reach = Reach(networks=("10.1.0.0/16", "fd00::/8"))
    assert reach.allows(ip_address("10.1.2.3"))
    assert reach.allows(ip_address("fd00::5"))
    assert not reach.allows(ip_address("10.2.0.1"))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/", "https://", "https://user:pw@example.com/", "https://example.com/#x", "http://example.com/",
        "https://example.com:0/", "https://exam ple.com/", "https://例え.jp/", "javascript:alert(1)", "https://[::1",
        "https://localhost/", "https://localhost./", "https://a.example/\n",
    ],
)  # fmt: skip
def test_addresses_that_will_not_do_are_told_at_once(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        outgoing.check(url, TENANT)


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "https://[::1]:8443/x", "https://169.254.169.254/latest/"])
def test_addresses_of_the_house_are_told_at_once(url: str) -> None:
    with pytest.raises(AddressRefused):
        outgoing.check(url, TENANT)


def test_a_good_address_is_taken() -> None:
    outgoing.check("https://hooks.example.com:8443/a/b?c=d", TENANT)
    outgoing.check("http://10.0.0.5:9093/api", OPERATOR)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]"])
def test_no_name_of_this_machine_gets_a_byte(receiver: Receiver, host: str) -> None:
    url = receiver.url.replace("127.0.0.1", host)
    answer = outgoing.post(url, b"{}", {}, Reach(plain_http=True))
    assert (answer.status, answer.error) == (None, "refused")
    assert receiver.got == []


def test_a_name_that_leads_to_one_bad_address_among_good_ones_is_refused(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(host: str, port: int, **_: Any) -> list[Any]:
        places = ("203.0.114.7", "127.0.0.1")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, port)) for place in places]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    answer = outgoing.post(receiver.url.replace("127.0.0.1", "rebind.example"), b"{}", {}, Reach(plain_http=True))
    assert answer.error == "refused"
    assert receiver.got == []


def test_plain_http_is_refused_where_it_is_not_allowed(receiver: Receiver) -> None:
    assert outgoing.post(receiver.url, b"{}", {}, Reach(networks=tuple(LOOPBACK))).error == "refused"
    assert receiver.got == []


def test_proxies_of_the_environment_are_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert outgoing.post(receiver.url, b"{}", {"X-Name": "value"}, OPEN).status == 204
    assert receiver.got[0].headers["X-Name"] == "value"


def test_redirects_are_not_followed(receiver: Receiver) -> None:
    receiver.status, receiver.more = 302, {"location": receiver.url}
    answer = outgoing.post(receiver.url, b"{}", {}, OPEN)
    assert (answer.status, answer.error) == (302, "redirect")
    assert len(receiver.got) == 1


def test_of_an_answer_only_the_beginning_is_kept(receiver: Receiver) -> None:
    receiver.status, receiver.answer = 500, b"<b>\x00bad\xff</b>" + b"x" * 5000
    answer = outgoing.post(receiver.url, b"{}", {}, OPEN)
    assert (answer.status, answer.error) == (500, "status")
    assert answer.answer.startswith("<b> bad�</b>xxx")
    assert len(answer.answer) <= outgoing.ANSWER_BYTES


def test_an_answer_that_drips_is_cut_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "DEADLINE_S", 1.0)
    server = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        connection, _ = server.accept()
        with connection:
            try:
                for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"y" * 10_000:
                    connection.sendall(bytes([byte]))
                    time.sleep(0.1)
            except OSError:
                pass

    threading.Thread(target=drip, daemon=True).start()
    begun_s = time.monotonic()
    answer = outgoing.post(f"http://127.0.0.1:{server.getsockname()[1]}/", b"{}", {}, OPEN)
    assert (answer.status, answer.error) == (None, "timeout")
    assert time.monotonic() - begun_s < 30
    server.close()


def test_nobody_there_and_no_such_host_are_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert outgoing.post(f"http://127.0.0.1:{port}/", b"{}", {}, OPEN).error == "no_connection"
    assert outgoing.post("http://no-such-host.invalid/", b"{}", {}, OPEN).error == "no_host"


def test_what_speaks_no_tls_is_told(receiver: Receiver) -> None:
    assert outgoing.post(receiver.url.replace("http:", "https:"), b"{}", {}, OPEN).error == "tls"
