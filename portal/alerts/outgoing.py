"""One POST to an address that people chose: where it may go, and never longer or more than it needs.

Every address a name leads to is looked at in the moment of connecting, so that no name can lead elsewhere afterwards. No
proxy, no redirects, one deadline for all of it, and of the answer its first characters.
"""

import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from threading import Timer
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from django.conf import settings
from django.utils.translation import gettext as _
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

DEADLINE_S: Final = 8.0
CONNECT_S: Final = 3.0
ANSWER_BYTES: Final = 200
Address = IPv4Address | IPv6Address
_NAT64: Final = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Reach:
    """Where a POST may go: public addresses by https, and what is said here. is_house: also private ones, loopback."""

    plain_http: bool = False
    networks: tuple[str, ...] = ()
    is_house: bool = False

    def allows(self, address: Address) -> bool:
        real = _embedded(address)
        if any(real in ip_network(network) for network in self.networks if ip_network(network).version == real.version):
            return True
        if real.is_multicast or real.is_unspecified or real.is_link_local:
            return False  # a link-local address is where clouds tell machines their credentials
        return real.is_global or (self.is_house and (real.is_private or real.is_loopback))


@dataclass(frozen=True, slots=True)
class Answer:
    """status None: none came; error: a word of ERRORS, "" for an answer of 2xx."""

    status: int | None
    took_ms: int
    error: str = ""
    answer: str = ""


class AddressRefused(OSError):
    """The name leads to an address that is not allowed."""


def reach_of_tenants() -> Reach:
    return Reach(settings.WEBHOOK_HTTP, tuple(settings.WEBHOOK_NETWORKS))


def reach_of_operators() -> Reach:
    """Who runs the machines may name any of them."""
    return Reach(plain_http=True, networks=tuple(settings.WEBHOOK_NETWORKS), is_house=True)


def check(url: str, reach: Reach) -> None:
    """As far as it can be told without asking anybody. Raises ValueError, in words for people."""
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole or not url.isascii() or not url.isprintable() or any(mark in url for mark in " \"'<>\\"):
        raise ValueError(_("This is no address of a web server; an example is https://hooks.example.com/sekisho."))
    if "@" in parts.netloc:
        raise ValueError(_("Leave user and password out of the address: the signature shows who calls."))
    if parts.fragment:
        raise ValueError(_("Leave out what follows #: it is never sent."))
    if parts.scheme == "http" and not reach.plain_http:
        raise ValueError(_("Use https: alerts tell of your keys and limits."))
    with suppress(ValueError):
        if not reach.allows(ip_address(parts.hostname or "")):
            raise AddressRefused
    if (parts.hostname or "").rstrip(".") == "localhost" and not reach.allows(IPv4Address("127.0.0.1")):
        raise ValueError(told_refused())


def told_refused() -> str:
    return _("This address is inside the house: webhooks go to public addresses. Your operator can allow a network.")


def post(url: str, body: bytes, headers: dict[str, str], reach: Reach) -> Answer:
    """Nothing raises. No word of the body or the headers is logged."""
    begun_s = time.monotonic()
    guard = _Guard(reach)
    try:
        with requests.Session() as session:
            session.trust_env = False  # neither proxies nor credentials of the environment
            session.mount("http://", guard)
            session.mount("https://", guard)
            if urlsplit(url).scheme == "http" and not reach.plain_http:  # as it was saved; the setting may have changed
                return Answer(None, 0, "refused")
            response = session.post(
                url, data=body, headers=headers, timeout=(CONNECT_S, DEADLINE_S), allow_redirects=False, stream=True
            )
            with response:
                head = response.raw.read(ANSWER_BYTES, decode_content=False) or b""
                status = response.status_code
        error = "" if 200 <= status < 300 else "redirect" if 300 <= status < 400 else "status"
        return Answer(status, _since(begun_s), error, _printable(head))
    except (requests.RequestException, HTTPError, OSError, ValueError) as problem:
        return Answer(None, _since(begun_s), "timeout" if guard.is_over else _word(problem))
    finally:
        guard.end()


class _Guard(HTTPAdapter):
    """Connections of one POST, watched from the first byte to the last: read time-outs alone never end a slow drip."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._watched: list[socket.socket] = []
        self.is_over = False
        self._timer = Timer(DEADLINE_S, self._cut)
        self._timer.daemon = True
        self._timer.start()
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        guard = self

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return guard.connect(self._dns_host, self.port or 80)

        class Tls(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return guard.connect(self._dns_host, self.port or 443)

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class TlsPool(HTTPSConnectionPool):
            ConnectionCls = Tls

        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": TlsPool}

    def connect(self, host: str, port: int) -> socket.socket:
        """To the first address that takes us; all of them must be allowed. Raises OSError."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for _family, _kind, _protocol, _name, place in found:
            if not self._reach.allows(ip_address(str(place[0]).partition("%")[0])):
                raise AddressRefused
        problem: OSError = OSError("no address")
        for family, kind, protocol, _name, place in found:
            connection = socket.socket(family, kind, protocol)
            connection.settimeout(CONNECT_S)
            try:
                connection.connect(place)
            except OSError as error:
                connection.close()
                problem = error
                continue
            self._watched.append(connection.dup())  # TLS takes the socket itself over
            if self.is_over:
                self._cut()
            return connection
        raise problem

    def end(self) -> None:
        self._timer.cancel()
        for watched in self._watched:
            watched.close()
        self.close()

    def _cut(self) -> None:
        self.is_over = True
        for watched in self._watched:
            with suppress(OSError):
                watched.shutdown(socket.SHUT_RDWR)


def _word(problem: BaseException) -> str:
    """Whatever wraps it."""
    seen: Sequence[BaseException] = list(_causes(problem))
    if any(isinstance(one, AddressRefused) for one in seen):
        return "refused"
    if any(isinstance(one, socket.gaierror) for one in seen):
        return "no_host"
    if any(isinstance(one, ssl.SSLError) for one in seen):
        return "tls"
    if any(isinstance(one, requests.Timeout | TimeoutError) for one in seen):
        return "timeout"
    return "no_connection"


def _causes(problem: BaseException) -> Any:
    waiting: list[Any] = [problem]
    known: set[int] = set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseException) and id(one) not in known:
            known.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, else the address itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _printable(head: bytes) -> str:
    text = head.decode("utf-8", "replace")
    return "".join(mark if mark.isprintable() else " " for mark in text)[:ANSWER_BYTES].strip()


def _since(begun_s: float) -> int:
    return round((time.monotonic() - begun_s) * 1000)
