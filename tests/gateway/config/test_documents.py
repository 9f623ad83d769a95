"""The one spelling of a backend's URL; documents of other releases."""

from typing import Any

import orjson
import pytest

from gateway.config.documents import Backend, Deployment, PoolMember, Price, base_url, load_key, load_platform, load_tenant
from gateway.policy.rules import Keywords, Policy
from usage.limits import Limit

KEY = {
    "id": "k",
    "lookup_id": "l",
    "tenant_id": "t",
    "name": "ci",
    "pepper_id": "p",
    "digest": "d",
    "is_active": True,
    "expires_at_s": None,
    "scopes": [],
    "aliases": None,
    "networks": [],
    "error_dialect": None,
}
ALIAS = {"name": "general", "deployment": "tiny", "created_s": 0, "grants": []}
TENANT = {
    "id": "t",
    "slug": "t",
    "name": "T",
    "is_active": True,
    "error_dialect": "openai",
    "unknown_fields": "drop",
    "time_zone": "UTC",
    "cors_origins": [],
    "aliases": [ALIAS],
}
LIMITS: list[dict[str, Any]] = [
    {"name": "tokens_per_hour", "max": 50_000, "mode": "enforce", "clamps": True},
    {"name": "concurrent_requests", "max": 4, "mode": "shadow", "clamps": False},
]


def test_documents_from_before_there_were_limits_are_read() -> None:
    tenant = load_tenant(orjson.dumps(TENANT))
    assert (tenant.limits, tenant.store_out) == ((), "closed")
    assert (tenant.aliases["general"].limits, tenant.aliases["general"].price) == ((), None)
    assert load_key(orjson.dumps(KEY)).limits == ()


def test_documents_from_before_there_were_policies_are_read() -> None:
    tenant = load_tenant(orjson.dumps(TENANT))
    assert (tenant.policies, tenant.aliases["general"].policies) == ({}, ())
    assert load_key(orjson.dumps(KEY)).policies == ()


def test_documents_from_before_there_were_tiers_are_read() -> None:
    document = {
        "backends": [{"name": "gpu-1", "url": "http://gpu-1", "credential": ""}],
        "deployments": [{"name": "tiny", "served_model": "t", "members": [{"backend": "gpu-1", "weight": 3}]}],
        "cors_origins": [],
        "has_imported_keys": False,
    }
    platform = load_platform(orjson.dumps(document), decrypt=str)
    backend = Backend("gpu-1", "http://gpu-1")
    assert platform.backends == {"gpu-1": backend}
    assert platform.deployments == {"tiny": Deployment("tiny", "t", (PoolMember(backend, 3),))}
    alias = load_tenant(orjson.dumps(TENANT)).aliases["general"]
    assert (alias.canary, alias.canary_percent) == (None, 0)


def test_platform_is_compiled() -> None:
    member = {"backend": "gpu-1", "weight": 3, "tier": 1, "max_concurrent_calls": 8, "colour": "red"}
    deployment = {
        "name": "tiny",
        "served_model": "t",
        "members": [member],
        "max_model_len": 4096,
        "max_concurrent_calls": 64,
        "fallback": "small",
        "context_fallback": "large",
        "first_token_max_s": 30.0,
        "stall_max_s": 5.5,
        "queue_max_s": 0.0,
    }
    document = {
        "backends": [
            {"name": "gpu-1", "url": "http://gpu-1", "credential": "ABC", "is_draining": True, "colour": "red"},
            {"name": "idle", "url": "http://idle", "credential": "", "is_draining": False},
        ],
        "deployments": [deployment],
        "cors_origins": ["https://a.example"],
        "has_imported_keys": True,
    }
    platform = load_platform(orjson.dumps(document), decrypt=str.lower)
    backend = Backend("gpu-1", "http://gpu-1", "abc", is_draining=True)
    assert platform.backends == {"gpu-1": backend, "idle": Backend("idle", "http://idle")}
    pool = (PoolMember(backend, 3, tier=1, max_concurrent_calls=8),)
    assert platform.deployments["tiny"] == Deployment(**{**deployment, "members": pool})


