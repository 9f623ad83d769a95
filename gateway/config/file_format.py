"""The form of the configuration file: which sections, fields and values there are. Reads no table and writes none.

    backends:    [{name, url, api_key_env | api_key}]
    deployments: [{name, served_model, max_model_len, schedules_by_priority, backends: [{backend, weight}]}]
    tenants:
      - slug, name, error_dialect, unknown_fields, time_zone, priority, is_active, cors_origins
        aliases: [{name, deployment, max_output_tokens, display_name, description, max_choices, max_stops, grants, defaults}]
        keys:    [{name, secret_env | secret, scopes, aliases, networks, expires_at, error_dialect}]
        members: [{email, role}]

What it leaves out is left alone. Ranges and forms are the models' own and checked there (plan.py).
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from accounts.models.keys import validate_network
from accounts.models.tenants import ORIGIN, ErrorDialect, UnknownFields
from accounts.roles import Role
from accounts.scopes import SCOPES
from gateway.config.source import Place, Refused, known_names, near
from gateway.models import validate_grant

Reader = Callable[[Place], Any]


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


def text(place: Place) -> str:
    value = place.value()
    if not isinstance(value, str):
        raise place.refuse("must be text", "write it in quotes")
    return value


def integer(place: Place) -> int:
    value = place.value()
    if not isinstance(value, int) or isinstance(value, bool):
        raise place.refuse("must be a whole number")
    return value


def boolean(place: Place) -> bool:
    value = place.value()
    if not isinstance(value, bool):
        raise place.refuse("must be true or false")
    return value


def moment(place: Place) -> datetime:
    value = place.value()
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if not isinstance(value, datetime) or value.tzinfo is None:
        hint = "" if not isinstance(value, date) else "a time and a time zone are needed"
        raise place.refuse("must be a moment, such as 2027-01-31T00:00:00Z", hint)
    return value


def mapping(place: Place) -> dict[str, Any]:
    """As it comes back from the database's JSON, so that it can be compared with what is there."""
    place.fields()
    try:
        value: dict[str, Any] = json.loads(json.dumps(place.value(), allow_nan=False))
    except (TypeError, ValueError):
        raise place.refuse("must hold what JSON can hold", "write dates in quotes") from None
    return value


def secret(place: Place) -> str:
    """A secret as HTTP carries it. What is wrong is told without it."""
    value = place.value()
    if not isinstance(value, str) or re.fullmatch(r"[\x21-\x7e]{1,4096}", value, re.ASCII) is None:
        raise place.refuse("must be text of visible ASCII characters, without spaces")
    return value


def variable(place: Place) -> str:
    name = text(place)
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII) is None:
        raise place.refuse("must be the name of an environment variable, not its value")
    return name


def email(place: Place) -> str:
    return checked(validate_email)(place).lower()


def checked(validator: Callable[[str], None]) -> Callable[[Place], str]:
    """Text that a model's validator accepts; here already, so that the problem names the item of a list."""

    def reader(place: Place) -> str:
        value = text(place)
        try:
            validator(value)
        except ValidationError as error:
            raise place.refuse(" ".join(error.messages)) from None
        return value

    return reader


def one_of(choices: Collection[str]) -> Callable[[Place], str]:
    def reader(place: Place) -> str:
        value = text(place)
        if value not in choices:
            raise place.refuse(f'there is no "{value}"', known_names(choices))
        return value

    return reader


def nullable(reader: Reader) -> Reader:
    return lambda place: None if place.value() is None else reader(place)


def listed(reader: Reader) -> Callable[[Place], list[Any]]:
    """A list of different values."""

    def list_reader(place: Place) -> list[Any]:
        values: list[Any] = []
        are_good = True
        for item in place.items():
            try:
                value = reader(item)
                if value in values:
                    raise item.refuse(f'"{value}" is here twice')
                values.append(value)
            except Refused:
                are_good = False
        if not are_good:
            raise Refused
        return values

    return list_reader


BACKEND: Final = Kind(
    "backend",
    "name",
    {"name": text, "url": text, "api_key": nullable(secret), "api_key_env": variable},
    required=("name", "url"),
)
POOL_MEMBER: Final = Kind("backend", "backend", {"backend": text, "weight": integer}, required=("backend",))
DEPLOYMENT: Final = Kind(
    "deployment",
    "name",
    {"name": text, "served_model": text, "max_model_len": nullable(integer), "schedules_by_priority": boolean},
    required=("name", "served_model"),
    parts={"backends": POOL_MEMBER},
)
ALIAS: Final = Kind(
    "alias",
    "name",
    {
        "name": text,
        "deployment": text,
        "max_output_tokens": nullable(integer),
        "display_name": mapping,
        "description": mapping,
        "max_choices": integer,
        "max_stops": integer,
        "grants": listed(checked(validate_grant)),
        "defaults": mapping,
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
        "priority": integer,
        "is_active": boolean,
        "cors_origins": listed(checked(ORIGIN)),
    },
    required=("slug",),
    parts={"aliases": ALIAS, "keys": KEY, "members": MEMBER},
)
FILE: Final = Kind("file", "", {}, parts={"backends": BACKEND, "deployments": DEPLOYMENT, "tenants": TENANT})
