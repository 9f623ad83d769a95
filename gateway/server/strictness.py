"""What of a request's head may be served, beyond what gunicorn's parser sees to: the contract's own strictness. Pure."""

import re
from ipaddress import IPv6Address
from typing import Any, Final

_NAME: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9.])?"
_HOST: Final = re.compile(rf"(?:{_NAME}|\[(?P<ipv6>[0-9A-Fa-f:.]{{2,45}})\])(?::(?P<port>[0-9]{{1,5}}))?")
_CONTROL: Final = re.compile(r"%(?:[01][0-9A-Fa-f]|7[Ff])")
_SINGLE: Final = frozenset(
    {"AUTHORIZATION", "HOST", "CONTENT-TYPE", "CONTENT-ENCODING", "CONTENT-LENGTH", "TRANSFER-ENCODING", "ORIGIN"}
)


def head_problem(req: Any) -> str | None:
    """What is wrong with a parsed head, in words for the client; None when it may be served."""
    if req.version > (1, 1):  # gunicorn takes all of 1.x, and would answer in the client's version
        return "The HTTP version must be 1.1 or 1.0."
    seen: dict[str, str] = {}
    for name, value in req.headers:
        if name in _SINGLE and name in seen:
            return f"More than one {name.title()} header."
        seen[name] = value
    coding = seen.get("TRANSFER-ENCODING")
    if coding is not None and coding.strip().lower() != "chunked":
        return "Transfer-Encoding must be chunked."
    host = seen.get("HOST")
    if host is None and req.version >= (1, 1):
        return "The Host header is missing."
    if host is not None and not is_host(host):
        return "The Host header is malformed."
    return target_problem(req, host)


def is_host(text: str) -> bool:
    """Is `text` a host's name or address, perhaps with a port, and nothing besides?"""
    match = _HOST.fullmatch(text)
    if match is None or int(match["port"] or 0) > 65_535:
        return False
    try:
        IPv6Address(match["ipv6"] or "::")
    except ValueError:
        return False
    return True


def target_problem(req: Any, host: str | None) -> str | None:
    """A target is a path, or an absolute URI of the host that the Host header names; `*` and others are not served."""
    if "#" in req.uri or _CONTROL.search(req.path):
        return "The request target must not hold a fragment or control characters."
    if req.uri.startswith("/"):
        return None
    scheme, separator, rest = req.uri.partition("://")
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    if separator and scheme.lower() in ("http", "https") and host is not None and authority.lower() == host.lower():
        return None
    return "The request target must be a path on this host."