def test_limits_and_prices_are_compiled() -> None:
    limits = (Limit("tokens_per_hour", 50_000, clamps=True), Limit("concurrent_requests", 4, "shadow"))
    price = {"prompt": 500_000, "cached": 50_000, "completion": 1_500_000, "image": 1}
    alias = ALIAS | {"limits": LIMITS, "price": price}
    tenant = load_tenant(orjson.dumps(TENANT | {"aliases": [alias], "limits": LIMITS, "store_out": "degraded"}))
    assert (tenant.limits, tenant.store_out) == (limits, "degraded")
    assert tenant.aliases["general"].limits == limits
    assert tenant.aliases["general"].price == Price(prompt=500_000, cached=50_000, completion=1_500_000)
    assert load_key(orjson.dumps(KEY | {"limits": LIMITS})).limits == limits


def test_limit_of_a_newer_release_is_passed_over() -> None:
    newer = [{"name": "images_per_fortnight", "max": 1}, LIMITS[0] | {"burst": 2}]
    assert load_key(orjson.dumps(KEY | {"limits": newer})).limits == (Limit("tokens_per_hour", 50_000, clamps=True),)


def test_policies_are_compiled() -> None:
    rule = {"kind": "keywords", "words": ["alpha"], "where": ["input.user"], "action": "block"}
    data = {"name": "secrets", "version": 3, "rules": [rule], "is_everywhere": True, "colour": "red"}
    alias = ALIAS | {"policies": ["secrets"]}
    tenant = load_tenant(orjson.dumps(TENANT | {"policies": [data], "aliases": [alias]}))
    words = Keywords(name="1", where=frozenset({"input.user"}), action="block", label="REDACTED", words=("alpha",))
    assert tenant.policies == {"secrets": Policy("secrets", 3, (words,), is_everywhere=True)}
    assert tenant.aliases["general"].policies == ("secrets",)
    assert load_key(orjson.dumps(KEY | {"policies": ["secrets"]})).policies == ("secrets",)


def test_policy_that_stays_the_same_is_not_compiled_anew() -> None:
    rule = {"kind": "keywords", "words": ["alpha"], "where": ["input.user"], "action": "block"}
    data = {"name": "secrets", "version": 3, "rules": [rule], "is_everywhere": True}
    first, second = (load_tenant(orjson.dumps(TENANT | {"name": name, "policies": [data]})) for name in ("A", "B"))
    assert first.policies["secrets"] is second.policies["secrets"]
    changed = load_tenant(orjson.dumps(TENANT | {"policies": [data | {"version": 4}]}))
    assert changed.policies["secrets"].version == 4


def test_policy_of_a_newer_release_is_not_passed_over() -> None:
    rule = {"kind": "keywords", "words": ["alpha"], "where": ["input"], "action": "block"}
    for newer in ({**rule, "kind": "hologram"}, {**rule, "where": ["input.video"]}, {**rule, "but_not": ["beta"]}):
        data = {"name": "secrets", "version": 3, "rules": [rule, newer], "is_everywhere": True}
        tenant = load_tenant(orjson.dumps(TENANT | {"policies": [data]}))
        assert tenant.policies == {"secrets": Policy("secrets", 3, (), is_everywhere=True, is_readable=False)}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://gpu-1:8000", "http://gpu-1:8000"),
        ("http://gpu-1:8000/", "http://gpu-1:8000"),
        ("http://gpu-1:8000/v1", "http://gpu-1:8000"),
        ("http://gpu-1:8000/v1/", "http://gpu-1:8000"),
        ("https://proxy.example/vllm/v1//", "https://proxy.example/vllm"),
        ("HTTPS://Proxy.Example/VLLM", "https://proxy.example/VLLM"),
        ("http://[2001:db8::1]:8000", "http://[2001:db8::1]:8000"),
        ("http://my_service/v10", "http://my_service/v10"),
    ],
)
def test_url_is_brought_to_its_one_spelling(given: str, kept: str) -> None:
    assert base_url(given) == kept
    assert base_url(kept) == kept


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "gpu-1:8000",
        "ftp://gpu-1",
        "http://",
        "http:///v1",
        "http://:8000",
        "http://user:password@gpu-1",
        "http://user@gpu-1",
        "http://gpu-1?x=1",
        "http://gpu-1?",
        "http://gpu-1#x",
        "http://gpu-1:0",
        "http://gpu-1:99999",
        "http://gpu-1:port",
        "http://[::1",
        "http://gpu 1",
        "http://gpu-1\n",
        "http://gpu-1/日本",
        " http://gpu-1",
    ],
)
def test_what_is_no_base_url_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="A backend's URL"):
        base_url(wrong)
