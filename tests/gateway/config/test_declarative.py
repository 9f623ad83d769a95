"""The configuration file: applied, applied again, refused, pruned, exported."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from accounts import issuing
from accounts.keys import is_minted, mint
from accounts.models import ApiKey, AuditEvent, Membership, Tenant, User
from gateway.config import policies, quota_plans
from gateway.config.declarative import Report, apply, export
from gateway.config.documents import CHANGES, key_key, load_key
from gateway.config.publish import publish_all
from gateway.config.source import InvalidFile
from gateway.models import (
    Backend,
    ConfigChange,
    ContentPolicy,
    ContentPolicyVersion,
    Deployment,
    Limit,
    ModelAlias,
    PoolMember,
)
from usage import limits

pytestmark = pytest.mark.django_db
ENVIRONMENT = {"VLLM_KEY": "backend-credential", "CI_KEY": "ci-key-taken-over-from-elsewhere", "ODD": "with a space"}
FULL = """\
backends:
  - {name: gpu-1, url: "http://127.0.0.1:9001/v1/", api_key_env: VLLM_KEY}
  - {name: gpu-2, url: "http://127.0.0.1:9002", draining: true}
deployments:
  - name: tiny
    served_model: tiny-model
    max_model_len: 4096
    schedules_by_priority: true
    max_concurrent_calls: 64
    fallback: small
    context_fallback: large
    first_token_max_s: 30
    stall_max_s: 7.5
    queue_max_s: 0
    backends: [{backend: gpu-1, weight: 3}, {backend: gpu-2, tier: 1, max_concurrent_calls: 8}]
  - {name: small, served_model: small-model, context_fallback: large, backends: [{backend: gpu-2}]}
  - {name: large, served_model: large-model, max_model_len: 131072, backends: [{backend: gpu-1}]}
policies:
  - name: secrets
    everywhere: true
    rules:
      - {kind: keywords, words: [機密コード, ALPHA-77], where: [input, output], action: block}
  - name: calm
    rules: [{kind: pattern, pattern: "案件[A-Z]{3}-[0-9]{2}", where: output.content, action: redact}]
tenants:
  - slug: acme
    name: Acme
    error_dialect: detail
    unknown_fields: reject
    time_zone: Asia/Tokyo
    priority: 5
    cors_origins: ["https://app.example.com"]
    store_out: degraded
    usage_retention_days: 100
    limits: {money_per_month: "12.50", tokens_per_month: 5000000, shadow: [tokens_per_month]}
    policies:
      - name: own
        rules: [{kind: keywords, name: words, words: [beta], where: [input.user], action: flag}]
    aliases:
      - name: general
        deployment: tiny
        canary: small
        canary_percent: 5
        max_output_tokens: 512
        display_name: {en: General, ja: 汎用}
        description: {en: "For everything"}
        max_choices: 2
        max_stops: 16
        grants: [prompt_logprobs]
        defaults: {temperature: 0.2, chat_template_kwargs: {thinking: false}}
        price: {prompt: "0.50", cached: "0.05", completion: "1.50"}
        limits: {requests_per_minute: 60}
        policies: [own, calm]
      - {name: org/model-1.5:latest, deployment: tiny}
    keys:
      - {name: ci, secret_env: CI_KEY, scopes: [models, chat], aliases: [general], networks: [192.0.2.0/24, "2001:db8::/32"]}
      - name: minted
        expires_at: 2099-01-31T00:00:00+09:00
        error_dialect: both
        limits: {tokens_per_hour: 50000, concurrent_requests: 4, clamp: [tokens_per_hour]}
        policies: [own]
    members: [{email: A@Example.com, role: admin}]
