"""The verbs of rules: each is one transaction with one audit event. In force from the next look on, within seconds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Unpack

from django.db import transaction
from django.utils import timezone

from accounts import audit
from accounts.models import Tenant, User
from portal.alerts import firing, kinds
from portal.alerts.models import AlertRule, Webhook


@dataclass(frozen=True, slots=True)
class Terms:
    """What a rule says, see AlertRule; the kind of one that is there stays."""

    kind: str
    name: str = ""
    thresholds: Sequence[int] = ()
    limits: Sequence[str] = ()
    minutes: int = kinds.MINUTES_FIRST
    least_calls: int = kinds.LEAST_CALLS_FIRST
    roles: Sequence[str] = ()
    people: Iterable[User] = field(default=())
    webhooks: Iterable[Webhook] = field(default=())
    tells_owner: bool = False
    sends_mail: bool = True
    is_active: bool = True


_COLUMNS = ("name", "thresholds", "limits", "minutes", "least_calls", "roles", "tells_owner", "sends_mail", "is_active")


@transaction.atomic
def create(holder: Tenant | None, terms: Terms, **by: Unpack[audit.By]) -> AlertRule:
    """Raises ValidationError."""
    rule = AlertRule(tenant=holder, kind=terms.kind)
    _put(rule, terms)
    rule.full_clean()
    rule.save(force_insert=True)
    _bind(rule, terms)
    _record("alert_rule.created", rule, by, after=_facts(rule))
    return rule


@transaction.atomic
def change(rule: AlertRule, terms: Terms, **by: Unpack[audit.By]) -> bool:
    """False: it says so already. Raises ValidationError."""
    row = _locked(rule)
    before = _facts(row)
    _put(row, terms)
    row.full_clean()
    row.save()
    _bind(row, terms)
    after = _facts(row)
    if before == after:
        return False
    if not row.is_active:
        firing.end_all(row, timezone.now())
    changed = [name for name in after if before[name] != after[name]]
    held, told = ({name: side[name] for name in changed} for side in (before, after))
    _record("alert_rule.changed", row, by, before=held, after=told)
    return True


@transaction.atomic
def delete(rule: AlertRule, **by: Unpack[audit.By]) -> None:
    """What it fired stays to be read."""
    row = _locked(rule)
    firing.end_all(row, timezone.now())
    _record("alert_rule.deleted", row, by, before=_facts(row))
    row.delete()


def _put(rule: AlertRule, terms: Terms) -> None:
    for name in _COLUMNS:
        value = getattr(terms, name)
        setattr(rule, name, list(value) if name in ("thresholds", "limits", "roles") else value)


def _bind(rule: AlertRule, terms: Terms) -> None:
    rule.people.set(terms.people)
    rule.webhooks.set(terms.webhooks)


def _facts(rule: AlertRule) -> dict[str, Any]:
    """As the audit trail tells it."""
    facts: dict[str, Any] = {"kind": rule.kind} | {name: getattr(rule, name) for name in _COLUMNS}
    for name in ("thresholds", "limits", "roles"):
        facts[name] = sorted(facts[name])
    facts["people"] = sorted(person.email for person in rule.people.all())
    facts["webhooks"] = sorted(webhook.name for webhook in rule.webhooks.all())
    return facts


def _locked(rule: AlertRule) -> AlertRule:
    return AlertRule.objects.select_for_update(of=("self",)).select_related("tenant").get(pk=rule.pk)


def _record(verb: str, rule: AlertRule, by: audit.By, *, before: object = None, after: object = None) -> None:
    target = f"alert rule {rule.name or rule.kind}"
    audit.record(verb=verb, target=target, tenant=rule.tenant, before=before, after=after, **by)
