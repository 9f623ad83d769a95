"""The tables of alerts: rules and webhooks, what fired, whom it was told, and the deliveries that are on their way.

tenant None: the platform's. What fired, its notices and its deliveries are written in one transaction (firing.py): a worker
that is killed leaves all of it or nothing.
"""

from typing import TYPE_CHECKING, ClassVar, Final

from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from accounts.models import Tenant, User
from accounts.roles import Role
from gateway.config import encryption
from portal.alerts import kinds
from usage import limits

if TYPE_CHECKING:
    from datetime import datetime

NAME: Final = RegexValidator(r"^[^\x00-\x1f\x7f]+\Z", _("Use no control characters."))
URL_LENGTH: Final = 500
ERROR_LENGTH: Final = 200


class Webhook(models.Model):
    """Where alerts are posted to. Its secret signs them; at rest it is encrypted. old_secret: signs too, until old_until."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, null=True, blank=True, related_name="webhooks")
    name = models.CharField(_("name"), max_length=64, validators=[NAME])
    url = models.CharField("URL", max_length=URL_LENGTH)
    secret_ciphertext = models.TextField(editable=False)
    old_secret_ciphertext = models.TextField(blank=True, editable=False)
    old_until = models.DateTimeField(null=True, blank=True, editable=False)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["name"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["tenant", "name"],
                nulls_distinct=False,
                name="webhook_name_once",
                violation_error_message=_("There is a webhook of this name already."),
            ),
            models.CheckConstraint(condition=models.Q(url__regex=r"^https?://[^\s]+$"), name="webhook_url_is_http"),
        ]

    def __str__(self) -> str:
        return self.name

    def secrets_at(self, now: "datetime") -> list[str]:
        """Those that sign now, the newest first. Raises ValueError when their field key has left the settings."""
        held = [self.secret_ciphertext]
        if self.old_secret_ciphertext and self.old_until is not None and self.old_until > now:
            held.append(self.old_secret_ciphertext)
        return [encryption.decrypt(text) for text in held]

    @property
    def has_old_secret(self) -> bool:
        return bool(self.old_secret_ciphertext) and self.old_until is not None and self.old_until > timezone.now()


class AlertRule(models.Model):
    """What is watched, and who is told. name "": it goes by what it watches. thresholds: in the unit of kinds.KINDS.

    limits: names of limits, [] for all. minutes, least_calls: of error rates. roles, people: members of the tenant; the
    platform's are told to all operators, or to `people`. tells_owner: who made the key that ends.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, null=True, blank=True, related_name="alert_rules")
    name = models.CharField(_("name"), max_length=64, blank=True, validators=[NAME])
    kind = models.CharField(max_length=16)
    thresholds = ArrayField(models.IntegerField())
    limits = ArrayField(models.CharField(max_length=32), default=list, blank=True)
    minutes = models.PositiveSmallIntegerField(
        default=kinds.MINUTES_FIRST, validators=[MinValueValidator(kinds.MINUTES_MIN), MaxValueValidator(kinds.MINUTES_MAX)]
    )
    least_calls = models.PositiveIntegerField(default=kinds.LEAST_CALLS_FIRST, validators=[MinValueValidator(1)])
    roles = ArrayField(models.CharField(max_length=16, choices=Role), default=list, blank=True)
    people = models.ManyToManyField(User, blank=True, related_name="+")
    webhooks = models.ManyToManyField(Webhook, blank=True, related_name="rules")
    tells_owner = models.BooleanField(default=False)
    sends_mail = models.BooleanField(default=True)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["kind", "name"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["tenant", "name"],
                condition=~models.Q(name=""),
                nulls_distinct=False,
                name="alert_rule_name_once",
                violation_error_message=_("There is a rule of this name already."),
            ),
            models.CheckConstraint(
                condition=models.Q(tenant__isnull=False, kind__in=kinds.OF_TENANTS)
                | models.Q(tenant=None, kind__in=kinds.OF_THE_PLATFORM),
                name="alert_rule_kind_known",
            ),
            models.CheckConstraint(condition=models.Q(thresholds__len__gte=1), name="alert_rule_has_threshold"),
            models.CheckConstraint(condition=models.Q(limits__contained_by=list(limits.NAMES)), name="alert_rule_limits_known"),
            models.CheckConstraint(condition=models.Q(roles__contained_by=Role.values), name="alert_rule_roles_known"),
            models.CheckConstraint(
                condition=models.Q(minutes__range=(kinds.MINUTES_MIN, kinds.MINUTES_MAX)), name="alert_rule_minutes_range"
            ),
        ]

    def __str__(self) -> str:
        return self.name or self.kind