"""

Apply = Callable[..., Report]


@pytest.fixture
def apply_text(tmp_path: Path) -> Apply:
    def run(text: str, **options: Any) -> Report:
        path = tmp_path / "sekisho.yaml"
        path.write_text(text)
        return apply(path, secret_of=ENVIRONMENT.get, **options)

    return run


def lines(report: Report) -> list[str]:
    return [str(change) for change in report.changes]


def problems(apply_text: Apply, text: str, **options: Any) -> list[str]:
    with pytest.raises(InvalidFile) as caught:
        apply_text(text, **options)
    return [str(problem) for problem in caught.value.problems]


def configured(subject: Tenant | ModelAlias | ApiKey) -> set[limits.Limit]:
    return {row.configured for row in subject.limits.all()}


def rows() -> dict[str, list[dict[str, Any]]]:
    """Everything there is, to compare before and after."""
    models = (
        *(Backend, Deployment, PoolMember, Tenant, ModelAlias, ApiKey, Limit, ContentPolicy, ContentPolicyVersion),
        *(Membership, User, AuditEvent, ConfigChange),
    )
    return {model.__name__: list(model.objects.order_by("pk").values()) for model in models}


def test_whole_file_becomes_rows(apply_text: Apply) -> None:
    report = apply_text(FULL)
    assert lines(report) == [
        "+ backend gpu-1",
        "+ backend gpu-2",
        "+ deployment tiny",
        "+ deployment small",
        "+ deployment large",
        "+ policy secrets",
        "+ policy calm",
        "+ tenant acme",
        "+ policy acme/own",
        "+ alias acme/general",
        "+ alias acme/org/model-1.5:latest",
        "+ key acme/ci (imported)",
        "+ key acme/minted (minted)",
        "+ member acme/a@example.com",
    ]
    [minted] = report.minted
    assert (minted.tenant, minted.name) == ("acme", "minted")
    assert is_minted(minted.text)
    assert minted.text not in repr(report)
    backend = Backend.objects.get(name="gpu-1")
    assert (backend.url, backend.credential) == ("http://127.0.0.1:9001", "backend-credential")
    assert list(Backend.objects.values_list("is_draining", flat=True)) == [False, True]
    pool = PoolMember.objects.filter(deployment__name="tiny").order_by("backend__name")
    places = list(pool.values_list("backend__name", "weight", "tier", "max_concurrent_calls"))
    assert places == [("gpu-1", 3, 0, None), ("gpu-2", 1, 1, 8)]
    tiny = Deployment.objects.get(name="tiny")
    assert (tiny.fallback.name, tiny.context_fallback.name, tiny.max_concurrent_calls) == ("small", "large", 64)
    assert (tiny.first_token_max_s, tiny.stall_max_s, tiny.queue_max_s) == (30.0, 7.5, 0.0)
    tenant = Tenant.objects.get(slug="acme")
    assert (tenant.error_dialect, tenant.unknown_fields, tenant.priority) == ("detail", "reject", 5)
    assert tenant.cors_origins == ["https://app.example.com"]
    assert (tenant.store_out, tenant.usage_retention_days) == ("degraded", 100)
    money, tokens = limits.Limit("money_per_month", 12_500_000_000), limits.Limit("tokens_per_month", 5_000_000, "shadow")
    assert configured(tenant) == {money, tokens}
    general = ModelAlias.objects.get(name="general")
    assert (general.deployment.name, general.canary.name, general.canary_percent) == ("tiny", "small", 5)
    assert general.display_name == {"en": "General", "ja": "汎用"}
    assert general.defaults == {"temperature": 0.2, "chat_template_kwargs": {"thinking": False}}
    assert (general.max_choices, general.max_stops, general.grants) == (2, 16, ["prompt_logprobs"])
    prices = (general.price_prompt, general.price_cached, general.price_completion)
    assert prices == (Decimal("0.5"), Decimal("0.05"), Decimal("1.5"))
    assert configured(general) == {limits.Limit("requests_per_minute", 60)}
    ci = ApiKey.objects.get(name="ci")
    assert configured(ci) == set()
    assert (ci.is_imported, ci.scopes, ci.aliases) == (True, ["chat", "models"], ["general"])
    key = ApiKey.objects.get(name="minted")
    assert (key.expires_at.isoformat(), key.error_dialect) == ("2099-01-30T15:00:00+00:00", "both")
    hourly = limits.Limit("tokens_per_hour", 50_000, clamps=True)
    assert configured(key) == {hourly, limits.Limit("concurrent_requests", 4)}
    member = Membership.objects.get()
    assert (member.user.email, member.role, member.user.has_usable_password()) == ("a@example.com", "admin", False)


def test_every_write_is_audited_without_secrets(apply_text: Apply) -> None:
    report = apply_text(FULL)
    events = list(AuditEvent.objects.order_by("sequence"))
    assert {event.actor_label for event in events} == {"command: apply"}
    verbs = [event.verb for event in events]
    assert verbs == [
        *["backend.created"] * 2,
        *["deployment.created"] * 3,
        *["policy.created"] * 2,
        "tenant.created",
        "policy.created",
        *["alias.created"] * 2,
        "key.imported",
        "key.issued",
        "user.created",
        "member.created",
    ]
    told = repr([(event.target, event.before, event.after) for event in events])
    for secret in (*ENVIRONMENT.values(), report.minted[0].text):
        assert secret not in told
    assert events[9].tenant_slug == "acme"
    assert events[7].after["limits.tokens_per_month"] == "5000000 shadow"
    limits = {name: value for name, value in events[12].after.items() if name.startswith("limits.")}
    assert limits == {"limits.tokens_per_hour": "50000 clamp", "limits.concurrent_requests": "4"}
    apply_text("backends: [{name: gpu-1, url: 'http://127.0.0.1:9001', api_key: other}]")
    event = AuditEvent.objects.first()
    assert (event.verb, event.before, event.after) == ("backend.changed", {"credential": "***"}, {"credential": "***"})


@pytest.mark.django_db(transaction=True)
def test_second_apply_changes_nothing(valkey: redis.Redis, apply_text: Apply) -> None:
    apply_text(FULL)
    before, published = rows(), valkey.xlen(CHANGES)
    report = apply_text(FULL)
    assert (report.changes, report.minted) == ((), ())
    assert rows() == before
    assert valkey.xlen(CHANGES) == published > 0


@pytest.mark.django_db(transaction=True)
def test_dry_run_shows_the_same_and_writes_nothing(valkey: redis.Redis, apply_text: Apply) -> None:
    before = rows()
    preview = apply_text(FULL, dry_run=True)
    assert rows() == before
    assert preview.minted == ()
    assert not valkey.keys("sekisho:config:*")
    assert lines(preview) == lines(apply_text(FULL))


def test_diff_shows_what_changes(apply_text: Apply) -> None:
    apply_text(FULL)
    changed = FULL
    for old, new in {
        "ALPHA-77": "ALPHA-78",
        "    everywhere: true\n": "    everywhere: false\n",
        "policies: [own, calm]": "policies: [calm]",
        "        policies: [own]\n": "        policies: []\n",
        "9002": "9003",
        "draining: true": "draining: false",
        "max_concurrent_calls: 64": "max_concurrent_calls: null",
        "fallback: small": "fallback: null",
        "first_token_max_s: 30": "first_token_max_s: 60",
        "stall_max_s: 7.5": "stall_max_s: null",
        "canary_percent: 5": "canary_percent: 20",
        "canary: small": "canary: large",
        "max_concurrent_calls: 8}": "max_concurrent_calls: 9}",
        "weight: 3": "weight: 4",
        "max_model_len: 4096": "max_model_len: null",
        "priority: 5": "is_active: false",
        "max_output_tokens: 512": "max_output_tokens: 1024",
        "name: Acme": "name: Acme Ltd",
        "{temperature: 0.2, chat_template_kwargs: {thinking: false}}": "{}",
        "aliases: [general], ": "aliases: null, ",
        "2099-01-31T00:00:00+09:00": "null",
        "role: admin": "role: viewer",
        "store_out: degraded": "store_out: closed",
        'money_per_month: "12.50"': "tokens_per_day: 1000",
        ", shadow: [tokens_per_month]": "",
        'price: {prompt: "0.50", cached: "0.05", completion: "1.50"}': "price: {prompt: 0.75, completion: 1.50}",
        "requests_per_minute: 60": "requests_per_minute: 30",
        "concurrent_requests: 4, clamp: [tokens_per_hour]": "shadow: [tokens_per_hour]",
    }.items():
        assert old in changed
        changed = changed.replace(old, new)
    expected = [
        "~ policy secrets everywhere true -> false",
        "~ policy secrets version 1 -> 2",
        '~ alias acme/general policies ["own", "calm"] -> ["calm"]',
        '~ key acme/minted policies ["own"] -> []',
        "~ backend gpu-2 url http://127.0.0.1:9002 -> http://127.0.0.1:9003",
        "~ deployment tiny max_model_len 4096 -> null",
        (
            '~ deployment tiny backends {"gpu-1": 3, "gpu-2": {"weight": 1, "tier": 1, "max_concurr… -> '
            '{"gpu-1": 4, "gpu-2": {"weight": 1, "tier": 1, "max_concurr…'
        ),
        "~ backend gpu-2 draining true -> false",
        "~ deployment tiny max_concurrent_calls 64 -> null",
        "~ deployment tiny fallback small -> null",
        "~ deployment tiny first_token_max_s 30.0 -> 60.0",
        "~ deployment tiny stall_max_s 7.5 -> null",
        "~ alias acme/general canary_percent 5 -> 20",
        "~ alias acme/general canary small -> large",
        "~ tenant acme name Acme -> Acme Ltd",
        "~ tenant acme is_active true -> false",
        "~ alias acme/general max_output_tokens 512 -> 1024",
        '~ alias acme/general defaults {"temperature": 0.2, "chat_template_kwargs": {"thinking": f… -> {}',
        '~ key acme/ci aliases ["general"] -> null',
        "~ key acme/minted expires_at 2099-01-30T15:00:00+00:00 -> null",
        "~ member acme/a@example.com role admin -> viewer",
        "~ tenant acme store_out degraded -> closed",
        "~ tenant acme limits.tokens_per_day null -> 1000",
        "~ tenant acme limits.tokens_per_month 5000000 shadow -> 5000000",
        "~ tenant acme limits.money_per_month 12.5 -> null",
        "~ alias acme/general price.prompt 0.5 -> 0.75",
        "~ alias acme/general price.cached 0.05 -> null",
        "~ alias acme/general limits.requests_per_minute 60 -> 30",
        "~ key acme/minted limits.tokens_per_hour 50000 clamp -> 50000 shadow",
        "~ key acme/minted limits.concurrent_requests 4 -> null",
    ]
    assert sorted(lines(apply_text(changed))) == sorted(expected)
    assert apply_text(changed).changes == ()


def test_what_the_file_leaves_out_is_left_alone(apply_text: Apply) -> None:
    apply_text(FULL)
    before = rows()
    assert apply_text("backends: [{name: gpu-1, url: 'http://127.0.0.1:9001'}]\ntenants: [{slug: acme}]").changes == ()
    assert apply_text("tenants: [{slug: acme, keys: [{name: ci}, {name: minted}]}]").changes == ()
    assert rows() == before
    assert lines(apply_text("backends: [{name: gpu-1, url: 'http://127.0.0.1:9001', api_key: null}]")) == [
        "~ backend gpu-1 credential *** -> null"
    ]
    assert Backend.objects.get(name="gpu-1").credential is None


def test_given_limits_are_all_there_are(apply_text: Apply) -> None:
    apply_text(FULL)
    key, alias = ApiKey.objects.get(name="minted"), ModelAlias.objects.get(name="general")
    held = configured(key)
    assert apply_text("tenants: [{slug: acme, keys: [{name: ci}, {name: minted}]}]", prune=True).changes == ()
    assert configured(key) == held
    text = "tenants: [{slug: acme, keys: [{name: minted, limits: {concurrent_requests: 4}}]}]"
    assert lines(apply_text(text)) == ["~ key acme/minted limits.tokens_per_hour 50000 clamp -> null"]
    assert configured(key) == {limits.Limit("concurrent_requests", 4)}
    none = "tenants: [{slug: acme, limits: {}, aliases: [{name: general, deployment: tiny, limits: {}, price: null}]}]"
    assert lines(apply_text(none)) == [
        "~ tenant acme limits.tokens_per_month 5000000 shadow -> null",
        "~ tenant acme limits.money_per_month 12.5 -> null",
        "~ alias acme/general price.prompt 0.5 -> null",
        "~ alias acme/general price.cached 0.05 -> null",
        "~ alias acme/general price.completion 1.5 -> null",
        "~ alias acme/general limits.requests_per_minute 60 -> null",
    ]
    assert (configured(key.tenant), configured(alias)) == (set(), set())
    assert list(Limit.objects.values_list("key__name", flat=True)) == ["minted"]
    assert apply_text(none).changes == ()


def test_changed_limits_are_audited(apply_text: Apply) -> None:
    apply_text(FULL)
    apply_text("tenants: [{slug: acme, limits: {money_per_month: 12.5, tokens_per_month: 5000000}}]")
    event = AuditEvent.objects.order_by("-sequence").first()
    assert (event.verb, event.target, event.tenant_slug) == ("tenant.changed", "tenant acme", "acme")
    assert event.before == {"limits.tokens_per_month": "5000000 shadow"}
    assert event.after == {"limits.tokens_per_month": "5000000"}


@pytest.mark.django_db(transaction=True)
def test_limits_alone_are_published(valkey: redis.Redis, apply_text: Apply) -> None:
    apply_text(FULL)
    publish_all()
    key = ApiKey.objects.get(name="minted")
    before = valkey.xlen(CHANGES)
    apply_text("tenants: [{slug: acme, keys: [{name: minted, limits: {concurrent_requests: 5}}]}]")
    assert load_key(valkey.get(key_key(key.lookup_id))).limits == (limits.Limit("concurrent_requests", 5),)
    assert valkey.xlen(CHANGES) == before + 1


def test_export_applied_again_changes_nothing(apply_text: Apply) -> None:
    apply_text(FULL)
    rotated = ApiKey.objects.get(name="minted")
    issuing.rotate(rotated, overlap=timedelta(hours=1), actor=None, actor_label="test")
    ModelAlias.objects.create(tenant=rotated.tenant, name="removed", deployment=Deployment.objects.get(name="tiny"))
    apply_text("tenants: [{slug: acme, keys: [{name: ci, aliases: [removed]}]}]")
    ModelAlias.objects.get(name="removed").delete()  # the key still names it
    before, text = rows(), export()
    assert apply_text(text).changes == ()
    assert apply_text(text, prune=True).changes == ()
    assert rows() == before
    for secret in ENVIRONMENT.values():
        assert secret not in text
    [told] = yaml.safe_load(text)["tenants"]
    assert told["limits"] == {"tokens_per_month": 5_000_000, "money_per_month": "12.5", "shadow": ["tokens_per_month"]}
    assert told["aliases"][0]["price"] == {"prompt": "0.5", "cached": "0.05", "completion": "1.5"}
    assert (told["aliases"][1]["price"], told["aliases"][1]["limits"]) == (None, {})


def test_export_applied_elsewhere_makes_the_same(apply_text: Apply) -> None:
    apply_text(FULL)
    text = export()
    Deployment.objects.update(fallback=None, context_fallback=None)
    for model in (ModelAlias, PoolMember, Deployment, Backend, Tenant, ContentPolicy, User):
        model.objects.all().delete()
    assert yaml.safe_load(export()) == {"backends": [], "deployments": [], "policies": [], "tenants": []}
    assert {key.name for key in apply_text(text).minted} == {"ci", "minted"}
    assert export() == text


def test_rules_that_stay_the_same_make_no_version(apply_text: Apply) -> None:
    apply_text(FULL)
    text = "policies: [{name: calm, everywhere: true, rules: [%s]}]"
    same = '{where: output.content, kind: pattern, action: redact, pattern: "案件[A-Z]{3}-[0-9]{2}"}'
    assert lines(apply_text(text % same)) == ["~ policy calm everywhere false -> true"]
    assert apply_text(text % same).changes == ()
    assert lines(apply_text(text % same.replace("{3}", "{4}"))) == ["~ policy calm version 1 -> 2"]
    event = AuditEvent.objects.order_by("-sequence").first()
    assert (event.verb, event.target, event.tenant) == ("policy.changed", "policy calm", None)
    assert (event.before, event.after) == ({"version": 1}, {"version": 2})
    versions = ContentPolicyVersion.objects.filter(policy__name="calm").order_by("number")
    assert [(version.rules[0]["pattern"], version.created_by) for version in versions] == [
        ("案件[A-Z]{3}-[0-9]{2}", "command: apply"),
        ("案件[A-Z]{4}-[0-9]{2}", "command: apply"),
    ]


def test_draft_is_left_to_whoever_writes_it(apply_text: Apply) -> None:
    apply_text(FULL)
    policy = ContentPolicy.objects.get(name="calm")
    policies.save_draft(policy, [], actor=None, actor_label="test")
    policies.create(None, "begun", actor=None, actor_label="test")
    text = export()
    assert apply_text(text, prune=True).changes == ()
    assert [row["name"] for row in yaml.safe_load(text)["policies"]] == ["calm", "secrets"]
    assert lines(apply_text("policies: [{name: calm, rules: []}]")) == ["~ policy calm version 1 -> 3"]
    assert policy.versions.get(is_draft=True).number == 2
    assert lines(apply_text("policies: [{name: begun, rules: []}]")) == ["~ policy begun version null -> 1"]


def test_policies_that_are_named_are_not_pruned(apply_text: Apply) -> None:
    apply_text(FULL)
    text = "policies: []\ntenants:\n- {slug: acme, policies: []}\n- {slug: globex}"
    assert problems(apply_text, text, prune=True) == [
        'policies: cannot remove the policy "calm", it is still used: alias acme/general (line 1)',
        (
            'tenants[0].policies: cannot remove the policy "acme/own", it is still used: '
            "alias acme/general, key acme/minted (line 3)"
        ),
    ]
    bare = "aliases: [{name: general, deployment: tiny, policies: []}], keys: [{name: minted, policies: []}]"
    pruned = f"policies: []\ntenants: [{{slug: acme, policies: [], {bare}}}]"
    removed = lines(apply_text(pruned, prune=True))
    assert [line for line in removed if "policy" in line] == ["- policy acme/own", "- policy calm", "- policy secrets"]
    assert not ContentPolicy.objects.exists()
    verbs = AuditEvent.objects.filter(verb="policy.deleted").order_by("sequence")
    assert [event.target for event in verbs] == ["policy acme/own", "policy calm", "policy secrets"]


def test_policy_is_moved_from_a_tenant_to_the_platform(apply_text: Apply) -> None:
    """In one go, while it is used: what the tenant's name meant, the platform's means then."""
    apply_text(FULL)
    text = "policies: [{name: own, rules: []}, {name: calm, rules: []}]\ntenants: [{slug: acme, policies: []}]"
    changes = lines(apply_text(text, prune=True))
    assert [line for line in changes if line.endswith("own")] == ["+ policy own", "- policy acme/own"]


def test_everything_wrong_with_rules_is_told_where_it_stands(apply_text: Apply) -> None:
    text = """\
