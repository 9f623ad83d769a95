"""The whole configuration as one YAML file: apply() writes what it says, export() writes it. The format: file_format.py."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from django.db import connection, transaction
from django.db.models import Prefetch

from accounts.models import ApiKey, Membership, Tenant
from gateway.config import file_format, source
from gateway.config.file_format import ALIAS, DEPLOYMENT, KEY, POOL_MEMBER, TENANT
from gateway.config.limits import PRICES, as_mapping, plain
from gateway.config.plan import Planner
from gateway.config.source import InvalidFile, Place, Problem, Refused
from gateway.config.steps import Change, Minted, Step
from gateway.models import Backend, ContentPolicy, Deployment, ModelAlias, PoolMember

_LOCK: Final = 0x5365_6B69_7368_6F03  # beside those of accounts.audit and publish.py
HEADER: Final = """\
# The configuration of Sekisho, as `manage.py apply` reads it.
# Secrets are not in it. Applied where it was exported, it changes nothing. Applied elsewhere, keys without `secret_env`
# are minted anew, and backends need `api_key_env` if they ask for a credential.
"""


@dataclass(frozen=True, slots=True)
class Report:
    """What was changed, or would be. minted: new keys, whose text is nowhere else; none after a dry run."""

    changes: tuple[Change, ...]
    minted: tuple[Minted, ...]


def apply(path: Path, *, secret_of: Callable[[str], str | None], dry_run: bool = False, prune: bool = False) -> Report:
    """Make the rows what the file says, in one transaction; what it does not name is left alone.

    secret_of: the value of an environment variable, or None. prune: remove what the lists in the file no longer name.
    Raises InvalidFile with all that is wrong, and nothing is changed then; OSError when the file cannot be read.
    """
    root = _load(path)
    file = file_format.read(root)
    with transaction.atomic(durable=True):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        steps = Planner(file, secret_of=secret_of).plan(prune=prune)
        _raise_problems(root)
        minted = _perform(steps)
        _raise_problems(root)
        if dry_run:  # all was done, so that all that can go wrong has; now it is undone
            transaction.set_rollback(True)
    changes = tuple(change for step in steps for change in step.changes)
    return Report(changes, () if dry_run else minted)


def export() -> str:
    """The whole configuration but its secrets, every field named, in the order of names."""
    members = PoolMember.objects.select_related("backend").order_by("backend__name")
    rows = Deployment.objects.select_related("fallback", "context_fallback").order_by("name")
    deployments = rows.prefetch_related(Prefetch("members", queryset=members))
    content = {
        "backends": [_backend(row) for row in Backend.objects.order_by("name")],
        "deployments": [_deployment(row) for row in deployments],
        "policies": _policies(None),
        "tenants": [_tenant(row) for row in Tenant.objects.prefetch_related("limits").order_by("slug")],
    }
    return HEADER + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def _load(path: Path) -> Place:
    try:
        return source.load(path.read_text("utf-8-sig"))
    except UnicodeDecodeError:
        raise InvalidFile([Problem("", "The file is not UTF-8.", 1)]) from None


def _raise_problems(root: Place) -> None:
    if root.problems:
        raise InvalidFile(root.problems)


def _perform(steps: list[Step]) -> tuple[Minted, ...]:
    """Perform every step; one that is refused leaves its problem on file, and the others still show theirs."""
    minted = []
    for step in steps:
        try:
            with transaction.atomic():
                minted.append(step.perform())
        except Refused:
            continue
    return tuple(key for key in minted if key is not None)


def _backend(row: Backend) -> dict[str, Any]:
    return {"name": row.name, "url": row.url, "draining": row.is_draining}


def _deployment(row: Deployment) -> dict[str, Any]:
    return {
        **{name: _plain(getattr(row, name)) for name in DEPLOYMENT.fields},
        "backends": [{name: _plain(getattr(member, name)) for name in POOL_MEMBER.fields} for member in row.members.all()],
    }


def _tenant(row: Tenant) -> dict[str, Any]:
    rows = ModelAlias.objects.filter(tenant=row).select_related("deployment", "canary")
    aliases = rows.prefetch_related("limits").order_by("name")
    keys = (
        ApiKey.objects.filter(tenant=row, revoked_at=None, successor=None, is_playground=False)
        .prefetch_related("limits")
        .order_by("name")
    )
    members = Membership.objects.filter(tenant=row).select_related("user").order_by("user__email")
    return {
        **{name: getattr(row, name) for name in TENANT.fields if name != "limits"},
        "limits": _limits(row),
        "policies": _policies(row),
        "aliases": [_alias(alias) for alias in aliases],
        "keys": [_key(key) for key in keys],
        "members": [{"email": member.user.email, "role": member.role} for member in members],
    }


def _policies(tenant: Tenant | None) -> list[dict[str, Any]]:
    """The published versions; of a policy that has none there is nothing to write."""
    rows = ContentPolicy.objects.published().filter(tenant=tenant).order_by("name")
    return [{"name": row.name, "everywhere": row.is_everywhere, "rules": row.published.rules} for row in rows if row.published]


def _alias(row: ModelAlias) -> dict[str, Any]:
    prices = {name: plain(price) for name in PRICES if (price := getattr(row, f"price_{name}")) is not None}
    told = {"price": prices or None, "limits": _limits(row)}
    return {name: told[name] if name in told else _plain(getattr(row, name)) for name in ALIAS.fields}


def _key(row: ApiKey) -> dict[str, Any]:
    fields = {name: getattr(row, name) for name in KEY.fields if name not in ("secret", "secret_env", "limits")}
    return {**fields, "limits": _limits(row)}


def _plain(value: Any) -> Any:
    """Backends and deployments by their names."""
    return value.name if isinstance(value, Backend | Deployment) else value


def _limits(row: Tenant | ApiKey | ModelAlias) -> dict[str, Any]:
    return as_mapping(limit.configured for limit in row.limits.all())
