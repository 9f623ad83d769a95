"""The tables of how calls are served: backends, deployments and pools, aliases, content policies; what is yet to publish.

Whoever writes these rows does so inside a transaction: the note that publishes them is in it too (config/publish.py).
"""

import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import Any, ClassVar, Final, Self

from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models.signals import post_save
from django.dispatch import receiver
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from accounts.models import ApiKey, Tenant
from gateway.api.chat_request import default_problems
from gateway.api.fields import GRANTS, MAX_CHOICES, MAX_STOPS
from gateway.api.languages import LANGUAGES
from gateway.config import encryption, fallbacks
from gateway.config.documents import base_url
from gateway.config.limits import PRICE_MAX
from usage import limits

NAME: Final = RegexValidator(
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", _("Use letters, digits, dots, underscores and hyphens; 64 characters at most.")
)
ALIAS_NAME: Final = RegexValidator(
    r"^[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}\Z",
    _("Begin with a letter or digit; then also . _ / : and hyphens; 128 characters at most."),
)
PRICE_RANGE: Final = (MinValueValidator(0), MaxValueValidator(PRICE_MAX))
TIER_MAX: Final = 9
WAIT_MIN_S: Final = 0.05
WAIT_MAX_S: Final = 86_400.0
TEXT_MAX_LENGTH: Final = 2000
DEFAULTS_MAX_LENGTH: Final = 16_384


def _range(low: float, high: float, message: Any) -> tuple[MinValueValidator, MaxValueValidator]:
    """Both ends inclusive; message: what is expected, whichever end is passed."""
    return MinValueValidator(low, message), MaxValueValidator(high, message)


CEILING: Final = (MinValueValidator(1, _("Give a ceiling of 1 call or more, or none for no ceiling.")),)
TIER: Final = _range(0, TIER_MAX, _("Give a tier from 0, which is tried first, to 9."))
WAIT: Final = _range(WAIT_MIN_S, WAIT_MAX_S, _("Give 0.05 to 86400 seconds, or none for what the installation's setting says."))
QUEUE: Final = _range(
    0, WAIT_MAX_S, _("Give 0 (never wait) to 86400 seconds, or none for what the installation's setting says.")
)
PERCENT: Final = _range(0, 100, _("Give the canary's share of the calls, from 0 to 100 percent."))


def validate_base_url(text: str) -> None:
    try:
        base_url(text)
    except ValueError as error:
        raise ValidationError(str(error)) from error


def validate_texts(texts: Any) -> None:
    """Texts by language: {"en": "...", "ja": "..."}, each optional."""
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValidationError(_("Give texts by language, such as {en: General, ja: 汎用}."))
    if unknown := sorted(set(texts) - set(LANGUAGES)):
        facts = {"unknown": ", ".join(map(str, unknown)), "known": ", ".join(LANGUAGES)}
        raise ValidationError(_("No such language: %(unknown)s. There are: %(known)s."), params=facts)
    if any(len(text) > TEXT_MAX_LENGTH for text in texts.values()):
        raise ValidationError(_("A text has %(most)d characters at most."), params={"most": TEXT_MAX_LENGTH})


def validate_grant(name: str) -> None:
    if name not in GRANTS:
        facts = {"name": name, "known": ", ".join(sorted(GRANTS))}
        raise ValidationError(_("“%(name)s” cannot be granted. What can: %(known)s."), params=facts)


