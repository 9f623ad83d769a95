"""A new tenant with all it needs to begin: aliases, limits or a plan, and the link by which its owner joins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Unpack

from django.core.exceptions import ValidationError
from django.db import transaction

from accounts import audit, inviting, tenants
from accounts.models import Tenant
from accounts.roles import Role
from gateway.config.limit_changes import said
from gateway.config.quota_plans import enlist
from gateway.models import Deployment, Limit, ModelAlias, QuotaPlan
from usage import limits


class AliasRefused(Exception):
    """An alias cannot be so; the message is for people, in their language."""


@dataclass(frozen=True, slots=True)
class Founding:
    """facts: the tenant's columns. aliases: names, and what serves each. plan: instead of `wanted`. owner: "" for nobody."""

    facts: Mapping[str, Any]
    aliases: Sequence[tuple[str, Deployment]] = ()
    wanted: Sequence[limits.Limit] = field(default=())
    plan: QuotaPlan | None = None
    owner: str = ""


@transaction.atomic
def found(founding: Founding, **by: Unpack[audit.By]) -> tuple[Tenant, str | None]:
    """All of it, or nothing. Returns the tenant and the token of the owner's link, which nobody can show again.

    One audit event for the tenant with its limits, one an alias, one for the invitation.
    Raises accounts.tenants.TenantError, AliasRefused, accounts.members.MemberError.
    """
    plan = founding.plan
    if plan is not None:
        QuotaPlan.objects.select_for_update(no_key=True).get(pk=plan.pk)
    wanted = [row.configured for row in plan.limits.all()] if plan else founding.wanted
    extra = said(wanted)
    if plan is not None:
        extra["plan"] = plan.name
    tenant = tenants.create(extra=extra, by=by, **founding.facts)
    if plan is None:
        Limit.replace_all(tenant, wanted)
    else:
        enlist(tenant, plan)
    for name, deployment in founding.aliases:
        _add_alias(tenant, name, deployment, by)
    token = inviting.invite(tenant, founding.owner, Role.OWNER, **by)[1] if founding.owner else None
    return tenant, token


def _add_alias(tenant: Tenant, name: str, deployment: Deployment, by: audit.By) -> None:
    alias = ModelAlias(tenant=tenant, name=name, deployment=deployment)
    try:
        alias.full_clean()
    except ValidationError as error:
        raise AliasRefused(" ".join(text for said in error.message_dict.values() for text in said)) from error
    alias.save(force_insert=True)
    target = f"alias {tenant.slug}/{name}"
    audit.record(verb="alias.created", target=target, tenant=tenant, after={"deployment": deployment.name}, **by)
