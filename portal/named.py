"""Rows as people name them on the command line; who names what is not there is told what there is."""

from django.core.management.base import CommandError

from accounts.models import Tenant
from gateway.models import ContentPolicy


def tenant(slug: str) -> Tenant:
    try:
        return Tenant.objects.get(slug=slug)
    except Tenant.DoesNotExist:
        slugs = ", ".join(Tenant.objects.values_list("slug", flat=True))
        raise CommandError(f"No tenant “{slug}”. There are: {slugs or 'none yet'}.") from None


def policy(name: str, owner: Tenant | None) -> ContentPolicy:
    """One of the tenant's own; owner None: of the platform's."""
    rows = ContentPolicy.objects.filter(tenant=owner)
    try:
        return rows.get(name=name)
    except ContentPolicy.DoesNotExist:
        names = ", ".join(rows.values_list("name", flat=True))
        whose = f"{owner} has" if owner else "The platform has"
        raise CommandError(f"{whose} no policy “{name}”. There are: {names or 'none yet'}.") from None