def validate_defaults(defaults: Any) -> None:
    """Request fields by name, as in a request's JSON."""
    if not isinstance(defaults, dict):
        raise ValidationError(_("Give request fields by name, such as {temperature: 0.2}."))
    try:
        length = len(json.dumps(defaults, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValidationError(_("Defaults must be plain JSON.")) from error
    if length > DEFAULTS_MAX_LENGTH:
        raise ValidationError(_("Defaults have %(most)d characters at most."), params={"most": DEFAULTS_MAX_LENGTH})
    if problems := default_problems(defaults):
        raise ValidationError([f"{place} {message}" for place, message in problems])


class Backend(models.Model):
    """One vLLM base URL. The credential is sent to it as Bearer; at rest it is encrypted.

    is_draining: it gets no new calls; those it has come to their end. Switched by config/draining.py.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(_("name"), max_length=64, unique=True, validators=[NAME])
    url = models.CharField(max_length=500, validators=[validate_base_url])
    credential_ciphertext = models.TextField(blank=True, editable=False)
    is_draining = models.BooleanField(default=False)

    class Meta:
        ordering: ClassVar = ["name"]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(url__regex=r"^https?://[^/?#@\s]+(/[^?#\s]*[^/?#\s])?$") & ~models.Q(url__endswith="/v1"),
                name="backend_url_is_base",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        with suppress(ValueError):  # the field's own validator has said it
            self.url = base_url(self.url)

    @property
    def credential(self) -> str | None:
        """The credential in the clear. Raises ValueError when its field key has left the settings."""
        return encryption.decrypt(self.credential_ciphertext) if self.credential_ciphertext else None

    @credential.setter
    def credential(self, text: str | None) -> None:
        self.credential_ciphertext = encryption.encrypt(text) if text else ""


class Deployment(models.Model):
    """One served model: vLLM's own name for it, and the backends that serve it, by tier and weight.

    max_concurrent_calls: over all backends and workers. fallback, context_fallback: who takes a call over where every backend
    is out, where the prompt does not fit; never in a circle. *_max_s: seconds a call may wait for its first token, between
    two, and for a free place. What is None is not limited, not handed over, or as the settings say.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(_("name"), max_length=64, unique=True, validators=[NAME])
    served_model = models.CharField(
        max_length=256, validators=[RegexValidator(r"^[^\x00-\x20\x7f]+\Z", _("Use no spaces or control characters."))]
    )
    max_model_len = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])  # tokens
    schedules_by_priority = models.BooleanField(default=False)
    max_concurrent_calls = models.PositiveIntegerField(null=True, blank=True, validators=CEILING)
    fallback = models.ForeignKey("self", models.PROTECT, null=True, blank=True, related_name="+")
    context_fallback = models.ForeignKey("self", models.PROTECT, null=True, blank=True, related_name="+")
    first_token_max_s = models.FloatField(null=True, blank=True, validators=WAIT)
    stall_max_s = models.FloatField(null=True, blank=True, validators=WAIT)
    queue_max_s = models.FloatField(null=True, blank=True, validators=QUEUE)

    class Meta:
        ordering: ClassVar = ["name"]
        constraints: ClassVar = [
            models.CheckConstraint(condition=models.Q(max_model_len__gt=0), name="deployment_context_positive"),
            models.CheckConstraint(condition=models.Q(max_concurrent_calls__gt=0), name="deployment_ceiling_positive"),
            models.CheckConstraint(
                condition=~models.Q(fallback=models.F("id")) & ~models.Q(context_fallback=models.F("id")),
                name="deployment_falls_back_to_another",
            ),
            models.CheckConstraint(
                condition=models.Q(first_token_max_s__range=(WAIT_MIN_S, WAIT_MAX_S)), name="deployment_first_token_range"
            ),
            models.CheckConstraint(
                condition=models.Q(stall_max_s__range=(WAIT_MIN_S, WAIT_MAX_S)), name="deployment_stall_range"
            ),
            models.CheckConstraint(condition=models.Q(queue_max_s__range=(0, WAIT_MAX_S)), name="deployment_queue_range"),
        ]

    def __str__(self) -> str:
        return self.name

    def validate_constraints(self, exclude: Collection[str] | None = None) -> None:
        """Also those over several rows: where this one's fallbacks lead."""
        super().validate_constraints(exclude)
        rows = [*Deployment.objects.exclude(pk=self.pk), self]
        errors: dict[str, Any] = {p.field: p.message for p in fallback_problems(rows) if p.deployment == self.name}
        if errors:
            raise ValidationError(errors)


