"""The usage tables: the ledger, and the rollups that every report is answered from.

They carry names and ids, no foreign keys: usage outlives the tenant, key or alias it tells of. Written by ledger.post,
rollups.realign and retention alone. Beside them: what the backends counted themselves, and what reconciliations found.
"""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models

from usage import histograms


class UsageRecord(models.Model):
    """The ledger: one call ended, or the correction of one (part 1). Inserted once, never changed; see its migration.

    A UsageEvent's fields under their own names; "" for a text that is not known. cost_nano: nano-units of the currency.
    Partitioned by month of created_at, which therefore belongs to the key: an event keeps its created_s for ever.
    """

    pk = models.CompositePrimaryKey("request_id", "part", "created_at")
    request_id = models.UUIDField()
    created_at = models.DateTimeField()
    tenant_id = models.UUIDField()
    key_id = models.UUIDField()
    prompt_tokens = models.BigIntegerField()
    cached_tokens = models.BigIntegerField()
    completion_tokens = models.BigIntegerField()
    reserved_tokens = models.BigIntegerField()
    cost_nano = models.BigIntegerField()
    first_token_ms = models.IntegerField(null=True)
    duration_ms = models.IntegerField()
    queue_ms = models.IntegerField()
    # Of the gateway's own time, microseconds; null: not reached, or told by an older release.
    auth_us = models.IntegerField(null=True)
    policy_us = models.IntegerField(null=True)
    admission_us = models.IntegerField(null=True)
    part = models.SmallIntegerField()
    status = models.SmallIntegerField()
    attempts = models.SmallIntegerField()
    stream = models.BooleanField()
    clamped = models.BooleanField()
    tenant = models.TextField()  # slug
    key_name = models.TextField()
    alias = models.TextField()
    deployment = models.TextField()
    backend = models.TextField()
    outcome = models.TextField()
    error_code = models.TextField()
    usage_source = models.TextField()
    client_request_id = models.TextField()
    end_user = models.TextField()  # HMAC label
    metadata = models.JSONField(null=True)
    limits = models.JSONField(null=True)  # as the call saw them
    price = models.JSONField(null=True)  # pico-units a token, at the time
    policy = models.JSONField(null=True)  # what content policies decided; null: nothing

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["tenant_id", "created_at"], name="usage_record_tenant_time"),
            models.Index(
                fields=["tenant_id", "created_at"], name="usage_record_policy", condition=models.Q(policy__isnull=False)
            ),
            models.Index(fields=["tenant_id", "created_at"], name="usage_record_errors", condition=~models.Q(error_code="")),
            models.Index(fields=["tenant_id", "created_at"], name="usage_record_lost", condition=models.Q(outcome="lost")),
        ]

    def __str__(self) -> str:
        return f"{self.request_id} part {self.part}"


class AllKeysRollup(models.Model):
    """Totals of one span of time for one alias, backend, HTTP status, ending, and answers that were streamed or not.

    requests: calls; a correction adds tokens and cost alone. errors, refused, blocked: how many of them ended so.
    ending: see usage.events.ending. stream: yes or no. Both "" where rows of an older release had not told them apart.
    busy_ms: for how long calls ran within the span, added up: in the minutes they ran in, not only where they began.
    durations, first_tokens: histograms in the buckets of usage.histograms; of calls that were not refused.
    """

    pk = models.CompositePrimaryKey("tenant_id", "starts_at", "alias", "backend", "status", "ending", "stream")
    tenant_id = models.UUIDField()
    starts_at = models.DateTimeField()
    alias = models.TextField()
    backend = models.TextField()
    status = models.SmallIntegerField()
    ending = models.TextField()
    stream = models.TextField()
    requests = models.BigIntegerField()
    errors = models.BigIntegerField()
    refused = models.BigIntegerField()
    blocked = models.BigIntegerField()
    prompt_tokens = models.BigIntegerField()
    cached_tokens = models.BigIntegerField()
    completion_tokens = models.BigIntegerField()
    cost_nano = models.BigIntegerField()
    busy_ms = models.BigIntegerField()
    durations = ArrayField(models.IntegerField(), size=histograms.SIZE)
    first_tokens = ArrayField(models.IntegerField(), size=histograms.SIZE)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.starts_at} {self.alias} {self.status}"


class Rollup(AllKeysRollup):
    """The same, apart for each key."""

    pk = models.CompositePrimaryKey("tenant_id", "starts_at", "key_id", "alias", "backend", "status", "ending", "stream")
    key_id = models.UUIDField()

    class Meta:
        abstract = True


class MinuteRollup(Rollup):
    """Kept for some days only: see usage.retention."""


class HourRollup(Rollup):
    """Hours of the clock in the tenant's reporting zone: those of Asia/Kolkata start at half past UTC's."""


class DayRollup(Rollup):
    """Days in the tenant's reporting zone; of 23 or 25 hours where summer time begins or ends."""


class MinuteAllKeys(AllKeysRollup):
    """The minutes of all keys together: a tenant may have thousands of keys, and most questions are not about them."""


class HourAllKeys(AllKeysRollup):
    """The hours of all keys together."""


