"""Two people who edit one thing: the second one is told what happened before anything of the first is written over.

A form carries a fingerprint of what it began with. Where that is not what is held any more, nothing is saved: the page shows
what the other person saved beside what this one entered, with the fingerprint of now, so that sending it again saves it.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from django import forms
from django.db import connection, transaction
from django.http import HttpRequest
from django.utils.translation import gettext as _

from accounts.models import AuditEvent, Tenant

SEEN: Final = "seen"  # the form's field
SHOWN_LENGTH: Final = 300


@dataclass(frozen=True, slots=True)
class Differing:
    """One field. held: as it is saved now; entered: as this person would have it."""

    label: str
    held: str
    entered: str


@dataclass(frozen=True, slots=True)
class Edit:
    """seen: what the form carries. is_overtaken: somebody saved something else since it was opened; event: who, when."""

    seen: str = ""
    is_overtaken: bool = False
    event: AuditEvent | None = None
    fields: list[Differing] = field(default_factory=list)
    lines: Any = None  # of a text in the place of fields: portal/differences.py


@contextmanager
def alone(request: HttpRequest, target: str) -> Iterator[None]:
    """While this runs no other request changes `target`: of two at the same moment, the second sees what the first did."""
    if request.method != "POST":
        yield
        return
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"sekisho edit {target}"])
        yield


def of_forms(
    request: HttpRequest, target: str, tenant: Tenant | None, held: Sequence[forms.BaseForm], *, whole: str = ""
) -> Edit:
    """held: bound to what was sent, if anything was, each with what is held now as its initial values.

    target: as the audit trail calls it. whole: what else the fingerprint is of.
    """
    now = _state(held, whole)
    differing = [one for form in held if form.is_bound for one in _differing(form)]
    return _edit(request, now, target, tenant, is_other=bool(differing), fields=differing)


def begun(held: Sequence[forms.BaseForm]) -> Edit:
    """Of forms that this request shows and does not take: another address does."""
    return Edit(_state(held, ""))


def of_text(
    request: HttpRequest, target: str, tenant: Tenant | None, held: Any, entered: Any, compare: Callable[[Any, Any], Any]
) -> Edit:
    """held, entered: what is saved, and what would be, as plain values; None where this request saves nothing."""
    edit = _edit(request, fingerprint(held), target, tenant, is_other=entered is not None and entered != held)
    if not edit.is_overtaken:
        return edit
    return Edit(edit.seen, True, edit.event, lines=compare(held, entered))


def fingerprint(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def _state(held: Sequence[forms.BaseForm], whole: str) -> str:
    return fingerprint([whole, *([[name, _plain(form[name].initial)] for name in form.fields] for form in held)])


def _edit(request: HttpRequest, now: str, target: str, tenant: Tenant | None, *, is_other: bool, **more: Any) -> Edit:
    """A form without a fingerprint was not made by these pages: it is taken at its word."""
    seen = request.POST.get(SEEN, "") if request.method == "POST" else ""
    if not seen:
        return Edit(now)
    if seen == now or not is_other:
        return Edit(seen)
    events = AuditEvent.objects.filter(target=target, tenant=tenant)
    return Edit(now, True, events.first(), **more)


def _differing(form: forms.BaseForm) -> Iterator[Differing]:
    """subject: of a form that is a row of a table, what its row is of."""
    for name in form.changed_data:
        bound = form[name]
        held, entered = _told(bound, bound.initial), _told(bound, bound.data)
        if held != entered and not bound.is_hidden and not isinstance(bound.field.widget, forms.PasswordInput):
            subject = getattr(form, "subject", "")
            label = f"{subject}: {bound.label}" if subject else str(bound.label)
            yield Differing(label, _shortened(held), _shortened(entered))


def _told(bound: forms.BoundField, value: Any) -> str:
    value = bound.field.prepare_value(value)
    if isinstance(bound.field, forms.BooleanField):
        return _("Yes") if value not in (None, False, "", "false") else _("No")
    labels = {str(choice): str(label) for choice, label in getattr(bound.field, "choices", ())}
    values = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
    told = ", ".join(labels.get(str(one), "" if one is None else str(one)) for one in values)
    return told.replace("\r\n", "\n")


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_LENGTH else f"{text[: SHOWN_LENGTH - 1]}…"


def _plain(value: Any) -> Any:
    """Sets have no order, and a form's values may be of any type."""
    return sorted(map(str, value)) if isinstance(value, (set, frozenset)) else value