def fallback_problems(rows: Iterable[Deployment]) -> Iterator[fallbacks.Problem]:
    """What is wrong with where `rows`, which are all there are, hand calls on to."""
    return fallbacks.problems(_ways(rows))


def users_first(rows: Iterable[Deployment]) -> list[str]:
    """The names of `rows`, which are all there are, in an order in which they can be deleted."""
    return fallbacks.users_first(_ways(rows))


def _ways(rows: Iterable[Deployment]) -> dict[str, fallbacks.Ways]:
    held = list(rows)
    names: dict[Any, str] = {None: "", **{row.pk: row.name for row in held}}
    return {
        row.name: fallbacks.Ways(
            fallback=names[row.fallback_id] or None,
            context_fallback=names[row.context_fallback_id] or None,
            max_model_len=row.max_model_len,
        )
        for row in held
    }


class PoolMember(models.Model):
    """A backend's place in a deployment's pool; twice the weight gets twice the calls. tier: 0 is tried first.

    max_concurrent_calls: of this deployment at this backend, over all workers; None: no ceiling.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    deployment = models.ForeignKey(Deployment, models.CASCADE, related_name="members")
    backend = models.ForeignKey(Backend, models.PROTECT, related_name="memberships")
    weight = models.PositiveSmallIntegerField(default=1, validators=[MinValueValidator(1), MaxValueValidator(1000)])
    tier = models.PositiveSmallIntegerField(default=0, validators=TIER)
    max_concurrent_calls = models.PositiveIntegerField(null=True, blank=True, validators=CEILING)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["deployment", "backend"], name="pool_member_once"),
            models.CheckConstraint(condition=models.Q(weight__range=(1, 1000)), name="pool_member_weight_range"),
            models.CheckConstraint(condition=models.Q(tier__range=(0, TIER_MAX)), name="pool_member_tier_range"),
            models.CheckConstraint(condition=models.Q(max_concurrent_calls__gt=0), name="pool_member_ceiling_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.backend} in {self.deployment}"


class ModelAlias(models.Model):
    """The model name a tenant's clients send. max_output_tokens None: the deployment's own limit.

    grants: privileged request fields this alias allows. defaults: request fields set where the client leaves them out.
    canary: gets canary_percent of the calls in the place of deployment. policies: names of content policies, see ContentPolicy.
    price_*: units of the installation's currency per million tokens; none: calls cost nothing. price_cached None: cached
    prompt tokens cost what the others do.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="aliases")
    name = models.CharField(_("name"), max_length=128, validators=[ALIAS_NAME])
    deployment = models.ForeignKey(Deployment, models.PROTECT, related_name="aliases")
    canary = models.ForeignKey(Deployment, models.PROTECT, null=True, blank=True, related_name="canary_aliases")
    canary_percent = models.PositiveSmallIntegerField(default=0, validators=PERCENT)
    max_output_tokens = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    display_name = models.JSONField(default=dict, blank=True, validators=[validate_texts])
    description = models.JSONField(default=dict, blank=True, validators=[validate_texts])
    max_choices = models.PositiveSmallIntegerField(default=8, validators=[MinValueValidator(1), MaxValueValidator(MAX_CHOICES)])
    max_stops = models.PositiveSmallIntegerField(default=4, validators=[MaxValueValidator(MAX_STOPS)])
    grants = ArrayField(models.CharField(max_length=64, validators=[validate_grant]), default=list, blank=True)
    defaults = models.JSONField(default=dict, blank=True, validators=[validate_defaults])
    policies = ArrayField(models.CharField(max_length=64), default=list, blank=True)
    price_prompt = models.DecimalField(max_digits=12, decimal_places=6, null=True, blank=True, validators=PRICE_RANGE)
    price_cached = models.DecimalField(max_digits=12, decimal_places=6, null=True, blank=True, validators=PRICE_RANGE)
    price_completion = models.DecimalField(max_digits=12, decimal_places=6, null=True, blank=True, validators=PRICE_RANGE)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["tenant", "name"]
        verbose_name_plural = "model aliases"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant", "name"], name="alias_name_unique_in_tenant"),
            models.CheckConstraint(
                condition=models.Q(name__regex=r"^[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}$"), name="alias_name_form"
            ),
            models.CheckConstraint(condition=models.Q(max_output_tokens__gt=0), name="alias_output_positive"),
            models.CheckConstraint(condition=models.Q(max_choices__range=(1, MAX_CHOICES)), name="alias_choices_range"),
            models.CheckConstraint(condition=models.Q(max_stops__range=(0, MAX_STOPS)), name="alias_stops_range"),
            models.CheckConstraint(condition=models.Q(canary_percent__range=(0, 100)), name="alias_canary_percent_range"),
            models.CheckConstraint(
                condition=models.Q(canary_percent=0) | models.Q(canary__isnull=False), name="alias_canary_is_named"
            ),
            models.CheckConstraint(
                condition=models.Q(price_prompt=None, price_cached=None, price_completion=None)
                | models.Q(price_prompt__isnull=False, price_completion__isnull=False),
                name="alias_price_whole",
            ),
            models.CheckConstraint(
                condition=models.Q(price_prompt__gte=0, price_cached__gte=0, price_completion__gte=0),
                name="alias_price_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        if self.canary_percent and self.canary_id is None:
            text = _("A canary percent needs a canary: name its deployment, or give 0 percent.")
            raise ValidationError({NON_FIELD_ERRORS: text})

    def validate_constraints(self, exclude: Collection[str] | None = None) -> None:
        """Also those over several rows: that its policies are there."""
        super().validate_constraints(exclude)
        known = set(ContentPolicy.objects.nameable_by(self.tenant).values_list("name", flat=True))
        if unknown := sorted(set(self.policies) - known):
            facts = {"unknown": ", ".join(unknown), "known": ", ".join(sorted(known)) or "-"}
            text = _("No such policy is published: %(unknown)s. There are: %(known)s.") % facts
            raise ValidationError({"policies": text})


class QuotaPlan(models.Model):
    """A named set of limits that tenants are put on. Written by config/quota_plans.py."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(_("name"), max_length=64, unique=True, validators=[NAME])

    class Meta:
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name


class PlannedTenant(models.Model):
    """That a tenant is on a plan: its own limits are then copies of the plan's. Who gives it others takes it off the plan."""

    tenant = models.OneToOneField(Tenant, models.CASCADE, primary_key=True, related_name="planned")
    plan = models.ForeignKey(QuotaPlan, models.PROTECT, related_name="tenants")

    def __str__(self) -> str:
        return f"{self.tenant} on {self.plan}"


class LimitQuerySet(models.QuerySet["Limit"]):
    def for_tenant(self, tenant: Tenant) -> Self:
        """The tenant's own limits, and those of its keys and aliases."""
        return self.filter(models.Q(tenant=tenant) | models.Q(key__tenant=tenant) | models.Q(alias__tenant=tenant))


class Limit(models.Model):
    """How much one tenant, key or alias may use, or each tenant on a plan. max: model tokens, calls, or nano-units of money.

    shadow: counted and reported, never refused. clamps: an output that does not fit is shortened instead of refused.
    """

    class Mode(models.TextChoices):
        ENFORCE = "enforce", _("Enforced")
        SHADOW = "shadow", _("Only counted")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, null=True, blank=True, related_name="limits")
    key = models.ForeignKey(ApiKey, models.CASCADE, null=True, blank=True, related_name="limits")
    alias = models.ForeignKey(ModelAlias, models.CASCADE, null=True, blank=True, related_name="limits")
    plan = models.ForeignKey(QuotaPlan, models.CASCADE, null=True, blank=True, related_name="limits")
    name = models.CharField(max_length=32, choices=[(name, name) for name in limits.NAMES])
    max = models.BigIntegerField(validators=[MinValueValidator(1), MaxValueValidator(limits.MAX)])
    mode = models.CharField(max_length=8, choices=Mode, default=Mode.ENFORCE)
    clamps = models.BooleanField(default=False)

    objects = LimitQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(tenant__isnull=False, key=None, alias=None, plan=None)
                | models.Q(tenant=None, key__isnull=False, alias=None, plan=None)
                | models.Q(tenant=None, key=None, alias__isnull=False, plan=None)
                | models.Q(tenant=None, key=None, alias=None, plan__isnull=False),
                name="limit_has_one_subject",
            ),
            models.UniqueConstraint(fields=["tenant", "name"], name="limit_once_a_tenant"),
            models.UniqueConstraint(fields=["key", "name"], name="limit_once_a_key"),
            models.UniqueConstraint(fields=["alias", "name"], name="limit_once_an_alias"),
            models.UniqueConstraint(fields=["plan", "name"], name="limit_once_a_plan"),
            models.CheckConstraint(condition=models.Q(name__in=limits.NAMES), name="limit_name_known"),
            models.CheckConstraint(condition=models.Q(max__range=(1, limits.MAX)), name="limit_max_range"),
            models.CheckConstraint(condition=models.Q(mode__in=["enforce", "shadow"]), name="limit_mode_known"),
            models.CheckConstraint(
                condition=models.Q(clamps=False) | models.Q(mode="enforce", name__in=sorted(limits.CLAMPABLE)),
                name="limit_clamps_where_it_can",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} of {self.subject}"

    @property
    def subject(self) -> str:
        """key, alias, plan or tenant: whose limit this is."""
        return "key" if self.key_id else "alias" if self.alias_id else "plan" if self.plan_id else "tenant"

    @property
    def configured(self) -> limits.Limit:
        """As the gateway reads it."""
        return limits.Limit(self.name, self.max, self.mode, self.clamps)  # type: ignore[arg-type] # mode: a constraint's

    @classmethod
    def replace_all(cls, subject: Tenant | ApiKey | ModelAlias | QuotaPlan, wanted: Iterable[limits.Limit]) -> None:
        """Make `wanted` the limits of `subject`, and all of them. Rows that say so already are left alone.

        A tenant whose limits differ from before is on no plan any more.
        """
        held = {row.name: row for row in subject.limits.all()}
        asked = {limit.name: limit for limit in wanted}
        if isinstance(subject, Tenant) and asked != {name: row.configured for name, row in held.items()}:
            PlannedTenant.objects.filter(tenant=subject).delete()
        for limit in asked.values():
            row = held.pop(limit.name, None)
            if row is None:
                subject.limits.create(**asdict(limit))
            elif row.configured != limit:
                row.max, row.mode, row.clamps = limit.max, limit.mode, limit.clamps
                row.save()
        for row in held.values():
            row.delete()


