"""The documents that carry the configuration through Redis, and the compiled objects a call reads. Pure but for orjson.

publish.py writes them, directory.py reads them; nothing else knows their form. Keys of Redis:

    sekisho:config:marker            an id; there while Redis holds the whole configuration
    sekisho:config:platform          Platform: backends, deployments, its content policies, every tenant's CORS origins
    sekisho:config:tenant:<id>       Tenant with its aliases and content policies
    sekisho:config:key:<lookup id>   Key
    sekisho:config:changes           stream: what changed, {"kind": platform|tenant|key|all, "id": ...}

A document of a newer release may carry names this one does not know: they are dropped, so that gateways and portals can
be upgraded one by one. But a content policy that cannot be read in whole is kept as one that lets no call pass.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import orjson

from gateway.policy.rules import Holder, Policy, RulesRefused, parse_rules
from usage.limits import NAMES, Limit

MARKER: Final = "sekisho:config:marker"
PLATFORM: Final = "sekisho:config:platform"
CHANGES: Final = "sekisho:config:changes"
CHANGES_KEPT: Final = 10_000
POLICIES_KEPT: Final = 256  # compiled ones, by what they say

ErrorDialect = Literal["openai", "detail", "both"]
UnknownFields = Literal["drop", "reject", "pass"]
StoreOut = Literal["closed", "degraded"]


def tenant_key(tenant_id: str) -> str:
    return f"sekisho:config:tenant:{tenant_id}"


def key_key(lookup_id: str) -> str:
    return f"sekisho:config:key:{lookup_id}"


def base_url(text: str) -> str:
    """The one spelling of a backend's URL: no slash at its end, and no /v1, which the gateway adds itself.

    Raises ValueError, in words for people, for what is no such URL.
    """
    if re.fullmatch(r"https?://[\x21-\x7e]+", text, re.ASCII | re.IGNORECASE) is None:
        raise ValueError("A backend's URL begins with http:// or https:// and has no spaces.")
    if "?" in text or "#" in text:
        raise ValueError("A backend's URL has no query and no fragment.")
    try:
        parts = urlsplit(text)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole:
        raise ValueError("A backend's URL needs a host, and a port from 1 to 65535 if any.")
    if "@" in parts.netloc:
        raise ValueError("A backend's URL holds no user or password: give the credential by itself.")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"


@dataclass(frozen=True, slots=True)
class Backend:
    """One vLLM base URL (scheme, host, port, optional path; without /v1). credential: sent as Bearer, None for none.

    is_draining: it ends the calls it has and gets no new ones.
    """

    name: str
    url: str
    credential: str | None = field(default=None, repr=False)
    is_draining: bool = False


@dataclass(frozen=True, slots=True)
class PoolMember:
    """A backend's place in a pool. tier: 0 is tried first, the next where no backend of those before can take the call.

    max_concurrent_calls: of this deployment at this backend, over all workers; None: no ceiling.
    """

    backend: Backend
    weight: int
    tier: int = 0
    max_concurrent_calls: int | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """One served model with its backends. served_model: vLLM's own name for it, never shown to a client.

    max_concurrent_calls: over all its backends and workers; None: no ceiling. fallback, context_fallback: deployments that
    take a call over where every backend of this one is out, where the prompt does not fit max_model_len. Following either,
    in any order, comes to an end. *_max_s: how long a call may wait for its first token, between two, and for a free place;
    None: as the setting says.
    """

    name: str
    served_model: str
    members: tuple[PoolMember, ...]
    max_model_len: int | None = None  # tokens; None: not stated
    schedules_by_priority: bool = False
    max_concurrent_calls: int | None = None
    fallback: str | None = None
    context_fallback: str | None = None
    first_token_max_s: float | None = None
    stall_max_s: float | None = None
    queue_max_s: float | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """What a model token costs, in pico-units of the installation's currency (1 a million tokens is 1,000,000 here)."""

    prompt: int
    cached: int  # prompt tokens that the backend had in its prefix cache
    completion: int


