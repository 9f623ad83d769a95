"""The text of a person's playground key, kept for some minutes: encrypted, in the portal's cache, and never in a page."""

from typing import Final, Unpack

from django.core.cache import cache
from django.views.decorators.debug import sensitive_variables

from accounts.audit import By
from accounts.models import Tenant, User
from accounts.playground import LIFE
from gateway.config import encryption
from gateway.config.playground import key_text

# A text is handed out in the first half of its life, so that no call begins with one about to end.
KEPT_S: Final = int(LIFE.total_seconds() / 2)


@sensitive_variables("text")
def text_for(tenant: Tenant, person: User, **by: Unpack[By]) -> str:
    """One that the gateway knows. Raises IssuingError for a tenant that is suspended."""
    text = _held(tenant, person)
    return text or key_text(tenant, person, lambda: _held(tenant, person), lambda made: _keep(tenant, person, made), **by)


def forget(tenant: Tenant, person: User) -> None:
    """The gateway refuses it: an admin revoked it, or the database was restored."""
    cache.delete(_name(tenant, person))


@sensitive_variables("text")
def _keep(tenant: Tenant, person: User, text: str) -> None:
    cache.set(_name(tenant, person), encryption.encrypt(text), KEPT_S)


def _held(tenant: Tenant, person: User) -> str | None:
    kept = cache.get(_name(tenant, person))
    try:
        return encryption.decrypt(kept) if kept else None
    except ValueError:  # its field key was taken away
        return None


def _name(tenant: Tenant, person: User) -> str:
    return f"playground:key:{tenant.pk}:{person.pk}"
