"""Content policies as the configuration file gives them: compared with the rows, for plan.py. Writes nothing."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from accounts.models import Tenant
from gateway.config import policies
from gateway.config.file_format import Entry
from gateway.config.source import known_names
from gateway.config.steps import BY, Draft, Step, removal
from gateway.models import ContentPolicy


@dataclass(frozen=True, slots=True)
class Plan:
    """names: of the policies that are there then. removals: to be performed once nothing names these any more."""

    names: frozenset[str]
    steps: tuple[Step, ...]
    removals: tuple[Step, ...]


def plan(holder: Entry, tenant: Tenant | None, *, prune: bool) -> Plan:
    """holder: the tenant's entry, or the whole file for the platform's policies, and tenant None."""
    current = ContentPolicy.objects.filter(tenant=tenant).select_related("published").order_by("name")
    rows = {row.name: row for row in current.select_for_update(of=("self",))}
    entries = holder.parts.get("policies", ())
    named = {entry.name for entry in entries}
    published = {name for name, row in rows.items() if row.published}
    gone = published - named if prune and "policies" in holder.parts else set()
    steps = [_step(entry, rows.get(entry.name), tenant) for entry in entries]
    return Plan(
        names=frozenset(published - gone | named),
        steps=tuple(step for step in steps if step is not None),
        removals=tuple(removal("policy", rows[name].label, rows[name], holder.at("policies"), tenant) for name in sorted(gone)),
    )


def refuse_unknown(entry: Entry, known: Collection[str]) -> None:
    """File what the `policies` of an alias or a key name and what is not there."""
    for number, name in enumerate(entry.values.get("policies") or ()):
        if name not in known:
            entry.at("policies").items()[number].refuse(f'no policy named "{name}"', known_names(known))


def _step(entry: Entry, known: ContentPolicy | None, tenant: Tenant | None) -> Step | None:
    row = known or ContentPolicy(tenant=tenant, name=entry.name)
    draft = Draft(entry, row.label, row, is_new=known is None, tenant=tenant)
    everywhere = entry.values.get("everywhere", row.is_everywhere)
    if draft.is_new or everywhere != row.is_everywhere:
        draft.tell("everywhere", row.is_everywhere, everywhere, column="is_everywhere")
        row.is_everywhere = everywhere
    draft.check()
    return draft.step(after_save=_put_rules(draft, row))


def _put_rules(draft: Draft, row: ContentPolicy) -> Callable[[], None]:
    """Compare; the answer publishes."""
    held, rules = row.published, draft.entry.values.get("rules")
    if rules is None or (held is not None and held.rules == rules):
        return lambda: None
    draft.tell("version", held.number if held else None, policies.next_number(row))
    return partial(policies.put, row, rules, created_by=BY["actor_label"])