policies:
  - name: a
    everywhere: maybe
    rules:
      - kind: keywords
        words:
          - good
          - ""
        where: [input, elsewhere]
        action: block
      - {kind: pattern, pattern: "(", where: [input], action: stop, patern: x}
      - words: [a]
  - {name: a b, rules: [[]]}
  - {name: c}
  - {name: d, rules: {kind: size}}
tenants:
  - slug: acme
    policies: [{name: own, rules: [{kind: keywords, words: [2027-01-31], where: input, action: flag}]}]
    keys: [{name: ci, policies: [own, nowhere]}]
"""
    told = problems(apply_text, text)
    for number, problem in {
        3: "policies[0].everywhere: must be true or false (line 3)",
        8: "policies[0].rules[0].words[1]: must be a text of 1 to 200 characters. (line 8)",
        9: "policies[0].rules[0].where[1]: must be one of input, output",
        11: "policies[0].rules[1].action: must be one of block, redact, flag. (line 11)",
        12: "policies[0].rules[2].kind: must be one of keywords, pattern",
        13: "policies[1].rules[0]: must be a mapping",
        14: 'policies[2]: "rules" is missing (line 14)',
        15: "policies[3].rules: must be a list of rules. (line 15)",
        18: "policies[0].rules: must hold what JSON can hold; write dates in quotes. (line 18)",
        19: 'tenants[0].keys[0].policies[1]: no policy named "nowhere" (line 19); known: a, a b, c, d, own',
    }.items():
        assert any(problem in line and f"(line {number})" in line for line in told), (problem, told)
    assert any("rules[1].pattern" in line for line in told), told
    assert any("rules[1].patern" in line for line in told), told
    assert not ContentPolicy.objects.exists()


def test_tenant_names_its_own_policies_and_the_platforms_alone(apply_text: Apply) -> None:
    apply_text(FULL)
    text = "tenants: [{slug: globex, aliases: [{name: a, deployment: tiny, policies: [secrets, own]}]}]"
    assert problems(apply_text, text) == [
        'tenants[0].aliases[0].policies[1]: no policy named "own" (line 1); known: calm, secrets'
    ]


def test_revoked_key_of_the_name_is_minted_anew_but_its_text_never_returns(apply_text: Apply) -> None:
    apply_text(FULL)
    for key in ApiKey.objects.all():
        issuing.revoke(key, actor=None, actor_label="test")
    [problem] = problems(apply_text, FULL)
    assert problem == "tenants[0].keys[0].secret_env: This key is here already. (line 56)"
    report = apply_text("tenants: [{slug: acme, keys: [{name: ci}]}]")
    assert [key.name for key in report.minted] == ["ci"]


def test_secret_of_a_key_is_never_changed(apply_text: Apply) -> None:
    apply_text(FULL)
    [problem] = problems(apply_text, f"tenants:\n- slug: acme\n  keys: [{{name: ci, secret: '{mint()}'}}]")
    assert problem.startswith('tenants[0].keys[0].secret: the key "ci" has another secret (line 3); rotate the key')


def test_minted_key_can_be_imported(apply_text: Apply) -> None:
    text = mint()
    apply_text(f"tenants: [{{slug: acme, keys: [{{name: moved, secret: {text}}}]}}]")
    assert not ApiKey.objects.get().is_imported
    assert apply_text(f"tenants: [{{slug: acme, keys: [{{name: moved, secret: {text}}}]}}]").changes == ()


def test_prune_removes_what_the_lists_no_longer_name(apply_text: Apply) -> None:
    apply_text(FULL + "  - {slug: globex, aliases: [{name: theirs, deployment: tiny}], keys: [{name: theirs}]}\n")
    pruned = """\
