"""API keys. The text of a key is never here: only its lookup id and its peppered digest."""

from ipaddress import ip_network
from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from accounts.models.tenants import ErrorDialect, Tenant
from accounts.querysets import ApiKeyQuerySet
from accounts.scopes import SCOPES


def validate_network(text: str) -> None:
    try:
        ip_network(text)
    except ValueError as error:
        raise ValidationError(_("“%(text)s” is no network; an example is 192.0.2.0/24."), params={"text": text}) from error


class ApiKey(models.Model):
    """aliases None: all of the tenant's. expires_at None: never. revoked_at: from then on, for ever, refused.

    policies: names of content policies its calls must pass; whether these exist is asked by the doors, not here.
    A rotated key has a successor and an expiry at the end of the overlap. Keys are revoked, never deleted one by one.
    is_playground: the portal calls with it for created_by, and nobody is shown its text (accounts/playground.py).
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="keys")
    name = models.CharField(
        _("name"), max_length=64, validators=[RegexValidator(r"^[^\x00-\x1f\x7f]+\Z", _("Use no control characters."))]
    )
    lookup_id = models.CharField(max_length=32, unique=True, editable=False)
    hint = models.CharField(max_length=32, editable=False)  # prefix and last 4, to recognise the key by
    pepper_id = models.CharField(max_length=16, editable=False)
    digest = models.CharField(max_length=64, editable=False)
    is_imported = models.BooleanField(default=False, editable=False)
    is_playground = models.BooleanField(default=False, editable=False)
    scopes = ArrayField(models.CharField(max_length=32, choices=[(s, s) for s in SCOPES]))
    aliases = ArrayField(models.CharField(max_length=128), null=True, blank=True)
    policies = ArrayField(models.CharField(max_length=64), default=list, blank=True)
    networks = ArrayField(models.CharField(max_length=43, validators=[validate_network]), default=list, blank=True)
    error_dialect = models.CharField(max_length=8, choices=ErrorDialect, null=True, blank=True)  # noqa: DJ001 - null: the tenant's
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    successor = models.OneToOneField("self", models.RESTRICT, null=True, blank=True, related_name="predecessor")
    created_by = models.ForeignKey("accounts.User", models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["tenant", "name"]
        constraints: ClassVar = [
            # A name may come again once its key is revoked or rotated away.
            models.UniqueConstraint(
                fields=["tenant", "name"],
                condition=models.Q(revoked_at=None, successor=None, is_playground=False),
                name="key_name_unique_while_current",
                violation_error_message=_("This tenant has a key of this name already."),
            ),
            models.UniqueConstraint(
                fields=["tenant", "created_by"],
                condition=models.Q(revoked_at=None, is_playground=True),
                name="key_of_playground_once_a_person",
            ),
            models.CheckConstraint(
                condition=models.Q(is_playground=False) | models.Q(expires_at__isnull=False, successor=None),
                name="key_of_playground_expires",
            ),
            models.CheckConstraint(condition=models.Q(scopes__contained_by=list(SCOPES)), name="key_scopes_known"),
            models.CheckConstraint(condition=models.Q(error_dialect__in=ErrorDialect.values), name="key_dialect_known"),
            models.CheckConstraint(
                condition=models.Q(successor=None) | models.Q(expires_at__isnull=False), name="key_rotated_expires"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.hint})"

    @property
    def state(self) -> str:
        """active, retiring (rotated, in its overlap), expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= timezone.now():
            return "expired"
        return "retiring" if self.successor_id else "active"

    @property
    def is_revisable(self) -> bool:
        """May its terms change? An expired one may be given a later end; a revoked or rotated one never, nor a playground's."""
        return self.revoked_at is None and self.successor_id is None and not self.is_playground
