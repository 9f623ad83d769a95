"""The verbs of aliases: each is one transaction with one audit event of its tenant. Limits are written elsewhere."""

from collections.abc import Mapping
from typing import Any, Final, Unpack

from django.db import transaction

from accounts import audit
from accounts.models import Tenant
from gateway.config.limits import PRICES
from gateway.config.revision import Revision
from gateway.models import ModelAlias

Values = Mapping[str, Any]
_ROWS: Final = ("deployment", "canary")
_PRICES: Final = {f"price_{name}": f"price.{name}" for name in PRICES}


@transaction.atomic
def create(tenant: Tenant, name: str, values: Values, **by: Unpack[audit.By]) -> ModelAlias:
    """values: fields of ModelAlias. Raises ValidationError."""
    row = ModelAlias(tenant=tenant, name=name)
    _write(Revision("alias", f"{tenant.slug}/{name}", row, is_new=True, tenant=tenant), values, by)
    return row


@transaction.atomic
def change(alias: ModelAlias, values: Values, **by: Unpack[audit.By]) -> bool:
    """In force for every call that begins afterwards. False: it was so already. Raises ValidationError."""
    row = ModelAlias.objects.select_for_update(of=("self",)).select_related("tenant", "deployment", "canary").get(pk=alias.pk)
    return _write(Revision("alias", _label(row), row, is_new=False, tenant=row.tenant), values, by)


@transaction.atomic
def delete(alias: ModelAlias, **by: Unpack[audit.By]) -> None:
    """With its limits. Calls that name it are refused from now on; those that run come to their end."""
    row = ModelAlias.objects.select_for_update(of=("self",)).select_related("tenant", "deployment").get(pk=alias.pk)
    before = {"deployment": row.deployment.name}
    row.delete()
    audit.record(verb="alias.deleted", target=f"alias {_label(row)}", tenant=row.tenant, before=before, **by)


def _write(revision: Revision[ModelAlias], values: Values, by: audit.By) -> bool:
    for name, value in values.items():
        if name in _ROWS:
            revision.put_row(name, value)
        elif name in _PRICES:
            revision.put_decimal(name, value, told_as=_PRICES[name])
        else:
            revision.put(name, value)
    if not revision.changed:
        return False
    revision.row.full_clean()
    revision.write()
    revision.record(**by)
    return True


def _label(row: ModelAlias) -> str:
    return f"{row.tenant.slug}/{row.name}"