@receiver(post_save, sender=ApiKey, dispatch_uid="limits-inherited")
def inherit_limits(instance: ApiKey, created: bool, **_: Any) -> None:
    """A key that succeeds another is limited as that one was: rotation frees nobody of a limit."""
    if created:
        for limit in Limit.objects.filter(key__successor=instance):
            Limit.objects.create(key=instance, **asdict(limit.configured))


class ConfigChange(models.Model):
    """The outbox: a document that is yet to be published. Written in the transaction of the change it tells of.

    object_id: "" for the platform, the tenant's id, the key's lookup id.
    """

    class Kind(models.TextChoices):
        PLATFORM = "platform"
        TENANT = "tenant"
        KEY = "key"

    kind = models.CharField(max_length=8, choices=Kind)
    object_id = models.CharField(max_length=64, blank=True)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(kind="platform", object_id="")
                | (models.Q(kind__in=["tenant", "key"]) & ~models.Q(object_id="")),
                name="config_change_names_document",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.object_id}"


class Publication(models.Model):
    """The one row that says which marker Redis must hold; another one there, or none, and Redis has lost something."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    marker = models.CharField(max_length=64)

    class Meta:
        constraints: ClassVar = [models.CheckConstraint(condition=models.Q(id=1), name="publication_only_one")]

    def __str__(self) -> str:
        return self.marker


class ContentPolicyQuerySet(models.QuerySet["ContentPolicy"]):
    def for_tenant(self, tenant: Tenant) -> Self:
        """Its own; the platform's are not among them."""
        return self.filter(tenant=tenant)

    def published(self) -> Self:
        return self.filter(published__isnull=False).select_related("published")

    def nameable_by(self, tenant: Tenant) -> Self:
        """What its aliases and keys may name: its own, and the platform's."""
        return self.published().filter(models.Q(tenant=tenant) | models.Q(tenant=None))


