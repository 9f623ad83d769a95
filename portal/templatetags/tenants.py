"""Why a tenant's calls are all refused: who suspended it, and when."""

from django import template

from accounts.models import AuditEvent, Tenant

register = template.Library()


@register.simple_tag
def suspension(tenant: Tenant) -> AuditEvent | None:
    """The event by which it was suspended; None where it is older than the trail."""
    ended = AuditEvent.objects.for_tenant(tenant).filter(verb__in=("tenant.suspended", "tenant.changed"))
    return ended.filter(after__is_active=False).select_related("actor").first()
