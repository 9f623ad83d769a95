"""The verbs of content policies: each is one transaction with one audit event, in force on every worker once it is committed.

Rules are told in the audit trail by the number of their version alone: what they say stands in the version, for ever.
"""

from typing import Any, Unpack

from django.db import transaction
from django.utils.translation import gettext as _

from accounts import audit
from accounts.models import Tenant
from gateway.config.documents import load_policy
from gateway.config.policy_rules import checked
from gateway.config.rows import policy_facts
from gateway.models import ContentPolicy, ContentPolicyVersion
from gateway.policy.rules import Policy


class PolicyError(Exception):
    """What was asked for cannot be; the message is for people, in their language."""


@transaction.atomic
def create(tenant: Tenant | None, name: str, *, is_everywhere: bool = False, **by: Unpack[audit.By]) -> ContentPolicy:
    """A policy without rules, which applies to nothing before a draft of it is published. Raises ValidationError."""
    policy = ContentPolicy(tenant=tenant, name=name, is_everywhere=is_everywhere)
    policy.full_clean()
    policy.save(force_insert=True)
    _record("policy.created", policy, after={"everywhere": is_everywhere}, **by)
    return policy


@transaction.atomic
def set_everywhere(policy: ContentPolicy, is_everywhere: bool, **by: Unpack[audit.By]) -> bool:
    """Let it apply to all calls of its tenant (the platform's: of every tenant), or where it is named. False: it did before."""
    held = _lock(policy).is_everywhere
    policy.is_everywhere = is_everywhere
    if held == is_everywhere:
        return False
    policy.save(update_fields=["is_everywhere"])
    _record("policy.changed", policy, before={"everywhere": held}, after={"everywhere": is_everywhere}, **by)
    return True


@transaction.atomic
def save_draft(policy: ContentPolicy, rules: object, **by: Unpack[audit.By]) -> ContentPolicyVersion:
    """Keep `rules` as the policy's one draft, in the place of what that said before. Raises RulesRefused.

    Nothing is written where the draft says so already.
    """
    written = checked(rules)
    _lock(policy)
    held = policy.versions.filter(is_draft=True).first()
    if held is not None and held.rules == written:
        return held
    draft = held or ContentPolicyVersion(policy=policy, is_draft=True)
    draft.number = draft.number or next_number(policy)
    draft.rules, draft.created_by = written, _label(by)
    draft.save()
    _record("policy.drafted", policy, after={"version": draft.number, "rules": len(written)}, **by)
    return draft


@transaction.atomic
def discard_draft(policy: ContentPolicy, **by: Unpack[audit.By]) -> None:
    """Raises PolicyError where there is none."""
    _lock(policy)
    draft = _draft(policy)
    draft.delete()
    _record("policy.draft_discarded", policy, before={"version": draft.number, "rules": len(draft.rules)}, **by)


@transaction.atomic
def publish(policy: ContentPolicy, **by: Unpack[audit.By]) -> ContentPolicyVersion:
    """Make the draft the version that calls are judged by; those that run end under the one they began with.

    Raises PolicyError without a draft, and RulesRefused where this release no longer takes what a draft of old says.
    """
    _lock(policy)
    draft = _draft(policy)
    checked(draft.rules)
    draft.is_draft = False
    draft.number = next_number(policy, besides=draft)  # versions are numbered in the order in which they were first published
    draft.save()
    _point_at(policy, draft, "policy.published", by)
    return draft


@transaction.atomic
def roll_back(policy: ContentPolicy, number: int, **by: Unpack[audit.By]) -> ContentPolicyVersion:
    """Judge calls by an earlier version again. Raises PolicyError where that is not one, RulesRefused as publish() does."""
    held = _lock(policy).published
    version = policy.versions.filter(number=number, is_draft=False).first()
    if version is None:
        raise PolicyError(_("“%(name)s” has no published version %(number)d.") % {"name": policy.name, "number": number})
    if version == held:
        raise PolicyError(_("“%(name)s” is at version %(number)d already.") % {"name": policy.name, "number": number})
    checked(version.rules)
    _point_at(policy, version, "policy.rolled_back", by)
    return version


@transaction.atomic
def delete(policy: ContentPolicy, **by: Unpack[audit.By]) -> None:
    """With all its versions. Raises ProtectedError, which says by whom, while aliases or keys use it."""
    _record("policy.deleted", policy, before=_version(_lock(policy).published), **by)
    policy.delete()


def as_published(policy: ContentPolicy) -> Policy:
    """As gateways know it, for a trial. Raises ValueError when it is not published."""
    return load_policy(policy_facts(policy), "platform" if policy.tenant_id is None else "tenant")


def put(policy: ContentPolicy, rules: list[Any], *, created_by: str) -> None:
    """Publish `rules`, which are checked(), past the draft; in the caller's transaction, and told by its audit event."""
    policy.published = policy.versions.create(number=next_number(policy), rules=rules, created_by=created_by)
    policy.save(update_fields=["published"])


def next_number(policy: ContentPolicy, *, besides: ContentPolicyVersion | None = None) -> int:
    others = policy.versions.exclude(pk=besides.pk) if besides else policy.versions.all()
    return max(others.values_list("number", flat=True), default=0) + 1


def _lock(policy: ContentPolicy) -> ContentPolicy:
    """The row as it is now, and so `policy`: of two at once, the second sees what the first has done."""
    policy.refresh_from_db(from_queryset=ContentPolicy.objects.select_for_update())
    return policy


def _draft(policy: ContentPolicy) -> ContentPolicyVersion:
    draft = policy.versions.filter(is_draft=True).first()
    if draft is None:
        raise PolicyError(_("“%(name)s” has no draft.") % {"name": policy.name})
    return draft


def _point_at(policy: ContentPolicy, version: ContentPolicyVersion, verb: str, by: audit.By) -> None:
    before = policy.published
    policy.published = version
    policy.save(update_fields=["published"])
    _record(verb, policy, before=_version(before), after=_version(version), **by)


def _version(version: ContentPolicyVersion | None) -> dict[str, Any] | None:
    return None if version is None else {"version": version.number}


def _label(by: audit.By) -> str:
    return by.get("actor_label") or str(by["actor"])


def _record(verb: str, policy: ContentPolicy, *, before: object = None, after: object = None, **by: Unpack[audit.By]) -> None:
    audit.record(verb=verb, target=f"policy {policy.label}", tenant=policy.tenant, before=before, after=after, **by)
