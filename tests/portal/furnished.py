"""Tenants with one of everything, every page of the URL map with the things it is about, and who may open it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver, reverse

from accounts import issuing
from accounts.models import Tenant
from gateway.config import policies
from gateway.models import Backend, Deployment, Limit, ModelAlias, PoolMember
from tests.e2e.conftest import BY
from usage import limits

MARKUP = "<b>x</b><script>alert(1)</script>"  # wherever a person may write a text
RULES = [{"name": "words", "kind": "keywords", "words": ["ALPHA-77"], "where": ["input"], "action": "block"}]
ARGUMENT = re.compile(r"<(?:\w+:)?(\w+)>")
Things = Mapping[str, Any]  # by URL name, or by its first word: the arguments of the URL


@dataclass(frozen=True, slots=True)
class Place:
    """One page or action: `access` and `methods` are what its view declares."""

    name: str
    path: str
    arguments: frozenset[str]
    access: Any
    methods: tuple[str, ...]

    @property
    def is_of_a_tenant(self) -> bool:
        return "slug" in self.arguments and not self.name.startswith("admin_")

    def url(self, things: Things) -> str:
        """Raises KeyError for a page about something that no tenant is furnished with yet: furnish it here."""
        noun = self.name.removeprefix("admin_").split("_")[0]
        found = {**things["everywhere"], **things.get(noun, {}), **things.get(self.name, {})}
        return reverse(self.name, kwargs={name: found[name] for name in self.arguments})


def places() -> Iterator[Place]:
    for path, pattern in patterns(get_resolver()):
        view: Any = pattern.callback
        name = pattern.name or path
        yield Place(name, path, frozenset(ARGUMENT.findall(path)), view.access, tuple(getattr(view, "methods", ())))


def patterns(resolver: URLResolver, prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    for entry in resolver.url_patterns:
        if isinstance(entry, URLResolver):
            yield from patterns(entry, prefix + str(entry.pattern))
        else:
            yield prefix + str(entry.pattern), entry


def furnish(tenant: Tenant) -> Things:
    """One of everything, with markup in every text; the names of its things are no other tenant's."""
    own = tenant.slug
    Tenant.objects.filter(pk=tenant.pk).update(name=f"{own} {MARKUP}")
    backend = Backend.objects.create(name=f"{own}-gpu", url="http://192.0.2.7:8000")
    deployment = Deployment.objects.create(name=f"{own}-tiny", served_model=f"tiny {MARKUP}")
    PoolMember.objects.create(deployment=deployment, backend=backend)
    texts = {"ja": MARKUP, "en": MARKUP}
    alias = ModelAlias.objects.create(
        tenant=tenant, name=f"{own}-general", deployment=deployment, display_name=texts, description=texts
    )
    policy = policies.create(tenant, f"{own}-words", **BY)
    policies.save_draft(policy, RULES, **BY)
    policies.publish(policy, **BY)
    policies.save_draft(policy, RULES, **BY)
    key, _ = issuing.issue(tenant, issuing.Terms(name=MARKUP), **BY)
    for holder in (tenant, alias, key):
        Limit.replace_all(holder, [limits.Limit("requests_per_minute", 60)])
    return {
        "everywhere": {"slug": own},
        "key": {"pk": key.pk},
        "policy": {"name": policy.name, "number": 1},
        "backend": {"name": backend.name},
        "deployment": {"name": deployment.name},
        "alias": {"pk": alias.pk},
    }
