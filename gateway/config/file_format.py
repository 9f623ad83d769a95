"""The form of the configuration file: which sections, fields and values there are. Reads no table and writes none.

    backends:    [{name, url, api_key_env | api_key, draining}]
    policies:    [{name, everywhere, rules}]
    deployments:
      - name, served_model, max_model_len, schedules_by_priority, max_concurrent_calls, fallback, context_fallback,
        first_token_max_s, stall_max_s, queue_max_s
        backends: [{backend, weight, tier, max_concurrent_calls}]
    tenants:
      - slug, name, error_dialect, unknown_fields, time_zone, language, priority, is_active, cors_origins, store_out,
        usage_retention_days, limits
        policies: as above
        aliases: [{name, deployment, canary, canary_percent, max_output_tokens, display_name, description, max_choices,
                   max_stops, grants, defaults, price, limits, policies}]
        keys:    [{name, secret_env | secret, scopes, aliases, networks, expires_at, error_dialect, limits, policies}]
        members: [{email, role}]

What it leaves out is left alone; `limits` and `rules` that are given are all there are. Limits and prices: limits.py; rules:
gateway/policy/rules.py. Aliases and keys give policies by name. Ranges and forms are the models' own, checked there (plan.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from accounts.models.keys import validate_network
from accounts.models.tenants import ORIGIN, ErrorDialect, Language, StoreOut, UnknownFields
from accounts.roles import Role
from accounts.scopes import SCOPES
from gateway.config.limits import limits, price
from gateway.config.policy_rules import rules
from gateway.config.readers import (
    Reader,
    boolean,
    checked,
    email,
    integer,
    listed,
    mapping,
    moment,
    nullable,
    one_of,
    seconds,
    secret,
    text,
    variable,
)
from gateway.config.source import Place, Refused, near
from gateway.models import validate_grant


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of thing a file names. name_field: what it is known by. parts: lists of other kinds inside it."""

    name: str
    name_field: str
    fields: Mapping[str, Reader]
    required: tuple[str, ...] = ()
    parts: Mapping[str, "Kind"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing the file names. values and parts hold what it says of it, and nothing else; places: where."""

    kind: str
    name: str
    place: Place
    values: Mapping[str, Any] = field(repr=False)  # may hold secrets
    places: Mapping[str, Place] = field(repr=False)
    parts: Mapping[str, tuple["Entry", ...]] = field(repr=False)

    def at(self, name: str) -> Place:
        """Where the field `name` stands; where the entry begins, when it does not name it."""
        return self.places.get(name, self.place)


def read(root: Place) -> Entry:
    """The whole file. What is wrong is on file in `root.problems`; what can be read is in the answer all the same."""
    return _entry(FILE, root) or Entry(FILE.name, "", root, {}, {}, {})


def _entry(kind: Kind, place: Place) -> Entry | None:
    """One entry; None when it cannot even be named."""
    try:
        places = place.fields()
    except Refused:
        return None
    values: dict[str, Any] = {}
    parts: dict[str, tuple[Entry, ...]] = {}
    for name, inside in places.items():
        try:
            if name in kind.parts:
                parts[name] = _entries(kind.parts[name], inside)
            elif name in kind.fields:
                values[name] = kind.fields[name](inside)
            else:
                inside.refuse("unknown field", near(name, {*kind.fields, *kind.parts}))
        except Refused:
            continue
    for name in kind.required:
        if name not in places:
            place.refuse(f'"{name}" is missing')
    if kind.name_field and kind.name_field not in values:
        return None
    return Entry(kind.name, values.get(kind.name_field, ""), place, values, places, parts)


def _entries(kind: Kind, place: Place) -> tuple[Entry, ...]:
    entries: dict[str, Entry] = {}
    for item in place.items():
        entry = _entry(kind, item)
        if entry is None:
            continue
        if entry.name in entries:
            first = entries[entry.name].place.line
            entry.at(kind.name_field).refuse(f'the {kind.name} "{entry.name}" is here twice, first in line {first}')
        entries.setdefault(entry.name, entry)
    return tuple(entries.values())


BACKEND: Final = Kind(
    "backend",
    "name",
    {"name": text, "url": text, "api_key": nullable(secret), "api_key_env": variable, "draining": boolean},
    required=("name", "url"),
)
POOL_MEMBER: Final = Kind(
    "backend",
    "backend",
    {"backend": text, "weight": integer, "tier": integer, "max_concurrent_calls": nullable(integer)},
    required=("backend",),
)
POLICY: Final = Kind("policy", "name", {"name": text, "everywhere": boolean, "rules": rules}, required=("name", "rules"))
DEPLOYMENT: Final = Kind(
    "deployment",
    "name",
    {
        "name": text,
        "served_model": text,
        "max_model_len": nullable(integer),
        "schedules_by_priority": boolean,
        "max_concurrent_calls": nullable(integer),
        "fallback": nullable(text),
        "context_fallback": nullable(text),
        "first_token_max_s": nullable(seconds),
        "stall_max_s": nullable(seconds),
        "queue_max_s": nullable(seconds),
    },
    required=("name", "served_model"),
    parts={"backends": POOL_MEMBER},
)
ALIAS: Final = Kind(
    "alias",
    "name",
    {
        "name": text,
        "deployment": text,
        "canary": nullable(text),
        "canary_percent": integer,
        "max_output_tokens": nullable(integer),
        "display_name": mapping,
        "description": mapping,
        "max_choices": integer,
        "max_stops": integer,
        "grants": listed(checked(validate_grant)),
        "defaults": mapping,
        "price": nullable(price),
        "limits": limits,
        "policies": listed(text),
    },
    required=("name", "deployment"),
)
KEY: Final = Kind(
    "key",
    "name",
    {
        "name": text,
        "secret": secret,
        "secret_env": variable,
        "scopes": listed(one_of(SCOPES)),
        "aliases": nullable(listed(text)),
        "networks": listed(checked(validate_network)),
        "expires_at": nullable(moment),
        "error_dialect": nullable(one_of(ErrorDialect.values)),
        "limits": limits,
        "policies": listed(text),
    },
    required=("name",),
)
MEMBER: Final = Kind("member", "email", {"email": email, "role": one_of(Role.values)}, required=("email", "role"))
TENANT: Final = Kind(
    "tenant",
    "slug",
    {
        "slug": text,
        "name": text,
        "error_dialect": one_of(ErrorDialect.values),
        "unknown_fields": one_of(UnknownFields.values),
        "time_zone": text,
        "language": one_of(Language.values),
        "priority": integer,
        "is_active": boolean,
        "cors_origins": listed(checked(ORIGIN)),
        "store_out": one_of(StoreOut.values),
        "usage_retention_days": integer,
        "limits": limits,
    },
    required=("slug",),
    parts={"policies": POLICY, "aliases": ALIAS, "keys": KEY, "members": MEMBER},
)
FILE: Final = Kind(
    "file", "", {}, parts={"backends": BACKEND, "deployments": DEPLOYMENT, "policies": POLICY, "tenants": TENANT}
)
