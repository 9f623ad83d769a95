"""Audit events: who did what to what, chained by hashes so that a changed or missing row shows."""

from typing import ClassVar

from django.db import models

from accounts.models.tenants import Tenant
from accounts.models.users import User
from accounts.querysets import AuditEventQuerySet


class AuditEvent(models.Model):
    """One act. Written by accounts.audit.record alone, never changed; `sequence` has no gaps.

    digest: hex HMAC-SHA-256 over the previous event's digest and this event's content.
    """

    sequence = models.PositiveBigIntegerField(primary_key=True)
    created_at = models.DateTimeField()
    actor = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    actor_label = models.CharField(max_length=254)  # e-mail, or "command: keys create": stays when the user is gone
    tenant = models.ForeignKey(Tenant, models.SET_NULL, null=True, related_name="+")
    tenant_slug = models.CharField(max_length=63, blank=True)
    verb = models.CharField(max_length=64)  # key.issued, key.revoked, alias.changed, ...
    target = models.CharField(max_length=200)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    address = models.GenericIPAddressField(null=True)
    request_id = models.CharField(max_length=64, blank=True)
    digest = models.CharField(max_length=64)

    objects = AuditEventQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["-sequence"]
        # A page of one tenant's events, of one verb's or of one person's, reads its rows alone, however many others there are.
        indexes: ClassVar = [
            models.Index(fields=["tenant", "sequence"], name="audit_of_tenant"),
            models.Index(fields=["verb", "sequence"], name="audit_of_verb"),
            models.Index(fields=["target", "sequence"], name="audit_of_target"),
        ]

    def __str__(self) -> str:
        return f"{self.sequence} {self.verb} {self.target}"
