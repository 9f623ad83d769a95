"""Tenants, the boundary of isolation and billing, and the memberships of people in them."""

import zoneinfo
from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from accounts.querysets import MembershipQuerySet, TenantQuerySet
from accounts.roles import Role

SLUG = RegexValidator(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z", _("Use a-z, 0-9 and hyphens, 63 characters at most."))
ORIGIN = RegexValidator(
    r"^https?://[a-z0-9.-]+(:[0-9]{1,5})?\Z", _("An origin is like https://app.example.com, without a path.")
)


def validate_time_zone(name: str) -> None:
    if name not in zoneinfo.available_timezones():
        raise ValidationError(_("“%(name)s” is no time zone; an example is Asia/Tokyo."), params={"name": name})


class ErrorDialect(models.TextChoices):
    OPENAI = "openai", _("OpenAI: {error: {type, code, message}}")
    DETAIL = "detail", _("mdx: {detail}")
    BOTH = "both", _("Both, side by side")


class UnknownFields(models.TextChoices):
    DROP = "drop", _("Leave out, and say so in a header")
    REJECT = "reject", _("Refuse the request")
    PASS = "pass", _("Pass on to the backend")


class StoreOut(models.TextChoices):
    """What becomes of calls while the store that counts them is out."""

    CLOSED = "closed", _("Refuse calls")
    DEGRADED = "degraded", _("Serve on; each gateway worker enforces its share of the limits")


class Language(models.TextChoices):
    """Each in its own words."""

    JA = "ja", "日本語"
    EN = "en", "English"


class Tenant(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    slug = models.CharField(max_length=63, unique=True, validators=[SLUG])
    name = models.CharField(_("name"), max_length=100)
    is_active = models.BooleanField(default=True)
    suspension_reason = models.CharField(max_length=300, blank=True)
    error_dialect = models.CharField(max_length=8, choices=ErrorDialect, default=ErrorDialect.OPENAI)
    unknown_fields = models.CharField(max_length=8, choices=UnknownFields, default=UnknownFields.DROP)
    time_zone = models.CharField(_("time zone"), max_length=64, default="Asia/Tokyo", validators=[validate_time_zone])
    # Of what is written to people before they chose one of their own: invitations, reports.
    language = models.CharField(_("language"), max_length=8, choices=Language, default=Language.JA)
    priority = models.SmallIntegerField(default=0)
    cors_origins = ArrayField(models.CharField(max_length=255, validators=[ORIGIN]), default=list, blank=True)
    store_out = models.CharField(max_length=8, choices=StoreOut, default=StoreOut.CLOSED)
    # How long its ledger and rollups are kept.
    usage_retention_days = models.PositiveIntegerField(default=400, validators=[MinValueValidator(1), MaxValueValidator(3650)])
    is_demo = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = TenantQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["slug"]
        constraints: ClassVar = [
            models.CheckConstraint(condition=models.Q(error_dialect__in=ErrorDialect.values), name="tenant_dialect_known"),
            models.CheckConstraint(condition=models.Q(unknown_fields__in=UnknownFields.values), name="tenant_unknown_known"),
            models.CheckConstraint(condition=models.Q(language__in=Language.values), name="tenant_language_known"),
            models.CheckConstraint(condition=models.Q(store_out__in=StoreOut.values), name="tenant_store_out_known"),
            models.CheckConstraint(condition=models.Q(usage_retention_days__range=(1, 3650)), name="tenant_retention_range"),
        ]

    def __str__(self) -> str:
        return self.slug

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        return zoneinfo.ZoneInfo(self.time_zone)


class Membership(models.Model):
    """A person's role in a tenant; one role each."""

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="memberships")
    user = models.ForeignKey("accounts.User", models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = MembershipQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant", "user"], name="membership_one_role"),
            models.CheckConstraint(condition=models.Q(role__in=Role.values), name="membership_role_known"),
        ]

    def __str__(self) -> str:
        return f"{self.user} {self.role} of {self.tenant}"
