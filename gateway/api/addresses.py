"""Where a call comes from: the peer, or, behind proxies that the installation trusts, whom they name."""

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from django.conf import settings


def client_address(environ: dict[str, Any]) -> str:
    """The caller's IP address as text; "" for a unix socket. X-Forwarded-For counts only behind TRUSTED_PROXIES.

    Read from the right: each trusted hop vouches for the one before it; what the client itself wrote is never reached.
    """
    address: str = environ.get("REMOTE_ADDR", "")
    forwarded = environ.get("HTTP_X_FORWARDED_FOR")
    if forwarded and settings.TRUSTED_PROXIES:
        for hop in reversed(forwarded.split(",")):
            if not is_within(address, tuple(settings.TRUSTED_PROXIES)):
                break
            address = hop.strip()
    return address


def is_within(address: str, networks: tuple[str, ...]) -> bool:
    """Is `address` in one of `networks`? False for what is no address, such as the peer of a unix socket."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return any((mapped or ip) in network for network in _parsed(networks))


@lru_cache(maxsize=16)
def _parsed(networks: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(network) for network in networks)
