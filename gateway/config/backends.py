"""The verbs of backends: each is one transaction with one audit event, in force on every worker within a second.

Taking one out of service for a while: draining.py. The credential is told nowhere, in the audit trail by a mask.
"""

from typing import Any, Final, Unpack

from django.db import transaction
from django.db.models import ProtectedError
from django.utils.translation import gettext as _

from accounts import audit
from accounts.audit import MASK
from gateway.config.documents import base_url
from gateway.config.revision import InUse, Revision
from gateway.models import Backend


class _Keep:
    """In the place of a credential: the one that is held."""


KEEP: Final = _Keep()


@transaction.atomic
def create(name: str, url: str, credential: str | None, **by: Unpack[audit.By]) -> Backend:
    """A backend of no pool yet. credential None: it asks for none. Raises ValidationError."""
    revision = Revision("backend", name, Backend(name=name), is_new=True)
    _put(revision, url, credential)
    _written(revision, by)
    return revision.row


@transaction.atomic
def change(backend: Backend, *, url: str, credential: str | _Keep | None = KEEP, **by: Unpack[audit.By]) -> bool:
    """Calls that run end where they are. False: it was so already. Raises ValidationError."""
    row = Backend.objects.select_for_update().get(pk=backend.pk)
    revision = Revision("backend", row.name, row, is_new=False)
    _put(revision, url, credential)
    if not revision.changed:
        return False
    _written(revision, by)
    return True


@transaction.atomic
def delete(backend: Backend, **by: Unpack[audit.By]) -> None:
    """Raises InUse while a deployment has it in its pool."""
    try:
        Backend.objects.get(pk=backend.pk).delete()
    except ProtectedError:
        pools = ", ".join(member.deployment.name for member in backend.memberships.select_related("deployment"))
        raise InUse(
            _("Deployments that have it in their pool: %(names)s. Take it out there first.") % {"names": pools}
        ) from None
    audit.record(verb="backend.deleted", target=f"backend {backend}", before={"url": backend.url}, **by)


def _put(revision: Revision[Backend], url: str, credential: str | _Keep | None) -> None:
    row = revision.row
    try:
        revision.put("url", base_url(url))
    except ValueError:  # full_clean says it in the field's words
        row.url = url
    if isinstance(credential, _Keep):
        return
    held = row.credential_ciphertext
    if not _holds(row, credential):
        row.credential = credential
        masks: tuple[Any, ...] = tuple(MASK if side else None for side in (held, credential))
        revision.tell("credential", *masks, column="credential_ciphertext")


def _holds(row: Backend, credential: str | None) -> bool:
    try:
        return row.credential == credential
    except ValueError:  # its field key has left the settings: whatever comes replaces it
        return False


def _written(revision: Revision[Backend], by: audit.By) -> None:
    revision.row.full_clean()
    revision.write()
    revision.record(**by)
