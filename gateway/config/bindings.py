"""Which content policies a call is judged by. Pure, and on every call's way."""

from gateway.config.documents import Alias, Key, Platform, Tenant
from gateway.policy.rules import Policy


def policies_for(platform: Platform, tenant: Tenant, alias: Alias, key: Key) -> tuple[Policy, ...]:
    """Those of the platform that apply everywhere, the tenant's own, then what alias and key name; each once.

    A name means the tenant's policy before the platform's. One that is not there any more is a policy that is not readable,
    as is one this release cannot read: the caller refuses the call, rather than have it go unguarded.
    """
    if not (platform.policies or tenant.policies or alias.policies or key.policies):
        return ()
    found = [policy for policy in platform.policies.values() if policy.is_everywhere]
    found += [policy for policy in tenant.policies.values() if policy.is_everywhere]
    for name in dict.fromkeys((*alias.policies, *key.policies)):
        policy = tenant.policies.get(name) or platform.policies.get(name) or _missing(name)
        if not policy.is_everywhere:  # those are in it already
            found.append(policy)
    return tuple(found)


def _missing(name: str) -> Policy:
    return Policy(name, version=0, rules=(), is_readable=False)
