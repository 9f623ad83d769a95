"""The playground's key as the gateway learns of it: a text that was replaced is forgotten, the new one known at once."""

from collections.abc import Callable
from typing import Unpack

from django.db import transaction

from accounts import audit, playground
from accounts.models import Tenant, User
from gateway.config import publish


def key_text(
    tenant: Tenant, person: User, held: Callable[[], str | None], keep: Callable[[str], None], **by: Unpack[audit.By]
) -> str:
    """The text of the person's key. held: the one that is kept, asked again once nobody else can renew it; keep: a new one.

    What is returned is published. Raises IssuingError for a tenant that is suspended.
    """
    with transaction.atomic():
        playground.lock(person)
        text = held()
        if text is None:
            made = playground.renew(tenant, person, **by)
            text = made.text
            if made.replaced is not None:
                publish.note(publish.Kind.KEY, made.replaced)
            keep(text)
    publish.drain()  # whoever made it may not have come to that yet
    return text