backends: [{name: gpu-1, url: "http://127.0.0.1:9001"}]
deployments: [{name: large, served_model: large, backends: [{backend: gpu-1}]}]
tenants:
  - slug: acme
    aliases: [{name: general, deployment: large, canary: null, canary_percent: 0}]
    keys: []
"""
    unpruned = lines(apply_text(pruned, dry_run=True))
    assert unpruned == [
        "~ deployment large served_model large-model -> large",
        "~ alias acme/general deployment tiny -> large",
        "~ alias acme/general canary small -> null",
        "~ alias acme/general canary_percent 5 -> 0",
    ]
    assert lines(apply_text(pruned, prune=True)) == [
        *unpruned,
        "- alias acme/org/model-1.5:latest",
        "- key acme/ci (revoked)",
        "- key acme/minted (revoked)",
        "- tenant globex",
        "- deployment tiny",  # before those it falls back to
        "- deployment small",
        "- backend gpu-2",
    ]
    assert ApiKey.objects.filter(revoked_at=None).count() == 0
    assert Membership.objects.count() == 1
    assert apply_text(pruned, prune=True).changes == ()


def test_prune_keeps_what_is_not_listed(apply_text: Apply) -> None:
    apply_text(FULL)
    assert apply_text("tenants: [{slug: acme}]", prune=True).changes == ()


def test_prune_refuses_what_is_still_used(apply_text: Apply) -> None:
    apply_text(FULL)
    before = rows()
    assert problems(apply_text, "backends: []\ndeployments: []\n", prune=True) == [
        'backends: cannot remove the backend "gpu-1", it is still used: gpu-1 in large, gpu-1 in tiny (line 1)',
        'backends: cannot remove the backend "gpu-2", it is still used: gpu-2 in small, gpu-2 in tiny (line 1)',
        'deployments: cannot remove the deployment "tiny", it is still used: general, org/model-1.5:latest (line 2)',
        'deployments: cannot remove the deployment "small", it is still used: general, tiny (line 2)',
        'deployments: cannot remove the deployment "large", it is still used: small, tiny (line 2)',
    ]
    assert rows() == before


def test_all_problems_are_told_at_once_with_their_lines(apply_text: Apply) -> None:
    text = """\