class DayAllKeys(AllKeysRollup):
    """The days of all keys together."""


class DayKey(models.Model):
    """What each key used in a day, whatever it asked for: to find the few that used most among thousands. No latencies."""

    pk = models.CompositePrimaryKey("tenant_id", "starts_at", "key_id")
    tenant_id = models.UUIDField()
    starts_at = models.DateTimeField()
    key_id = models.UUIDField()
    requests = models.BigIntegerField()
    errors = models.BigIntegerField()
    refused = models.BigIntegerField()
    blocked = models.BigIntegerField()
    prompt_tokens = models.BigIntegerField()
    cached_tokens = models.BigIntegerField()
    completion_tokens = models.BigIntegerField()
    cost_nano = models.BigIntegerField()
    busy_ms = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.starts_at} {self.key_id}"


class Label(models.Model):
    """Totals of one span for one end user or one tag (name=value of metadata), up to a bound: see usage.labels.

    kind: end_user or tag. label "": all those together for which there was no room.
    """

    pk = models.CompositePrimaryKey("tenant_id", "starts_at", "kind", "label")
    tenant_id = models.UUIDField()
    starts_at = models.DateTimeField()
    kind = models.TextField()
    label = models.TextField()
    requests = models.BigIntegerField()
    errors = models.BigIntegerField()
    refused = models.BigIntegerField()
    blocked = models.BigIntegerField()
    prompt_tokens = models.BigIntegerField()
    cached_tokens = models.BigIntegerField()
    completion_tokens = models.BigIntegerField()
    cost_nano = models.BigIntegerField()

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.starts_at} {self.kind} {self.label}"


class HourLabel(Label):
    """Hours as those of HourRollup."""


class DayLabel(Label):
    """Days as those of DayRollup."""


class ReportingZone(models.Model):
    """The time zone in which a tenant's hours and days are cut; follows Tenant.time_zone within seconds."""

    tenant_id = models.UUIDField(primary_key=True)
    time_zone = models.TextField()

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.time_zone}"


class BackendReading(models.Model):
    """What a backend's own counters said when they were last read; from it and the next one comes a BackendHour."""

    backend = models.TextField(primary_key=True)
    read_at = models.DateTimeField()
    started_s = models.FloatField(null=True)  # of its process, Unix seconds; null: it does not say
    prompt_tokens = models.BigIntegerField()
    completion_tokens = models.BigIntegerField()
    requests = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.backend} {self.read_at}"


class BackendHour(models.Model):
    """What a backend counted in an hour of UTC, as far as it was read: covered_s of the hour's 3600 seconds.

    resets: how often its process was another one than at the reading before; what it counted in between is lost.
    """

    pk = models.CompositePrimaryKey("backend", "starts_at")
    backend = models.TextField()
    starts_at = models.DateTimeField()
    prompt_tokens = models.BigIntegerField()
    completion_tokens = models.BigIntegerField()
    requests = models.BigIntegerField()
    covered_s = models.IntegerField()
    resets = models.IntegerField()

    class Meta:
        indexes: ClassVar = [models.Index(fields=["starts_at"], name="usage_backend_hour_time")]

    def __str__(self) -> str:
        return f"{self.backend} {self.starts_at}"


class Reconciliation(models.Model):
    """What a run of usage.reconcile found. drifts: how many; first: those of them that are told, as JSON of a Drift."""

    ran_at = models.DateTimeField(primary_key=True)
    day = models.DateField()
    tenants = models.IntegerField()
    counters = models.IntegerField()
    drifts = models.IntegerField()
    first = models.JSONField()

    def __str__(self) -> str:
        return f"{self.day}: {self.drifts}"


class Export(models.Model):
    """A file made by the worker for one person, who may fetch it until it expires. Written by portal.exports alone.

    tenant_id null: of all tenants. subject: usage or requests. query: the filters, as in the page's address. touched_at: when
    the worker last got on with it. Ids, no foreign keys: it lives a day.
    """

    id = models.UUIDField(primary_key=True)
    owner_id = models.UUIDField()
    tenant_id = models.UUIDField(null=True)
    subject = models.TextField()
    kind = models.TextField()  # csv or ndjson
    query = models.TextField()
    language = models.TextField()
    state = models.TextField()  # waiting, running, done, failed, cancelled
    created_at = models.DateTimeField()
    touched_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    rows_total = models.BigIntegerField()
    rows_done = models.BigIntegerField(default=0)
    size_bytes = models.BigIntegerField(default=0)  # of the file
    stored_bytes = models.BigIntegerField(default=0)
    reason = models.TextField(default="")  # why it failed: a word of portal.exports

    class Meta:
        indexes: ClassVar = [models.Index(fields=["owner_id", "created_at"], name="usage_export_owner")]

    def __str__(self) -> str:
        return f"{self.subject} {self.kind} {self.state}"


class ExportPart(models.Model):
    """A piece of an export's file, compressed: portal and worker may be different machines, which share the database."""

    pk = models.CompositePrimaryKey("export_id", "number")
    export_id = models.UUIDField()
    number = models.IntegerField()
    body = models.BinaryField()

    def __str__(self) -> str:
        return f"{self.export_id} {self.number}"