class Alert(models.Model):
    """One firing. subject: what it is about, `limit:<id>`. facts: what is told of it, without words of any language.

    Once for a rule, a subject, a threshold and a window, and no second one while the first has not ended.
    ended_at None: it is so still. rule None: the rule is gone.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, null=True, blank=True, related_name="alerts")
    rule = models.ForeignKey(AlertRule, models.SET_NULL, null=True, related_name="alerts")
    rule_name = models.CharField(max_length=64, blank=True)
    kind = models.CharField(max_length=16)
    subject = models.CharField(max_length=200)
    threshold = models.IntegerField()
    window = models.CharField(max_length=64)
    facts = models.JSONField()
    fired_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar = ["-fired_at", "-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["rule", "subject", "threshold", "window"], name="alert_once_a_window"),
            models.UniqueConstraint(
                fields=["rule", "subject", "threshold"], condition=models.Q(ended_at=None), name="alert_one_open"
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["tenant", "-fired_at"], name="alert_of_tenant"),
            models.Index(fields=["rule"], condition=models.Q(ended_at=None), name="alert_open"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject} {self.threshold}"

    @property
    def level(self) -> kinds.Level:
        return kinds.KINDS[self.kind].level(self.threshold)


class Notice(models.Model):
    """An alert in a person's bell. is_end: that it is over. read_at None: not read yet."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    alert = models.ForeignKey(Alert, models.CASCADE, related_name="notices")
    user = models.ForeignKey(User, models.CASCADE, related_name="notices")
    is_end = models.BooleanField(default=False, db_default=False)
    read_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["alert", "user", "is_end"], name="notice_once")]
        indexes: ClassVar = [
            models.Index(fields=["user", "-id"], name="notice_of_user"),
            models.Index(fields=["user"], condition=models.Q(read_at=None), name="notice_unread"),
        ]

    def __str__(self) -> str:
        return f"{self.alert_id} for {self.user_id}"


class Delivery(models.Model):
    """The outbox: one alert, or its end, on its way to one webhook or one mailbox. alert None: somebody tries the webhook.

    next_at: when it is tried; while it is being tried, when whoever does so is given up. attempts: begun so far.
    """

    class State(models.TextChoices):
        WAITING = "waiting", _("On its way")
        DELIVERED = "delivered", _("Delivered")
        GIVEN_UP = "given_up", _("Given up")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, null=True, blank=True, related_name="+")
    alert = models.ForeignKey(Alert, models.CASCADE, null=True, related_name="deliveries")
    webhook = models.ForeignKey(Webhook, models.CASCADE, null=True, related_name="deliveries")
    user = models.ForeignKey(User, models.CASCADE, null=True, related_name="+")
    is_end = models.BooleanField(default=False, db_default=False)
    state = models.CharField(max_length=16, choices=State, default=State.WAITING)
    attempts = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField()
    next_at = models.DateTimeField()
    give_up_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar = ["-created_at", "-id"]
        verbose_name_plural = "deliveries"
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(webhook__isnull=False, user=None)
                | models.Q(webhook=None, user__isnull=False, alert__isnull=False),
                name="delivery_has_one_end",
            ),
            models.UniqueConstraint(fields=["alert", "webhook", "is_end"], name="delivery_once_a_webhook"),
            models.UniqueConstraint(fields=["alert", "user", "is_end"], name="delivery_once_a_person"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["next_at"], condition=models.Q(state="waiting"), name="delivery_due"),
            models.Index(fields=["tenant", "-created_at"], name="delivery_of_tenant"),
            models.Index(fields=["webhook", "-created_at"], name="delivery_of_webhook"),
        ]

    def __str__(self) -> str:
        return f"{self.id} {self.state}"


class Attempt(models.Model):
    """One try of a delivery. status None: no answer came; error: why not, in our own words. answer: its first characters."""

    delivery = models.ForeignKey(Delivery, models.CASCADE, related_name="tries")
    number = models.PositiveIntegerField()
    at = models.DateTimeField()
    took_ms = models.PositiveIntegerField()
    status = models.PositiveSmallIntegerField(null=True)
    error = models.CharField(max_length=ERROR_LENGTH, blank=True)
    answer = models.CharField(max_length=ERROR_LENGTH, blank=True)

    class Meta:
        ordering: ClassVar = ["number"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["delivery", "number"], name="attempt_once")]

    def __str__(self) -> str:
        return f"{self.delivery_id} attempt {self.number}"
