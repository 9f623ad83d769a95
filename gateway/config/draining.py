"""The switch that takes a backend out of service: it gets no new calls, and those it has come to their end."""

from typing import Unpack

from django.db import transaction

from accounts import audit
from gateway.models import Backend, ConfigChange


@transaction.atomic
def drain(backend: Backend, **by: Unpack[audit.By]) -> bool:
    """Let `backend` get no new calls; in force on every worker within a second. False when it was draining already."""
    return _switch(backend, "backend.drained", to=True, **by)


@transaction.atomic
def resume(backend: Backend, **by: Unpack[audit.By]) -> bool:
    """Let `backend` get calls again. False when it was not draining."""
    return _switch(backend, "backend.resumed", to=False, **by)


def is_published() -> bool:
    """Do the gateways have all that was committed? Not while Redis is out, nor for a moment after a change."""
    return not ConfigChange.objects.exists()


def _switch(backend: Backend, verb: str, *, to: bool, **by: Unpack[audit.By]) -> bool:
    held = Backend.objects.select_for_update().get(pk=backend.pk).is_draining
    backend.is_draining = to
    if held == to:
        return False
    backend.save(update_fields=["is_draining"])
    audit.record(verb=verb, target=f"backend {backend}", before={"draining": held}, after={"draining": to}, **by)
    return True
