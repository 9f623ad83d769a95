"""Drafts, versions and who uses a policy: the verbs, their audit events, and what the database refuses whoever writes it."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.db.models import ProtectedError

from accounts import issuing
from accounts.models import AuditEvent, Tenant
from gateway.config import encryption, policies
from gateway.config.documents import CHANGES, PLATFORM, key_key, load_key, load_platform, load_tenant, tenant_key
from gateway.config.policies import PolicyError
from gateway.models import ContentPolicy, ContentPolicyVersion, ModelAlias
from gateway.policy.rules import Policy, RulesRefused, parse_rules

pytestmark = pytest.mark.django_db(transaction=True)
BY: Any = {"actor": None, "actor_label": "test"}
ONE: list[Any] = [{"kind": "keywords", "words": ["alpha"], "where": ["input"], "action": "block"}]
TWO: list[Any] = [*ONE, {"kind": "pattern", "pattern": "[0-9]{4}", "where": "output", "action": "flag"}]


@pytest.fixture
def policy(acme: Tenant) -> ContentPolicy:
    return policies.create(acme, "secrets", **BY)


def publish(policy: ContentPolicy, rules: list[Any] = ONE) -> ContentPolicyVersion:
    policies.save_draft(policy, rules, **BY)
    return policies.publish(policy, **BY)


def named(tenant: Tenant | None, name: str) -> ContentPolicy:
    policy = policies.create(tenant, name, **BY)
    publish(policy)
    return policy


def events() -> list[tuple[Any, ...]]:
    return list(AuditEvent.objects.order_by("sequence").values_list("verb", "target", "tenant_slug", "before", "after"))


def published(store: redis.Redis, tenant: Tenant) -> dict[str, Policy]:
    return dict(load_tenant(store.get(tenant_key(str(tenant.pk)))).policies)


def test_only_what_is_published_reaches_the_gateways(store: redis.Redis, acme: Tenant, policy: ContentPolicy) -> None:
    policies.save_draft(policy, ONE, **BY)
    assert published(store, acme) == {}
    policies.publish(policy, **BY)
    assert published(store, acme) == {"secrets": Policy("secrets", 1, parse_rules(ONE))}
    before = store.xlen(CHANGES)
    policies.save_draft(policy, TWO, **BY)
    policies.discard_draft(policy, **BY)
    policies.save_draft(policy, TWO, **BY)
    assert store.xlen(CHANGES) == before
    policies.publish(policy, **BY)
    policies.set_everywhere(policy, True, **BY)
    assert published(store, acme) == {"secrets": Policy("secrets", 2, parse_rules(TWO), is_everywhere=True)}
    policies.roll_back(policy, 1, **BY)
    assert published(store, acme)["secrets"].version == 1
    policies.delete(policy, **BY)
    assert published(store, acme) == {}


def test_platforms_policies_are_in_its_document(store: redis.Redis, acme: Tenant) -> None:
    policy = policies.create(None, "secrets", is_everywhere=True, **BY)
    publish(policy)
    expected = {"secrets": Policy("secrets", 1, parse_rules(ONE), is_everywhere=True, holder="platform")}
    assert load_platform(store.get(PLATFORM), encryption.decrypt).policies == expected
    acme.save()
    assert published(store, acme) == {}


def test_names_on_aliases_and_keys_are_published(store: redis.Redis, acme: Tenant, general: ModelAlias) -> None:
    key, _ = issuing.issue(acme, issuing.Terms("ci", policies=["b", "a"]), **BY)
    assert load_key(store.get(key_key(key.lookup_id))).policies == ("a", "b")
    general.policies = ["b"]
    general.save()
    assert load_tenant(store.get(tenant_key(str(acme.pk)))).aliases["general"].policies == ("b",)


def test_every_verb_leaves_one_event(policy: ContentPolicy) -> None:
    publish(policy)
    publish(policy, TWO)
    policies.roll_back(policy, 1, **BY)
    assert policies.set_everywhere(policy, True, **BY)
    assert not policies.set_everywhere(policy, True, **BY)
    policies.save_draft(policy, TWO, **BY)
    policies.discard_draft(policy, **BY)
    policies.delete(policy, **BY)
    about = ("policy acme/secrets", "acme")
    assert events() == [
        ("policy.created", *about, None, {"everywhere": False}),
        ("policy.drafted", *about, None, {"version": 1, "rules": 1}),
        ("policy.published", *about, None, {"version": 1}),
        ("policy.drafted", *about, None, {"version": 2, "rules": 2}),
        ("policy.published", *about, {"version": 1}, {"version": 2}),
        ("policy.rolled_back", *about, {"version": 2}, {"version": 1}),
        ("policy.changed", *about, {"everywhere": False}, {"everywhere": True}),
        ("policy.drafted", *about, None, {"version": 3, "rules": 2}),
        ("policy.draft_discarded", *about, {"version": 3, "rules": 2}, None),
        ("policy.deleted", *about, {"version": 1}, None),
    ]


def test_platforms_policy_is_no_tenants_in_the_audit_trail(db: None) -> None:
    policies.create(None, "secrets", **BY)
    assert events() == [("policy.created", "policy secrets", "", None, {"everywhere": False})]


def test_draft_is_saved_over_and_numbered_when_published(policy: ContentPolicy) -> None:
    publish(policy)
    first = policies.save_draft(policy, ONE, **BY)
    again = policies.save_draft(policy, TWO, actor=None, actor_label="another")
    assert (again.pk, again.number, again.rules, again.created_by) == (first.pk, 2, TWO, "another")
    policies.put(policy, ONE, created_by="apply")  # past the draft
    assert policies.publish(policy, **BY).number == 4
    assert list(policy.versions.order_by("number").values_list("number", "is_draft")) == [(1, False), (3, False), (4, False)]


@pytest.mark.parametrize(
    "rules",
    [
        None,
        {},
        [{"kind": "magic", "where": ["input"], "action": "block"}],
        [{"kind": "pattern", "pattern": "(", "where": ["input"], "action": "block"}],
        [{"kind": "keywords", "words": ["a\x00b"], "where": ["input"], "action": "block"}],
        [{"kind": "keywords", "words": ["\ud800"], "where": ["input"], "action": "block"}],
        [{"kind": "size", "max_characters": float("nan"), "where": ["input"], "action": "block"}],
    ],
)
def test_bad_rules_are_refused_and_nothing_is_written(policy: ContentPolicy, rules: Any) -> None:
    before = events()
    with pytest.raises(RulesRefused):
        policies.save_draft(policy, rules, **BY)
    assert not ContentPolicyVersion.objects.exists()
    assert events() == before


def test_text_that_only_looks_like_an_escape_is_kept(policy: ContentPolicy) -> None:
    rules = [{**ONE[0], "words": ["a\\u0000", "😀"]}]
    publish(policy, rules)
    assert ContentPolicyVersion.objects.get().rules == rules


def test_what_cannot_be_is_said(policy: ContentPolicy) -> None:
    before = events()
    for verb in (policies.publish, policies.discard_draft):
        with pytest.raises(PolicyError, match="“secrets” has no draft"):
            verb(policy, **BY)
    assert events() == before
    publish(policy)
    policies.save_draft(policy, TWO, **BY)
    for number in (0, 2, 9):
        with pytest.raises(PolicyError, match=f"has no published version {number}"):
            policies.roll_back(policy, number, **BY)
    with pytest.raises(PolicyError, match="is at version 1 already"):
        policies.roll_back(policy, 1, **BY)


def test_rules_of_another_release_are_not_published_again(policy: ContentPolicy) -> None:
    newer = policy.versions.create(number=1, rules=[{"kind": "hologram"}], created_by="test")
    with pytest.raises(RulesRefused):
        policies.roll_back(policy, newer.number, **BY)


def test_rules_of_another_release_let_no_call_pass(store: redis.Redis, acme: Tenant, policy: ContentPolicy) -> None:
    policies.put(policy, [*ONE, {"kind": "hologram", "where": ["input"], "action": "block"}], created_by="test")
    assert published(store, acme) == {"secrets": Policy("secrets", 1, (), is_readable=False)}


def test_name_is_taken_once_by_each_tenant_and_the_platform(policy: ContentPolicy, acme: Tenant, globex: Tenant) -> None:
    for tenant in (globex, None):
        policies.create(tenant, "secrets", **BY)
    for tenant in (acme, globex, None):
        with pytest.raises(ValidationError):
            policies.create(tenant, "secrets", **BY)
        with pytest.raises(IntegrityError), transaction.atomic():
            ContentPolicy.objects.create(tenant=tenant, name="secrets")
    for name in ("", "-a", "a b", "x" * 65, "a/b"):
        with pytest.raises(ValidationError):
            policies.create(acme, name, **BY)
        with pytest.raises(IntegrityError), transaction.atomic():
            ContentPolicy.objects.create(tenant=acme, name=name[:64].replace("x", "/"))


def test_version_never_changes_and_is_never_deleted(policy: ContentPolicy) -> None:
    publish(policy)
    rows = ContentPolicyVersion.objects.all()
    for change in ({"rules": TWO}, {"number": 7}, {"is_draft": True}, {"created_by": "another"}):
        with pytest.raises(IntegrityError, match="never changed or deleted"), transaction.atomic():
            rows.update(**change)
    with connection.cursor() as cursor, pytest.raises(IntegrityError, match="never changed"), transaction.atomic():
        cursor.execute("DELETE FROM gateway_contentpolicyversion")
    publish(policy, TWO)
    with pytest.raises(IntegrityError, match="never changed or deleted"), transaction.atomic():
        rows.filter(number=1).delete()
    assert [(version.number, version.rules) for version in rows] == [(1, ONE), (2, TWO)]


def test_versions_go_with_their_policy_and_that_with_its_tenant(policy: ContentPolicy, acme: Tenant, globex: Tenant) -> None:
    kept = named(globex, "kept")
    publish(policy)
    policies.save_draft(policy, TWO, **BY)
    acme.delete()
    assert list(ContentPolicyVersion.objects.values_list("policy__name", flat=True)) == ["kept"]
    policies.delete(kept, **BY)
    assert not ContentPolicyVersion.objects.exists()


def test_policy_publishes_a_version_of_its_own_that_is_no_draft(policy: ContentPolicy, globex: Tenant) -> None:
    theirs = named(globex, "theirs").published
    draft = policies.save_draft(policy, ONE, **BY)
    for version in (theirs, draft):
        with pytest.raises(IntegrityError, match="one of its own versions"), transaction.atomic():
            ContentPolicy.objects.filter(pk=policy.pk).update(published=version)


def test_database_keeps_one_draft_and_numbers_from_one(policy: ContentPolicy) -> None:
    policies.save_draft(policy, ONE, **BY)
    for facts in ({"number": 2, "is_draft": True}, {"number": 0}, {"number": 1}):
        with pytest.raises(IntegrityError), transaction.atomic():
            policy.versions.create(rules=[], created_by="test", **facts)


def test_of_drafts_at_once_one_is_left(policy: ContentPolicy) -> None:
    def save(_: int) -> None:
        try:
            policies.save_draft(ContentPolicy.objects.get(), ONE, **BY)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(save, range(4)))
    assert list(policy.versions.values_list("number", "is_draft")) == [(1, True)]


def test_policy_in_use_is_not_deleted(policy: ContentPolicy, acme: Tenant, general: ModelAlias) -> None:
    publish(policy)
    general.policies = ["secrets"]
    general.full_clean()
    general.save()
    key, _ = issuing.issue(acme, issuing.Terms("ci", policies=["secrets"]), **BY)
    before = events()
    with pytest.raises(ProtectedError) as caught:
        policies.delete(policy, **BY)
    said = "“secrets” is used by: alias acme/general, key acme/ci. Take its name out there first."
    assert str(caught.value.args[0]) == said
    assert events() == before
    new, _ = issuing.rotate(key, overlap=timedelta(), **BY)
    assert new.policies == ["secrets"]
    issuing.revoke(new, **BY)
    assert policy.users() == ["alias acme/general"]
    general.policies = []
    general.save()
    policies.delete(policy, **BY)
    assert not ContentPolicy.objects.exists()


def test_last_policy_of_a_name_is_the_one_that_is_kept(acme: Tenant, globex: Tenant, general: ModelAlias) -> None:
    platform, own = named(None, "secrets"), named(acme, "secrets")
    named(globex, "secrets")
    general.policies = ["secrets"]
    general.save()
    assert (platform.users(), own.users()) == ([], [])
    policies.delete(own, **BY)
    assert platform.users() == ["alias acme/general"]
    issuing.issue(globex, issuing.Terms("theirs", policies=["secrets"]), **BY)
    assert platform.users() == ["alias acme/general"]


def test_draft_replaces_no_policy_that_is_in_use(acme: Tenant, general: ModelAlias) -> None:
    platform = named(None, "secrets")
    policies.create(acme, "secrets", **BY)
    general.policies = ["secrets"]
    general.save()
    assert platform.users() == ["alias acme/general"]


def test_alias_names_what_its_tenant_or_the_platform_publishes(acme: Tenant, globex: Tenant, general: ModelAlias) -> None:
    named(None, "platforms")
    named(acme, "own")
    named(globex, "theirs")
    policies.create(acme, "drafted", **BY)
    general.policies = ["own", "platforms"]
    general.full_clean()
    for name in ("theirs", "drafted", "nowhere"):
        general.policies = ["own", name]
        with pytest.raises(ValidationError) as caught:
            general.full_clean()
        said = f"No such policy is published: {name}. There are: own, platforms."
        assert caught.value.message_dict == {"policies": [said]}
