"""Rows as the documents that carry them through Redis. Reads the tables, writes nothing; publish.py says when."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from django.db.models import Prefetch, QuerySet

from accounts.models import ApiKey, Tenant
from gateway.config.documents import PLATFORM, key_key, tenant_key
from gateway.models import Backend, ConfigChange, ContentPolicy, Deployment, Limit, ModelAlias, PoolMember

Kind = ConfigChange.Kind
AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Document:
    """What Redis shall hold under `name`; body None: nothing. kind and object_id: as in its note and its event."""

    kind: str
    object_id: str
    name: str
    body: bytes | None = field(repr=False)


def noted_documents(notes: Iterable[ConfigChange]) -> Iterator[Document]:
    """The current documents that `notes` name, and the platform's: it shows a little of every tenant and key."""
    named: dict[str, set[str]] = {Kind.TENANT: set(), Kind.KEY: set(), Kind.PLATFORM: set()}
    for change in notes:
        named[change.kind].add(change.object_id)
    yield _platform_document()
    tenants = {str(row.pk): row for row in _tenants().filter(pk__in=named[Kind.TENANT])}
    for tenant_id in sorted(named[Kind.TENANT]):
        yield _tenant_document(tenant_id, tenants.get(tenant_id))
    keys = {row.lookup_id: row for row in _keys().filter(lookup_id__in=named[Kind.KEY])}
    for lookup_id in sorted(named[Kind.KEY]):
        yield _key_document(lookup_id, keys.get(lookup_id))


def all_documents() -> Iterator[Document]:
    """Every document of the configuration, the rows read as they are needed."""
    yield _platform_document()
    for tenant in _tenants().iterator(chunk_size=AT_ONCE):
        yield _tenant_document(str(tenant.pk), tenant)
    for key in _keys().iterator(chunk_size=AT_ONCE):
        yield _key_document(key.lookup_id, key)


def _tenants() -> QuerySet[Tenant]:
    aliases = ModelAlias.objects.select_related("deployment", "canary").prefetch_related("limits").order_by("name")
    policies = ContentPolicy.objects.published().order_by("name")
    return Tenant.objects.prefetch_related(
        "limits", Prefetch("aliases", queryset=aliases), Prefetch("policies", queryset=policies)
    )


def _keys() -> QuerySet[ApiKey]:
    return ApiKey.objects.prefetch_related("limits")


def _platform_document() -> Document:
    members = PoolMember.objects.select_related("backend").order_by("backend__name")
    rows = Deployment.objects.select_related("fallback", "context_fallback").order_by("name")
    deployments = list(rows.prefetch_related(Prefetch("members", queryset=members)))
    backends = {b.name: b for b in Backend.objects.all()}
    # Those of the pools as the pools' query saw them: the other one may have seen a later moment.
    backends |= {m.backend.name: m.backend for d in deployments for m in d.members.all()}
    origins = Tenant.objects.filter(is_active=True).values_list("cors_origins", flat=True)
    body = {
        "backends": [_backend(backends[name]) for name in sorted(backends)],
        "deployments": [_deployment(deployment) for deployment in deployments],
        "cors_origins": sorted({origin for tenant in origins for origin in tenant}),
        "has_imported_keys": ApiKey.objects.filter(is_imported=True, revoked_at=None).exists(),
        "policies": [policy_facts(row) for row in ContentPolicy.objects.published().filter(tenant=None).order_by("name")],
    }
    return Document(Kind.PLATFORM, "", PLATFORM, _dump(body))


def _backend(backend: Backend) -> dict[str, Any]:
    return {
        "name": backend.name,
        "url": backend.url,
        "credential": backend.credential_ciphertext,
        "is_draining": backend.is_draining,
    }


