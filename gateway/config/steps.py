"""Steps: single changes of rows, each with its line of the diff, its audit event and its place in the file.

Making a step writes nothing; performing it does, inside the caller's transaction.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db.models import Model, ProtectedError

from accounts import audit, issuing
from accounts.models import ApiKey, Tenant
from gateway.config.file_format import Entry
from gateway.config.revision import Revision
from gateway.config.source import Place

BY: Final[audit.By] = {"actor": None, "actor_label": "command: apply"}
SHOWN_LENGTH: Final = 60


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the diff: `+ tenant acme`, `~ alias acme/general max_output_tokens 512 -> 1024`, `- alias acme/old`."""

    sign: Literal["+", "~", "-"]
    kind: str
    name: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.sign} {self.kind} {self.name} {self.detail}".rstrip()


@dataclass(frozen=True, slots=True)
class Minted:
    """A new key; this is the only place where its text is."""

    tenant: str
    name: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Step:
    """Changes that are made together. perform: raises Refused, with the problem on file, when that cannot be."""

    changes: tuple[Change, ...]
    perform: Callable[[], Minted | None]


class Draft(Revision[Model]):
    """A row on its way to what its entry says."""

    def __init__(self, entry: Entry, label: str, row: Model, *, is_new: bool, tenant: Tenant | None = None) -> None:
        super().__init__(entry.kind, label, row, is_new=is_new, tenant=tenant)
        self.entry = entry

    def check(self) -> None:
        """Have the model's own validators look at the row; what they say goes to the places of the fields."""
        # Relations are resolved by name, and may be to rows that are not written yet.
        relations = {f.name for f in self.row._meta.concrete_fields if f.is_relation}  # noqa: SLF001 - documented API
        try:
            self.row.clean_fields(exclude=relations)
            self.row.clean()
        except ValidationError as error:
            for name, messages in error.message_dict.items():
                if name in self.entry.values or name == NON_FIELD_ERRORS:  # of the others, "is missing" was said
                    self.entry.at(name).refuse(" ".join(messages))

    def step(
        self, *, before_save: Callable[[], None] = lambda: None, after_save: Callable[[], None] = lambda: None
    ) -> Step | None:
        """How the row is written, with its audit event; None when nothing changes."""
        changes = [
            Change("~", self.entry.kind, self.label, f"{name} {_shown(before)} -> {_shown(after)}")
            for name, (before, after) in self.changed.items()
        ]
        if self.is_new:
            changes = [Change("+", self.entry.kind, self.label)]

        def perform() -> None:
            before_save()
            self.write()
            record(**self.event(), place=self.entry.place)
            after_save()

        return Step(tuple(changes), perform) if changes else None


def removal(kind: str, label: str, row: Model, place: Place, tenant: Tenant | None) -> Step:
    def perform() -> None:
        record(f"{kind}.deleted", f"{kind} {label}", place, tenant=tenant)
        try:
            row.delete()
        except ProtectedError as error:
            users = ", ".join(sorted(str(user) for user in error.protected_objects))
            raise place.refuse(f'cannot remove the {kind} "{label}", it is still used: {users}') from None

    return Step((Change("-", kind, label),), perform)


def revocation(key: ApiKey, label: str) -> Step:
    """What removing a key means: its row stays, for the audit trail and the ledger."""

    def perform() -> None:
        issuing.revoke(key, **BY)

    return Step((Change("-", "key", label, "(revoked)"),), perform)


def record(verb: str, target: str, place: Place, **facts: Any) -> None:
    """An audit event. A text that the audit trail refuses, because it holds an API key, is a problem of the file."""
    try:
        audit.record(verb=verb, target=target, **facts, **BY)
    except ValueError as error:
        raise place.refuse(str(error)) from None


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        text = value.isoformat()
    else:
        text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_LENGTH else text[: SHOWN_LENGTH - 1] + "…"
