"""A row on its way to other values: what of it changes, as diff and audit trail tell it, and the one write of both."""

import json
from typing import Any, Generic, TypeVar, Unpack

from django.core.exceptions import ValidationError
from django.db.models import Model

from accounts import audit
from accounts.models import Tenant
from gateway.config.limits import plain

Row = TypeVar("Row", bound=Model)


class InUse(Exception):
    """A row cannot go while others name it; the message says which, for people."""


class Revision(Generic[Row]):
    """Values go in by put(); write() and the audit event follow, in the caller's transaction.

    label: how people name the row: `gpu-1`, `acme/general`. changed: field -> (before, after), as people read them.
    columns: what of the row is to be written.
    """

    def __init__(self, kind: str, label: str, row: Row, *, is_new: bool, tenant: Tenant | None = None) -> None:
        self.kind = kind
        self.label = label
        self.row = row
        self.is_new = is_new
        self.tenant = row if isinstance(row, Tenant) else tenant
        self.changed: dict[str, tuple[Any, Any]] = {}
        self.columns: list[str] = []

    def put(self, name: str, value: Any) -> None:
        """Set a field, if that changes it."""
        held = getattr(self.row, name)
        if self.is_new or not _same(held, value):
            setattr(self.row, name, value)
            self.tell(name, held, value, column=name)

    def put_row(self, name: str, other: Model | None) -> None:
        """Point a field at another row, which is told by its name; None: at none."""
        held: Model | None = None if self.is_new else getattr(self.row, name)
        before, after = (None if row is None else str(row) for row in (held, other))
        if before != after:
            setattr(self.row, name, other)
            self.tell(name, before, after, column=name)

    def put_decimal(self, name: str, value: Any, *, told_as: str) -> None:
        held = getattr(self.row, name)
        if held != value:
            setattr(self.row, name, value)
            self.tell(told_as, *(None if side is None else plain(side) for side in (held, value)), column=name)

    def tell(self, name: str, before: Any, after: Any, *, column: str | None = None) -> None:
        """Note a change as people shall read it. column: where it stands in the row, None: in other rows."""
        self.changed[name] = (None if self.is_new else before, after)
        if column is not None:
            self.columns.append(column)

    def write(self) -> None:
        if self.is_new:
            self.row.save(force_insert=True)
        elif self.columns:
            self.row.save(update_fields=self.columns)

    def event(self) -> dict[str, Any]:
        """What of it the audit trail is told."""
        return {
            "verb": f"{self.kind}.{'created' if self.is_new else 'changed'}",
            "target": f"{self.kind} {self.label}",
            "tenant": self.tenant,
            "before": None if self.is_new else {name: _told(before) for name, (before, _) in self.changed.items()},
            "after": {name: _told(after) for name, (_, after) in self.changed.items()},
        }

    def record(self, **by: Unpack[audit.By]) -> None:
        """Append the audit event. Raises ValidationError for a text that holds an API key."""
        try:
            audit.record(**self.event(), **by)
        except ValueError as error:
            raise ValidationError(str(error)) from None


def _told(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value


def _same(held: Any, wanted: Any) -> bool:
    """Lists are sets here: scopes, aliases, networks, origins, grants."""
    if isinstance(held, list) and isinstance(wanted, list):
        return sorted(held) == sorted(wanted)
    return bool(held == wanted)