def _deployment(deployment: Deployment) -> dict[str, Any]:
    fallback, longer = deployment.fallback, deployment.context_fallback
    return {
        "name": deployment.name,
        "served_model": deployment.served_model,
        "members": [_member(member) for member in deployment.members.all()],
        "max_model_len": deployment.max_model_len,
        "schedules_by_priority": deployment.schedules_by_priority,
        "max_concurrent_calls": deployment.max_concurrent_calls,
        "fallback": fallback.name if fallback else None,
        "context_fallback": longer.name if longer else None,
        "first_token_max_s": deployment.first_token_max_s,
        "stall_max_s": deployment.stall_max_s,
        "queue_max_s": deployment.queue_max_s,
    }


def _member(member: PoolMember) -> dict[str, Any]:
    return {
        "backend": member.backend.name,
        "weight": member.weight,
        "tier": member.tier,
        "max_concurrent_calls": member.max_concurrent_calls,
    }


def policy_facts(row: ContentPolicy) -> dict[str, Any]:
    """row: one that is published."""
    version = row.published
    if version is None:
        raise ValueError(f"{row.label} is not published.")
    return {"name": row.name, "version": version.number, "rules": version.rules, "is_everywhere": row.is_everywhere}


def _tenant_document(tenant_id: str, tenant: Tenant | None) -> Document:
    body = None
    if tenant is not None:
        body = {
            "id": tenant_id,
            "slug": tenant.slug,
            "name": tenant.name,
            "is_active": tenant.is_active,
            "error_dialect": tenant.error_dialect,
            "unknown_fields": tenant.unknown_fields,
            "time_zone": tenant.time_zone,
            "priority": tenant.priority,
            "cors_origins": sorted(tenant.cors_origins),
            "aliases": [_alias(alias) for alias in tenant.aliases.all()],
            "limits": _limits(tenant.limits.all()),
            "store_out": tenant.store_out,
            "policies": [policy_facts(row) for row in tenant.policies.all()],
        }
    return Document(Kind.TENANT, tenant_id, tenant_key(tenant_id), _dump(body))


def _alias(alias: ModelAlias) -> dict[str, Any]:
    return {
        "name": alias.name,
        "deployment": alias.deployment.name,
        "created_s": int(alias.created_at.timestamp()),
        "max_output_tokens": alias.max_output_tokens,
        "display_name": alias.display_name,
        "description": alias.description,
        "max_choices": alias.max_choices,
        "max_stops": alias.max_stops,
        "grants": sorted(alias.grants),
        "defaults": alias.defaults,
        "price": _price(alias),
        "limits": _limits(alias.limits.all()),
        "canary": alias.canary.name if alias.canary else None,
        "canary_percent": alias.canary_percent,
        "policies": sorted(alias.policies),
    }


def _price(alias: ModelAlias) -> dict[str, int] | None:
    """From units per million tokens, of at most six decimals, to pico-units per token: exact."""
    if alias.price_prompt is None or alias.price_completion is None:
        return None
    cached = alias.price_prompt if alias.price_cached is None else alias.price_cached
    prices = {"prompt": alias.price_prompt, "cached": cached, "completion": alias.price_completion}
    return {name: int(price * 10**6) for name, price in prices.items()}


def _limits(rows: Iterable[Limit]) -> list[dict[str, Any]]:
    return [asdict(row.configured) for row in sorted(rows, key=lambda row: row.name)]


def _key_document(lookup_id: str, key: ApiKey | None) -> Document:
    body = None
    if key is not None:
        body = {
            "id": str(key.pk),
            "lookup_id": lookup_id,
            "tenant_id": str(key.tenant_id),
            "name": key.name,
            "pepper_id": key.pepper_id,
            "digest": key.digest,
            "is_active": key.revoked_at is None,
            "expires_at_s": key.expires_at.timestamp() if key.expires_at else None,
            "scopes": sorted(key.scopes),
            "aliases": None if key.aliases is None else sorted(key.aliases),
            "networks": key.networks,
            "error_dialect": key.error_dialect,
            "limits": _limits(key.limits.all()),
            "policies": sorted(key.policies),
        }
    return Document(Kind.KEY, lookup_id, key_key(lookup_id), _dump(body))


def _dump(body: dict[str, Any] | None) -> bytes | None:
    """Not by orjson: it refuses integers over 64 bits, and one such default would hold up every change after it."""
    return None if body is None else json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
