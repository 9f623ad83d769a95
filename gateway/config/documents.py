"""The documents that carry the configuration through Redis, and the compiled objects a call reads. Pure but for orjson.

publish.py writes them, directory.py reads them; nothing else knows their form. Keys of Redis:

    sekisho:config:marker            an id; there while Redis holds the whole configuration
    sekisho:config:platform          Platform: backends, deployments, every tenant's CORS origins
    sekisho:config:tenant:<id>       Tenant with its aliases
    sekisho:config:key:<lookup id>   Key
    sekisho:config:changes           stream: what changed, {"kind": platform|tenant|key|all, "id": ...}
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final, Literal

import orjson

MARKER: Final = "sekisho:config:marker"
PLATFORM: Final = "sekisho:config:platform"
CHANGES: Final = "sekisho:config:changes"
CHANGES_KEPT: Final = 10_000

ErrorDialect = Literal["openai", "detail", "both"]
UnknownFields = Literal["drop", "reject", "pass"]


def tenant_key(tenant_id: str) -> str:
    return f"sekisho:config:tenant:{tenant_id}"


def key_key(lookup_id: str) -> str:
    return f"sekisho:config:key:{lookup_id}"


@dataclass(frozen=True, slots=True)
class Backend:
    """One vLLM base URL (scheme, host, port, optional path; without /v1). credential: sent as Bearer, None for none."""

    name: str
    url: str
    credential: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class PoolMember:
    backend: Backend
    weight: int


@dataclass(frozen=True, slots=True)
class Deployment:
    """One served model with its backends. served_model: vLLM's own name for it, never shown to a client."""

    name: str
    served_model: str
    members: tuple[PoolMember, ...]
    max_model_len: int | None = None  # tokens; None: not stated
    schedules_by_priority: bool = False


@dataclass(frozen=True, slots=True)
class Alias:
    """The model name clients send. Texts are by language (`en`, `ja`); limits of counts are per call."""

    name: str
    deployment: str
    created_s: int
    max_output_tokens: int | None = None
    display_name: Mapping[str, str] = field(default_factory=dict)
    description: Mapping[str, str] = field(default_factory=dict)
    max_choices: int = 8
    max_stops: int = 4
    grants: frozenset[str] = frozenset()  # privileged request fields this alias allows
    defaults: Mapping[str, Any] = field(default_factory=dict)  # request fields set where the client leaves them out


@dataclass(frozen=True, slots=True)
class Tenant:
    id: str
    slug: str
    name: str
    is_active: bool
    error_dialect: ErrorDialect
    unknown_fields: UnknownFields
    time_zone: str
    priority: int = 0  # vLLM's: lower is served first; sent only to deployments that schedule by it
    cors_origins: frozenset[str] = frozenset()
    aliases: Mapping[str, Alias] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Key:
    """An API key as the gateway knows it. digest: hex HMAC-SHA-256 under the pepper `pepper_id`."""

    id: str
    lookup_id: str
    tenant_id: str
    name: str
    pepper_id: str
    digest: str = field(repr=False)
    is_active: bool
    expires_at_s: float | None
    scopes: frozenset[str]
    aliases: frozenset[str] | None  # None: all of the tenant's
    networks: tuple[IPv4Network | IPv6Network, ...]  # empty: from anywhere
    error_dialect: ErrorDialect | None

    def is_usable(self, *, now_s: float) -> bool:
        return self.is_active and (self.expires_at_s is None or now_s < self.expires_at_s)

    def admits_address(self, address: str) -> bool:
        """May a call come from `address`? An address that is none (a unix socket) passes only without networks."""
        if not self.networks:
            return True
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        mapped = getattr(ip, "ipv4_mapped", None)
        return any((mapped or ip) in network for network in self.networks)


@dataclass(frozen=True, slots=True)
class Platform:
    deployments: Mapping[str, Deployment] = field(default_factory=dict)
    cors_origins: frozenset[str] = frozenset()  # the union of all tenants': a preflight carries no key
    has_imported_keys: bool = False  # without one, a key text of foreign form is refused without a look-up


def load_platform(document: bytes, decrypt: Callable[[str], str]) -> Platform:
    """Compile the platform's document. decrypt: ciphertext -> credential; raises ValueError when it cannot."""
    data = orjson.loads(document)
    backends = {
        b["name"]: Backend(b["name"], b["url"], decrypt(b["credential"]) if b.get("credential") else None)
        for b in data["backends"]
    }
    deployments = {
        d["name"]: Deployment(
            name=d["name"],
            served_model=d["served_model"],
            members=tuple(PoolMember(backends[m["backend"]], m["weight"]) for m in d["members"]),
            max_model_len=d.get("max_model_len"),
            schedules_by_priority=d.get("schedules_by_priority", False),
        )
        for d in data["deployments"]
    }
    return Platform(deployments, frozenset(data["cors_origins"]), data["has_imported_keys"])


def load_tenant(document: bytes) -> Tenant:
    data = orjson.loads(document)
    aliases = {a["name"]: Alias(**{**a, "grants": frozenset(a.get("grants", ()))}) for a in data.pop("aliases")}
    return Tenant(**{**data, "cors_origins": frozenset(data["cors_origins"]), "aliases": aliases})


def load_key(document: bytes) -> Key:
    data = orjson.loads(document)
    return Key(
        **{
            **data,
            "scopes": frozenset(data["scopes"]),
            "aliases": None if data["aliases"] is None else frozenset(data["aliases"]),
            "networks": tuple(ip_network(n) for n in data["networks"]),
        }
    )
