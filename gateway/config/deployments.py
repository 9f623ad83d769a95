"""The verbs of deployments: row and pool together, one transaction with one audit event each."""

from collections.abc import Mapping
from typing import Any, Unpack

from django.db import transaction
from django.utils.translation import gettext as _

from accounts import audit
from gateway.config import fallbacks, pools
from gateway.config.pools import Terms
from gateway.config.revision import InUse, Revision
from gateway.models import Backend, Deployment

Values = Mapping[str, Any]


@transaction.atomic
def create(name: str, values: Values, pool: Mapping[str, Terms], **by: Unpack[audit.By]) -> Deployment:
    """values: fields of Deployment; pool: terms by the backends' names. Raises ValidationError."""
    row = Deployment(name=name)
    _write(Revision("deployment", name, row, is_new=True), values, pool, by)
    return row


@transaction.atomic
def change(deployment: Deployment, values: Values, pool: Mapping[str, Terms], **by: Unpack[audit.By]) -> bool:
    """Calls that run end as they began. False: it was so already. Raises ValidationError."""
    # All of them: of two changes at once, the second sees where the first one's fallbacks lead.
    rows = {row.pk: row for row in Deployment.objects.select_for_update()}
    return _write(Revision("deployment", deployment.name, rows[deployment.pk], is_new=False), values, pool, by)


@transaction.atomic
def delete(deployment: Deployment, **by: Unpack[audit.By]) -> None:
    """With its pool. Raises InUse while aliases or other deployments name it."""
    row = Deployment.objects.select_for_update().get(pk=deployment.pk)
    if names := users(row):
        raise InUse(_("It is used by: %(names)s. Change those first.") % {"names": ", ".join(names)})
    audit.record(verb="deployment.deleted", target=f"deployment {row}", before={"served_model": row.served_model}, **by)
    row.delete()


def users(deployment: Deployment) -> list[str]:
    """What names it, as people read it: `acme/general`, then deployments."""
    aliases = [*deployment.aliases.select_related("tenant"), *deployment.canary_aliases.select_related("tenant")]
    named = sorted({f"{alias.tenant.slug}/{alias.name}" for alias in aliases})
    return named + [row.name for row in falling_back_to(deployment)]


def falling_back_to(deployment: Deployment) -> list[Deployment]:
    """The deployments that hand calls on to it."""
    found = Deployment.objects.filter(fallback=deployment) | Deployment.objects.filter(context_fallback=deployment)
    return list(found.order_by("name"))


def _write(revision: Revision[Deployment], values: Values, pool: Mapping[str, Terms], by: audit.By) -> bool:
    row = revision.row
    for name, value in values.items():
        if name in fallbacks.FIELDS:
            revision.put_row(name, value)
        else:
            revision.put(name, value)
    members = row.members.select_related("backend") if not revision.is_new else ()
    held = {member.backend.name: Terms.of(member) for member in members}
    if pool != held:
        revision.tell("backends", *({name: terms.shown for name, terms in side.items()} for side in (held, pool)))
    if not revision.changed:
        return False
    row.full_clean()
    revision.write()
    pools.write(row, pool, {backend.name: backend for backend in Backend.objects.filter(name__in=pool)})
    revision.record(**by)
    return True
