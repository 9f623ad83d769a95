"""Tenants with one of everything, every page of the URL map with the things it is about, and who may open it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from allauth.mfa.models import Authenticator
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone

from accounts import inviting, issuing
from accounts.models import AuditEvent, Membership, Tenant, User
from accounts.roles import Role
from gateway.config import policies, quota_plans
from gateway.models import Backend, Deployment, Limit, ModelAlias, PoolMember
from portal.alerts import hooks, rules
from portal.alerts.models import Alert, Delivery, Notice
from tests.e2e.conftest import BY
from tests.usage.made import event
from usage import ledger, limits

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
        found = {**things["everywhere"], **things.get(noun, {})}
        if self.name.startswith("admin_"):
            found |= things.get(f"admin_{noun}", {})
        found |= things.get(self.name, {})
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
    of_all = policies.create(None, f"{own}-platform", **BY)
    policies.save_draft(of_all, RULES, **BY)
    policies.publish(of_all, **BY)
    policies.save_draft(of_all, RULES, **BY)
    plan = quota_plans.create(f"{own}-plan", [limits.Limit("requests_per_minute", 60)], **BY)
    key, _ = issuing.issue(tenant, issuing.Terms(name=MARKUP), **BY)
    call = event(tenant, timezone.now(), alias=alias.name, key_id=str(key.pk), key_name=MARKUP, metadata={"team": MARKUP})
    ledger.post([call])
    invitation, _ = inviting.invite(tenant, f"invited@{own}.example", Role.VIEWER, **BY)
    somebody = User.objects.create_user(f"somebody@{own}.example", is_operator=True, name=MARKUP)
    member = Membership.objects.create(tenant=tenant, user=somebody, role=Role.VIEWER)
    passkey = Authenticator(user=somebody, type=Authenticator.Type.WEBAUTHN, data={"name": MARKUP})
    Authenticator.objects.bulk_create([passkey])
    for holder in (tenant, alias, key):
        Limit.replace_all(holder, [limits.Limit("requests_per_minute", 60)])
    alerts, alerts_of_all = _alerts(tenant, own, somebody), _alerts(None, f"{own}-platform", somebody)
    return {
        "everywhere": {"slug": own, "tenant_slug": own},
        "key": {"pk": key.pk},
        "request": {"pk": call.request_id},
        "playground_told": {"pk": call.request_id},
        "member": {"pk": member.pk},
        "invitation": {"pk": invitation.pk},
        "audit": {"sequence": AuditEvent.objects.filter(tenant=tenant).latest("sequence").sequence},
        "plan": {"pk": plan.pk},
        "admin_policy": {"name": of_all.name},
        "admin_tenant_new_step": {"name": "details"},
        "admin_tenant_alias_limits": {"pk": alias.pk},
        "policy": {"name": policy.name, "number": 1},
        "backend": {"name": backend.name},
        "deployment": {"name": deployment.name},
        "alias": {"pk": alias.pk},
        "access": {"pk": somebody.pk},
        "mfa_remove_webauthn": {"pk": passkey.pk},
        "factor_name": {"pk": passkey.pk},
        **alerts,
        **{f"admin_{noun}": arguments for noun, arguments in alerts_of_all.items()},
    }


def _alerts(holder: Tenant | None, name: str, somebody: User) -> Things:
    """A rule, a webhook, and an alert with its notice and its deliveries."""
    webhook, _ = hooks.create(holder, f"{name} {MARKUP}", "https://hooks.example.com/sekisho", **BY)
    kind, facts = "limit", {"limit": "tokens_per_day", "of": "key", "of_id": str(webhook.pk), "of_name": MARKUP, "used": 80}
    facts |= {"max": 100, "percent": 80, "mode": "enforce", "is_refusing": True, "resets_s": 1_800_000_000}
    if holder is None:
        kind, facts = "backend_down", {"backend": f"{name}-gpu", "since_s": 1_800_000_000, "reason": MARKUP}
    rule = rules.create(holder, rules.Terms(kind, f"{name} {MARKUP}", [80], webhooks=[webhook], people=[somebody]), **BY)
    now = timezone.now()
    alert = Alert.objects.create(
        tenant=holder,
        rule=rule,
        rule_name=rule.name,
        kind=kind,
        subject="x",
        threshold=80,
        window="x",
        facts=facts,
        fired_at=now,
    )
    Notice.objects.bulk_create(Notice(alert=alert, user=user) for user in User.objects.all())
    sent = {"tenant": holder, "created_at": now, "next_at": now, "give_up_at": now, "state": "given_up", "attempts": 1}
    delivery = Delivery.objects.create(alert=alert, webhook=webhook, **sent)
    delivery.tries.create(number=1, at=now, took_ms=12, status=500, error="status", answer=MARKUP)
    Delivery.objects.create(alert=alert, user=somebody, **sent)
    return {"rule": {"pk": rule.pk}, "webhook": {"pk": webhook.pk}, "delivery": {"pk": delivery.pk}}
