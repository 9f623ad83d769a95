"""Where hosts are. A resolver that is slow or out stops no call to a backend that was found before."""

import socket
from functools import lru_cache
from ipaddress import ip_address
from time import monotonic
from typing import Any, Final

import gevent
from gevent import monkey

from gateway.upstream.errors import UpstreamRefused

_getaddrinfo: Final = monkey.get_original("socket", "getaddrinfo")
FRESH_S: Final = 1.0  # a name that moves is followed that soon; at most one look-up a second for each

Address = tuple[Any, ...]  # as socket.connect takes it
Addresses = list[tuple[socket.AddressFamily, Address]]


class _Name:
    """One host and port; looked up by one greenlet at a time, for all who wait."""

    def __init__(self, host: str, port: int) -> None:
        self._asked = (host, port)
        self._looking: Any = None
        self._found: Addresses = []
        self._found_at_s = float("-inf")

    def addresses(self, within_s: float) -> Addresses:
        if monotonic() - self._found_at_s < FRESH_S:
            return self._found
        if self._looking is None:
            self._looking = gevent.spawn(self._look)
        self._looking.join(within_s)
        if not self._found:
            raise UpstreamRefused("a host that cannot be found")
        return self._found

    def _look(self) -> None:
        try:
            self._found = _resolve(*self._asked)
            self._found_at_s = monotonic()
        except OSError:
            return  # what was found before still stands
        finally:
            self._looking = None


def look_up(host: str, port: int, *, within_s: float) -> Addresses:
    """The addresses of a host, in the order to try them: of a second ago at most, or the last known. Raises UpstreamRefused."""
    return _written_out(host, port) if _is_address(host) else _name(host, port).addresses(within_s)


@lru_cache(maxsize=1024)
def _written_out(host: str, port: int) -> Addresses:
    """Those of an address. Nobody is asked: gevent's own getaddrinfo would send a thread, and those of 500 calls at once came
    back after more than two seconds from under a busy loop (2026-11)."""
    found = _getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return [(family, address) for family, _, _, _, address in found]


def _resolve(host: str, port: int) -> Addresses:
    return [(family, address) for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


_name: Final = lru_cache(maxsize=1024)(_Name)


@lru_cache(maxsize=1024)
def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