@dataclass(frozen=True, slots=True)
class Alias:
    """The model name clients send. Texts are by language (`en`, `ja`); limits of counts are per call.

    canary: a deployment that gets canary_percent of the calls, 0 to 100; None, and then 0: there is none.
    """

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
    price: Price | None = None  # None: calls cost nothing
    limits: tuple[Limit, ...] = ()
    canary: str | None = None
    canary_percent: int = 0
    policies: tuple[str, ...] = ()  # the tenant's of that name, else the platform's: config/bindings.py


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
    limits: tuple[Limit, ...] = ()
    store_out: StoreOut = "closed"  # with Redis out: refuse calls, or let each worker enforce its share of the limits
    policies: Mapping[str, Policy] = field(default_factory=dict)


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
    limits: tuple[Limit, ...] = ()
    policies: tuple[str, ...] = ()  # as an alias's

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
    """backends: all there are, also those that no deployment uses; they are probed all the same."""

    deployments: Mapping[str, Deployment] = field(default_factory=dict)
    cors_origins: frozenset[str] = frozenset()  # the union of all tenants': a preflight carries no key
    has_imported_keys: bool = False  # without one, a key text of foreign form is refused without a look-up
    backends: Mapping[str, Backend] = field(default_factory=dict)
    policies: Mapping[str, Policy] = field(default_factory=dict)


def load_platform(document: bytes, decrypt: Callable[[str], str]) -> Platform:
    """Compile the platform's document. decrypt: ciphertext -> credential; raises ValueError when it cannot."""
    data = orjson.loads(document)
    backends = {b["name"]: _backend(b, decrypt) for b in data["backends"]}
    deployments = {
        d["name"]: Deployment(
            **{
                **_known(Deployment, d),
                "members": tuple(
                    PoolMember(**{**_known(PoolMember, m), "backend": backends[m["backend"]]}) for m in d["members"]
                ),
            }
        )
        for d in data["deployments"]
    }
    return Platform(
        deployments, frozenset(data["cors_origins"]), data["has_imported_keys"], backends, _policies(data, "platform")
    )


def load_tenant(document: bytes) -> Tenant:
    data = orjson.loads(document)
    return Tenant(
        **{
            **_known(Tenant, data),
            "cors_origins": frozenset(data["cors_origins"]),
            "aliases": {alias["name"]: _alias(alias) for alias in data["aliases"]},
            "limits": _limits(data),
            "policies": _policies(data, "tenant"),
        }
    )


def load_key(document: bytes) -> Key:
    data = orjson.loads(document)
    return Key(
        **{
            **_known(Key, data),
            "scopes": frozenset(data["scopes"]),
            "aliases": None if data["aliases"] is None else frozenset(data["aliases"]),
            "networks": tuple(ip_network(n) for n in data["networks"]),
            "limits": _limits(data),
            "policies": tuple(data.get("policies", ())),
        }
    )


def load_policy(data: Mapping[str, Any], holder: Holder) -> Policy:
    """A published version, as a part of the holder's document.

    One that says the same is the same object: what else of a tenant changes must not have its rules compiled anew.
    """
    return _policy(orjson.dumps(data), holder)


@lru_cache(maxsize=POLICIES_KEPT)
def _policy(document: bytes, holder: Holder) -> Policy:
    data = orjson.loads(document)
    try:
        rules, is_readable = parse_rules(data["rules"], is_published=True), True
    except RulesRefused:  # of a release that knows more kinds
        rules, is_readable = (), False
    return Policy(data["name"], data["version"], rules, data["is_everywhere"], is_readable, holder)


def _backend(data: Mapping[str, Any], decrypt: Callable[[str], str]) -> Backend:
    credential = decrypt(data["credential"]) if data["credential"] else None
    return Backend(**{**_known(Backend, data), "credential": credential})


def _alias(data: Mapping[str, Any]) -> Alias:
    price = data.get("price")
    return Alias(
        **{
            **_known(Alias, data),
            "grants": frozenset(data["grants"]),
            "price": None if price is None else Price(**_known(Price, price)),
            "limits": _limits(data),
            "policies": tuple(data.get("policies", ())),
        }
    )


def _limits(data: Mapping[str, Any]) -> tuple[Limit, ...]:
    """Those of the kinds this release knows."""
    return tuple(Limit(**_known(Limit, limit)) for limit in data.get("limits", ()) if limit["name"] in NAMES)


def _policies(data: Mapping[str, Any], holder: Holder) -> dict[str, Policy]:
    return {policy["name"]: load_policy(policy, holder) for policy in data.get("policies", ())}


def _known(document_class: type, data: Mapping[str, Any]) -> dict[str, Any]:
    names = {f.name for f in fields(document_class)}
    return {name: value for name, value in data.items() if name in names}