backends:
  - {name: gpu-1, url: "http://user:pass@127.0.0.1"}
  - {name: gpu-1, url: "http://127.0.0.1"}
deployments:
  - {name: tiny, served_model: tiny, backends: [{backend: gpu-9, weight: 5000, tier: 10}]}
  - {name: "b g", max_model_len: many}
tenant:
  - slug: acme
tenants:
  - slug: acme
    error_dialekt: openai
    aliases:
      - {name: general, deployment: tiny, max_stops: 65, max_choices: 0}
      - {name: special, deployment: tinyy, display_name: {fr: Général}, defaults: {model: x}}
    keys:
      - {name: ci, error_dialect: fly, aliases: [generl], networks: [everywhere], secret_env: MISSING}
      - {name: cd, secret: short, expires_at: 2027-01-31}
    members: [{email: nobody, role: king}]
"""
    assert problems(apply_text, text) == [
        "backends[0].url: A backend's URL holds no user or password: give the credential by itself. (line 2)",
        'backends[1].name: the backend "gpu-1" is here twice, first in line 2 (line 3)',
        'deployments[0].backends[0].backend: no backend named "gpu-9" (line 5); known: gpu-1',
        "deployments[0].backends[0].weight: Ensure this value is less than or equal to 1000. (line 5)",
        "deployments[0].backends[0].tier: Give a tier from 0, which is tried first, to 9. (line 5)",
        "deployments[1].max_model_len: must be a whole number (line 6)",
        'deployments[1]: "served_model" is missing (line 6)',
        "deployments[1].name: Use letters, digits, dots, underscores and hyphens; 64 characters at most. (line 6)",
        'tenant: unknown field (line 7); did you mean "tenants"?',
        'tenants[0].error_dialekt: unknown field (line 11); did you mean "error_dialect"?',
        "tenants[0].aliases[0].max_choices: Ensure this value is greater than or equal to 1. (line 13)",
        "tenants[0].aliases[0].max_stops: Ensure this value is less than or equal to 64. (line 13)",
        'tenants[0].aliases[1].deployment: no deployment named "tinyy" (line 14); known: b g, tiny',
        "tenants[0].aliases[1].display_name: No such language: fr. There are: en, ja. (line 14)",
        "tenants[0].aliases[1].defaults: model is not a field that an alias can set. (line 14)",
        'tenants[0].keys[0].error_dialect: there is no "fly" (line 16); known: both, detail, openai',
        "tenants[0].keys[0].networks[0]: “everywhere” is no network; an example is 192.0.2.0/24. (line 16)",
        'tenants[0].keys[0].aliases[0]: no alias named "generl" (line 16); known: general, special',
        "tenants[0].keys[0].secret_env: the environment variable MISSING is not set (line 16)",
        (
            "tenants[0].keys[1].expires_at: must be a moment, such as 2027-01-31T00:00:00Z (line 17); a time and a time zone "
            "are needed"
        ),
        "tenants[0].keys[1].secret: a key has 20 to 512 visible ASCII characters; one of Sekisho's is whole (line 17)",
        "tenants[0].members[0].email: Enter a valid email address. (line 18)",
        'tenants[0].members[0].role: there is no "king" (line 18); known: admin, developer, owner, viewer',
    ]
    assert not Backend.objects.exists()


DEPLOYMENT = "deployments:\n- name: a\n  served_model: a\n  "
TENANT = "tenants:\n- slug: acme\n  "


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "The file is empty. (line 1)"),
        ("# nothing\n", "The file is empty. (line 1)"),
        ("backends", "must be a mapping, such as {name: value} (line 1)"),
        ("- backends", "must be a mapping, such as {name: value} (line 1)"),
        ("backends:", "backends: must be a list (line 1)"),
        ("backends: {gpu: x}", "backends: must be a list (line 1)"),
        ("backends: [gpu]", "backends[0]: must be a mapping, such as {name: value} (line 1)"),
        ("backends: [{name: gpu}]", 'backends[0]: "url" is missing (line 1)'),
        ("a: 1\nb: [\n", "expected the node content, but found '<stream end>' (line 3)"),
        ("a: b: c", "mapping values are not allowed here (line 1)"),
        ("a: 1\n---\nb: 2", "but found another document (line 2)"),
        ("a: \x01", "holds a character that YAML does not allow (line 1)"),
        ("a: *nowhere", "found undefined alias 'nowhere' (line 1)"),
        ("backends: []\ndeployments: []\nbackends: []", "backends: is here twice, first in line 1 (line 3)"),
        (f"{TENANT}name: A\n  name: B", "tenants[0].name: is here twice, first in line 3 (line 4)"),
        (f"{TENANT}? [a]\n  : b", "tenants[0]: a name must be text (line 3)"),
        (f"{TENANT}name: no", "tenants[0].name: must be text (line 3); write it in quotes"),
        (f"{TENANT}name: 123", "tenants[0].name: must be text (line 3); write it in quotes"),
        (f"{TENANT}name: ''", "tenants[0].name: This field cannot be blank. (line 3)"),
        (f"{TENANT}name: {'x' * 101}", "tenants[0].name: Ensure this value has at most 100 characters (it has 101). (line 3)"),
        (f"{TENANT}name: !!python/object:os.system x", "tenants[0].name: cannot be read as a value (line 3)"),
        (f"{TENANT}priority: high", "tenants[0].priority: must be a whole number (line 3)"),
        (f"{TENANT}priority: true", "tenants[0].priority: must be a whole number (line 3)"),
        (f"{TENANT}priority: 99999", "tenants[0].priority: Ensure this value is less than or equal to 32767. (line 3)"),
        (f"{TENANT}is_active: 1", "tenants[0].is_active: must be true or false (line 3)"),
        (f"{TENANT}time_zone: Tokyo", "tenants[0].time_zone: “Tokyo” is no time zone; an example is Asia/Tokyo. (line 3)"),
        (
            f"{TENANT}error_dialect: japanese",
            'tenants[0].error_dialect: there is no "japanese" (line 3); known: both, detail, openai',
        ),
        (
            f"{TENANT}cors_origins: ['https://a.example', 'a.example']",
            "tenants[0].cors_origins[1]: An origin is like https://app.example.com, without a path. (line 3)",
        ),
        (
            f"{TENANT}cors_origins: ['https://a.example', 'https://a.example']",
            'tenants[0].cors_origins[1]: "https://a.example" is here twice (line 3)',
        ),
        ("tenants: [{slug: Acme}]", "tenants[0].slug: Use a-z, 0-9 and hyphens, 63 characters at most. (line 1)"),
        ("tenants: [{name: Acme}]", 'tenants[0]: "slug" is missing (line 1)'),
        (f"{TENANT}store_out: open", 'tenants[0].store_out: there is no "open" (line 3); known: closed, degraded'),
        (f"{TENANT}usage_retention_days: 0", "usage_retention_days: Ensure this value is greater than or equal to 1. (line 3)"),
        (
            f"{TENANT}limits:\n    tokens_per_hour: 1\n    token_per_day: 1",
            'tenants[0].limits.token_per_day: there is no such limit (line 5); did you mean "tokens_per_day"?',
        ),
        (f"{TENANT}limits:\n    tokens_per_hour: 0.5", "tenants[0].limits.tokens_per_hour: must be a whole number (line 4)"),
        (f"{TENANT}limits: null", "tenants[0].limits: must be a mapping, such as {name: value} (line 3)"),
        (
            f"{TENANT}keys: [{{name: a, limits: {{tokens_per_hour: -1}}}}]",
            "keys[0].limits.tokens_per_hour: must be above 0 (line 3)",
        ),
        (
            f"{TENANT}aliases: [{{name: a, deployment: b, price: {{prompt: free, completion: 1}}}}]",
            'aliases[0].price.prompt: must be an amount, such as "12.50" (line 3)',
        ),
        (
            f"{TENANT}aliases: [{{name: general, deployment: tiny}}]",
            'tenants[0].aliases[0].deployment: no deployment named "tiny" (line 3); there are none',
        ),
        (f"{TENANT}keys: [{{name: a, secret: x, secret_env: CI_KEY}}]", "give secret or secret_env, not both (line 3)"),
        (f"{TENANT}keys: [{{name: a, secret: 12345678901234567890}}]", "must be text of visible ASCII characters"),
        (f"{TENANT}keys: [{{name: a, secret_env: sk-x}}]", "must be the name of an environment variable, not its value"),
        (f"{TENANT}keys: [{{name: a, secret_env: ODD}}]", "ODD holds spaces or other than visible ASCII (line 3)"),
        (f"{TENANT}keys: [{{name: a, expires_at: 2027-13-45}}]", "expires_at: cannot be read as a value (line 3)"),
        (
            f"{TENANT}keys: [{{name: a, scopes: [chat, fly]}}]",
            'tenants[0].keys[0].scopes[1]: there is no "fly" (line 3); known: chat',
        ),
        (f"{TENANT}aliases: [{{name: a, deployment: b, grants: [magic]}}]", "aliases[0].grants[0]: “magic” cannot be granted."),
        (
            f"{TENANT}aliases: [{{name: a, deployment: b, defaults: {{temperature: 3}}}}]",
            "aliases[0].defaults: temperature must be",
        ),
        (f"{TENANT}keys: [{{name: a, expires_at: soon}}]", "must be a moment, such as 2027-01-31T00:00:00Z (line 3)"),
        (f"{TENANT}keys: [{{name: a, expires_at: 2020-01-31T00:00:00Z}}]", "expires_at: The expiry is in the past. (line 3)"),
        (f"{TENANT}is_active: false\n  keys: [{{name: a}}]", "The tenant “acme” is suspended: it gets no keys. (line 4)"),
        (
            f"{TENANT}keys: [{{name: a, secret_env: CI_KEY}},\n    {{name: b, secret_env: CI_KEY}}]",
            "tenants[0].keys[1].secret_env: This key is here already. (line 4)",
        ),
        pytest.param(f"{TENANT}name: {mint()}", "“name” holds an API key: mask it before it is recorded. (line 2)", id="key"),
        (
            "backends: [{name: a, url: 'http://a', api_key: x, api_key_env: VLLM_KEY}]",
            "backends[0].api_key: give api_key or api_key_env, not both (line 1)",
        ),
        ("backends: [{name: a, url: 'http://a', draining: yes please}]", "draining: must be true or false (line 1)"),
        (f"{DEPLOYMENT}fallback: b", 'deployments[0].fallback: no deployment named "b" (line 4); known: a'),
        (f"{DEPLOYMENT}context_fallback: [a]", "deployments[0].context_fallback: must be text (line 4); write it in quotes"),
        (f"{DEPLOYMENT}max_concurrent_calls: 0", "Give a ceiling of 1 call or more, or none for no ceiling. (line 4)"),
        (f"{DEPLOYMENT}first_token_max_s: 0", "first_token_max_s: Give 0.05 to 86400 seconds, or none for what the inst"),
        (f"{DEPLOYMENT}stall_max_s: 5m", "stall_max_s: must be a number of seconds, such as 2.5 (line 4)"),
        (f"{DEPLOYMENT}stall_max_s: .nan", "stall_max_s: must be a number of seconds, such as 2.5 (line 4)"),
        (f"{DEPLOYMENT}queue_max_s: -1", "queue_max_s: Give 0 (never wait) to 86400 seconds, or none for what the inst"),
        (f"{DEPLOYMENT}queue_max_s: true", "queue_max_s: must be a number of seconds, such as 2.5 (line 4)"),
        (
            f"backends: [{{name: g, url: 'http://g'}}]\n{DEPLOYMENT}backends: [{{backend: g, max_concurrent_calls: 0}}]",
            "backends[0].max_concurrent_calls: Give a ceiling of 1 call or more, or none for no ceiling. (line 5)",
        ),
        (
            f"{DEPLOYMENT}fallback: a",
            "deployments[0].fallback: Calls would go in a circle: a -> a. Leave one of these out. (line 4)",
        ),
        (
            f"{DEPLOYMENT}fallback: b\n- name: b\n  served_model: b\n  context_fallback: a",
            "deployments[1].context_fallback: Calls would go in a circle: b -> a -> b. Leave one of these out. (line 7)",
        ),
        (
            f"{DEPLOYMENT}max_model_len: 10\n  context_fallback: b\n- {{name: b, served_model: b, max_model_len: 9}}",
            "context_fallback: “b” takes 9 tokens, no more than the 10 of this one: name one that takes more. (line 5)",
        ),
        (
            f"{DEPLOYMENT}max_model_len: 1\n{TENANT}aliases: [{{name: a, deployment: a, canary: aa}}]",
            'tenants[0].aliases[0].canary: no deployment named "aa" (line 7); known: a',
        ),
        (
            f"{DEPLOYMENT}max_model_len: 1\n{TENANT}aliases: [{{name: a, deployment: a, canary_percent: 5}}]",
            "tenants[0].aliases[0]: A canary percent needs a canary: name its deployment, or give 0 percent. (line 7)",
        ),
        (
            f"{DEPLOYMENT}max_model_len: 1\n{TENANT}aliases: [{{name: a, deployment: a, canary: a, canary_percent: 101}}]",
            "aliases[0].canary_percent: Give the canary's share of the calls, from 0 to 100 percent. (line 7)",
        ),
        ("backends: [{name: a, url: 'http://a', api_key: 'x y'}]", "must be text of visible ASCII characters"),
    ],
)
def test_problem_is_told_with_its_line(apply_text: Apply, text: str, problem: str) -> None:
    told = problems(apply_text, text)
    assert any(problem in line for line in told), told
    assert not Tenant.objects.exists()
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize("secret", ["tiny-secret", "s p a c e d secret of mine"])
def test_secret_is_not_in_its_problem(apply_text: Apply, secret: str) -> None:
    told = problems(apply_text, f"{TENANT}keys: [{{name: a, secret: '{secret}'}}]")
    assert secret not in repr(told)


@pytest.mark.parametrize("defaults", ["{seed: .nan}", "{stop: 2027-01-31}", "[1]", "{Temperature: 1}", "{a: &x [*x]}"])
def test_defaults_must_be_request_fields(apply_text: Apply, defaults: str) -> None:
    text = "deployments: [{name: tiny, served_model: tiny}]\n"
    told = problems(apply_text, f"{text}{TENANT}aliases: [{{name: a, deployment: tiny, defaults: {defaults}}}]")
    assert all(line.startswith("tenants[0].aliases[0].defaults") for line in told), told


def test_anchors_are_understood(apply_text: Apply) -> None:
    apply_text(
        "deployments: [{name: tiny, served_model: tiny}]\n"
        f"{TENANT}aliases:\n"
        "  - {name: a, deployment: tiny, display_name: &both {en: A, ja: A}}\n"
        "  - {name: b, deployment: tiny, display_name: *both}\n"
    )
    assert ModelAlias.objects.get(name="b").display_name == {"en": "A", "ja": "A"}


def test_file_that_is_no_utf8_is_told(tmp_path: Path) -> None:
    path = tmp_path / "sekisho.yaml"
    path.write_bytes("tenants: [{slug: acme, name: 会社}]".encode("shift_jis"))
    with pytest.raises(InvalidFile, match="not UTF-8"):
        apply(path, secret_of=ENVIRONMENT.get)
    with pytest.raises(OSError, match="nowhere"):
        apply(tmp_path / "nowhere.yaml", secret_of=ENVIRONMENT.get)


def test_credential_whose_field_key_is_gone_is_replaced(apply_text: Apply, settings: Any) -> None:
    apply_text(FULL)
    settings.FIELD_KEYS = (("t2", "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI="),)
    assert lines(apply_text(FULL)) == ["~ backend gpu-1 credential null -> ***"]
    assert Backend.objects.get(name="gpu-1").credential == "backend-credential"


def test_examples_of_the_readme_are_applied(apply_text: Apply) -> None:
    examples = (Path(__file__).parents[3] / "README.md").read_text().split("```yaml\n")[1:]
    assert len(examples) == 2
    for example in examples:
        assert apply_text(example.partition("```")[0]).changes


def test_switch_of_a_backend_is_left_alone_where_the_file_does_not_name_it(apply_text: Apply) -> None:
    apply_text(FULL)
    assert apply_text("backends: [{name: gpu-2, url: 'http://127.0.0.1:9002'}]").changes == ()
    assert Backend.objects.get(name="gpu-2").is_draining
    resumed = "backends: [{name: gpu-2, url: 'http://127.0.0.1:9002', draining: false}]"
    assert lines(apply_text(resumed)) == ["~ backend gpu-2 draining true -> false"]
    event = AuditEvent.objects.order_by("-sequence").first()
    assert (event.verb, event.before, event.after) == ("backend.changed", {"draining": True}, {"draining": False})


def test_fallbacks_may_be_turned_round(apply_text: Apply) -> None:
    """In one go: judged is where it ends, not the steps between."""
    there = "deployments: [{name: a, served_model: a, fallback: b}, {name: b, served_model: b, fallback: null}]"
    back = "deployments: [{name: a, served_model: a, fallback: null}, {name: b, served_model: b, fallback: a}]"
    apply_text(there)
    assert lines(apply_text(back)) == ["~ deployment a fallback b -> null", "~ deployment b fallback null -> a"]
    assert apply_text(there).changes
    assert apply_text("deployments: []", prune=True).changes
    assert not Deployment.objects.exists()


def test_circle_through_deployments_outside_the_file_is_refused(apply_text: Apply) -> None:
    apply_text("deployments: [{name: a, served_model: a, fallback: b}, {name: b, served_model: b}]")
    told = problems(apply_text, "deployments:\n- name: b\n  served_model: b\n  fallback: a")
    assert "deployments[0].fallback: Calls would go in a circle: b -> a -> b. Leave one of these out. (line 4)" in told
    assert Deployment.objects.get(name="b").fallback is None


def test_context_that_another_relied_on_is_told(apply_text: Apply) -> None:
    large = "{name: large, served_model: l, max_model_len: 4096}"
    apply_text(f"deployments: [{{name: a, served_model: a, max_model_len: 2048, context_fallback: large}}, {large}]")
    assert problems(apply_text, "deployments: [{name: large, served_model: l, max_model_len: 2048}]") == [
        (
            "deployments: “large” takes 2048 tokens, no more than the 2048 of this one: name one that takes more. (line 1); "
            'this is of the deployment "a"'
        )
    ]


def test_canary_is_taken_away_together_with_its_percent(apply_text: Apply) -> None:
    apply_text(FULL)
    text = "tenants: [{slug: acme, aliases: [{name: general, deployment: tiny, canary: null%s}]}]"
    [problem] = problems(apply_text, text % "")
    assert problem.startswith("tenants[0].aliases[0]: A canary percent needs a canary")
    apply_text(text % ", canary_percent: 0")
    assert ModelAlias.objects.get(name="general").canary is None


def test_other_limits_take_a_tenant_off_its_plan_and_say_so(apply_text: Apply) -> None:
    text = "tenants: [{slug: acme, name: Acme, limits: {tokens_per_day: %d}}]"
    apply_text(text % 5)
    plan = quota_plans.create("trial", [limits.Limit("tokens_per_day", 5)], actor=None, actor_label="test")
    quota_plans.put(Tenant.objects.get(), plan, actor=None, actor_label="test")
    assert not apply_text(text % 5).changes
    assert plan.tenants.exists()
    assert lines(apply_text(text % 6)) == ["~ tenant acme limits.tokens_per_day 5 -> 6", "~ tenant acme plan trial -> null"]
    assert not plan.tenants.exists()
