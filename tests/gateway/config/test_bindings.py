"""Which policies a call is judged by: whose they are, in which order, and what becomes of a name that is gone."""

from collections.abc import Iterable

from gateway.config.bindings import policies_for
from gateway.config.documents import Alias, Key, Platform, Tenant
from gateway.policy.rules import Policy


def found(
    *, platform: Iterable[Policy] = (), tenant: Iterable[Policy] = (), alias: Iterable[str] = (), key: Iterable[str] = ()
) -> tuple[Policy, ...]:
    return policies_for(
        Platform(policies={policy.name: policy for policy in platform}),
        Tenant("t", "t", "T", True, "openai", "drop", "UTC", policies={policy.name: policy for policy in tenant}),
        Alias("general", "tiny", 0, policies=tuple(alias)),
        Key("k", "l", "t", "ci", "p", "d", True, None, frozenset(), None, (), None, policies=tuple(key)),
    )


def named(name: str, version: int = 1, *, everywhere: bool = False) -> Policy:
    return Policy(name, version, (), is_everywhere=everywhere)


def test_call_without_policies_is_judged_by_none() -> None:
    assert found() == ()
    assert found(platform=[named("a")], tenant=[named("b")]) == ()


def test_platform_comes_first_then_tenant_alias_and_key() -> None:
    everywhere, of_tenant = named("p", everywhere=True), named("t", everywhere=True)
    a, k = named("a"), named("k")
    assert found(platform=[k, everywhere], tenant=[a, of_tenant], alias=["a"], key=["k"]) == (everywhere, of_tenant, a, k)


def test_each_is_there_once() -> None:
    everywhere, a = named("t", everywhere=True), named("a")
    assert found(tenant=[everywhere, a], alias=["a", "t"], key=["t", "a"]) == (everywhere, a)
    assert found(platform=[everywhere], alias=["t"]) == (everywhere,)


def test_name_means_the_tenants_before_the_platforms() -> None:
    platform, tenant = named("a", 7), named("a", 3)
    assert found(platform=[platform], tenant=[tenant], key=["a"]) == (tenant,)
    assert found(platform=[platform], key=["a"]) == (platform,)
    everywhere = named("a", 7, everywhere=True)
    assert found(platform=[everywhere], tenant=[tenant], key=["a"]) == (everywhere, tenant)


def test_name_that_is_gone_is_a_policy_nobody_can_read() -> None:
    everywhere = named("p", everywhere=True)
    assert found(platform=[everywhere], alias=["gone"], key=["gone"]) == (everywhere, Policy("gone", 0, (), is_readable=False))