class ContentPolicy(models.Model):
    """What text may pass, as its published version says; without one it is not there. tenant None: the platform's.

    Aliases and keys name it, and mean the tenant's of that name before the platform's. is_everywhere: it applies to all calls
    of its tenant, or of every tenant, unnamed. Written by config/policies.py.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, null=True, blank=True, related_name="policies")
    name = models.CharField(_("name"), max_length=64, validators=[NAME])
    is_everywhere = models.BooleanField(default=False)
    published = models.ForeignKey(
        "ContentPolicyVersion", models.PROTECT, null=True, blank=True, editable=False, related_name="+"
    )

    objects = ContentPolicyQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["name"]
        verbose_name_plural = "content policies"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant", "name"], nulls_distinct=False, name="policy_name_unique_in_tenant"),
            models.CheckConstraint(
                condition=models.Q(name__regex=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"), name="policy_name_form"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def label(self) -> str:
        """As diffs, the audit trail and commands name it: `no-secrets`, `acme/no-secrets`."""
        return f"{self.tenant.slug}/{self.name}" if self.tenant else self.name

    def users(self) -> list[str]:
        """What names it and could name no other in its place: `alias acme/general`, `key acme/ci`."""
        others = ContentPolicy.objects.published().filter(name=self.name).exclude(pk=self.pk)
        tenants = Tenant.objects.all()
        if self.tenant_id is None:
            tenants = tenants.exclude(pk__in=others.values("tenant"))
        else:
            tenants = tenants.filter(pk=self.tenant_id) if not others.filter(tenant=None).exists() else tenants.none()
        names = {"policies__contains": [self.name], "tenant__in": tenants}
        aliases = ModelAlias.objects.filter(**names).select_related("tenant")
        rotated_away = models.Q(successor__isnull=False, expires_at__lte=timezone.now())
        keys = ApiKey.objects.filter(**names, revoked_at=None).exclude(rotated_away).select_related("tenant")
        users = {f"alias {row.tenant}/{row.name}" for row in aliases} | {f"key {row.tenant}/{row.name}" for row in keys}
        return sorted(users)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """With all its versions. Raises ProtectedError while it has users: without it their calls would be refused."""
        if users := self.users():
            facts = {"name": self.name, "users": ", ".join(users)}
            text = _("“%(name)s” is used by: %(users)s. Take its name out there first.") % facts
            raise models.ProtectedError(text, set(users))  # type: ignore[arg-type] # labels: a name does not say whose
        return super().delete(*args, **kwargs)


class ContentPolicyVersion(models.Model):
    """Rules as they are written (gateway/policy/rules.py). One that is no draft never changes, and goes only with its policy.

    A trigger sees to that, and so it is PostgreSQL that deletes versions. created_by: as in the audit trail.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    policy = models.ForeignKey(ContentPolicy, models.DO_NOTHING, related_name="versions", db_constraint=False)
    number = models.PositiveIntegerField()
    rules = models.JSONField()
    is_draft = models.BooleanField(default=False)
    created_by = models.CharField(max_length=254)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["policy", "number"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["policy", "number"], name="policy_version_number_once"),
            models.UniqueConstraint(fields=["policy"], condition=models.Q(is_draft=True), name="policy_has_one_draft"),
            models.CheckConstraint(condition=models.Q(number__gte=1), name="policy_version_from_one"),
        ]

    def __str__(self) -> str:
        return f"{self.policy} version {self.number}"
