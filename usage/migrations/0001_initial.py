"""The ledger, partitioned by month and closed to changes; the rollups; the zones they are cut in.

The ledger's partitions are made as their months come (usage.months) and dropped by retention.
"""

from django.contrib.postgres.fields import ArrayField
from django.db import migrations, models

LEDGER_FORWARD = """
CREATE TABLE usage_usagerecord (
    request_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    tenant_id uuid NOT NULL,
    key_id uuid NOT NULL,
    prompt_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    reserved_tokens bigint NOT NULL,
    cost_nano bigint NOT NULL,
    first_token_ms integer,
    duration_ms integer NOT NULL,
    queue_ms integer NOT NULL,
    part smallint NOT NULL,
    status smallint NOT NULL,
    attempts smallint NOT NULL,
    stream boolean NOT NULL,
    clamped boolean NOT NULL,
    tenant text NOT NULL,
    key_name text NOT NULL,
    alias text NOT NULL,
    deployment text NOT NULL,
    backend text NOT NULL,
    outcome text NOT NULL,
    error_code text NOT NULL,
    usage_source text NOT NULL,
    client_request_id text NOT NULL,
    end_user text NOT NULL,
    metadata jsonb,
    limits jsonb,
    price jsonb,
    PRIMARY KEY (request_id, part, created_at)
) PARTITION BY RANGE (created_at);

CREATE INDEX usage_record_tenant_time ON usage_usagerecord (tenant_id, created_at);

-- Only retention may delete, and only what is older than the time it names for its own transaction. TRUNCATE and dropping
-- a partition are not row by row and stay possible.
CREATE FUNCTION usage_usagerecord_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND OLD.created_at < nullif(current_setting('sekisho.retain_from', true), '')::timestamptz THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'usage records are never changed or deleted' USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER usage_usagerecord_keep BEFORE UPDATE OR DELETE ON usage_usagerecord
    FOR EACH ROW EXECUTE FUNCTION usage_usagerecord_keep();
"""
LEDGER_BACKWARD = """
DROP TABLE usage_usagerecord;
DROP FUNCTION usage_usagerecord_keep();
"""

# Rollup rows are updated many times, and no index holds what changes: with room on their page they are updated in place.
ROOM = "".join(f"ALTER TABLE usage_{span}rollup SET (fillfactor = 60);" for span in ("minute", "hour", "day"))


def rollup(name):
    key = ("tenant_id", "starts_at", "key_id", "alias", "backend", "status")
    sums = ("requests", "errors", "refused", "blocked", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_nano")
    return migrations.CreateModel(
        name=name,
        fields=[
            ("pk", models.CompositePrimaryKey(*key, blank=True, editable=False, primary_key=True, serialize=False)),
            ("tenant_id", models.UUIDField()),
            ("starts_at", models.DateTimeField()),
            ("key_id", models.UUIDField()),
            ("alias", models.TextField()),
            ("backend", models.TextField()),
            ("status", models.SmallIntegerField()),
            *((column, models.BigIntegerField()) for column in sums),
            *((column, ArrayField(models.IntegerField(), size=28)) for column in ("durations", "first_tokens")),
        ],
    )


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(LEDGER_FORWARD, LEDGER_BACKWARD)],
            state_operations=[
                migrations.CreateModel(
                    name="UsageRecord",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "request_id", "part", "created_at",
                                blank=True, editable=False, primary_key=True, serialize=False,
                            ),
                        ),
                        ("request_id", models.UUIDField()),
                        ("created_at", models.DateTimeField()),
                        ("tenant_id", models.UUIDField()),
                        ("key_id", models.UUIDField()),
                        ("prompt_tokens", models.BigIntegerField()),
                        ("cached_tokens", models.BigIntegerField()),
                        ("completion_tokens", models.BigIntegerField()),
                        ("reserved_tokens", models.BigIntegerField()),
                        ("cost_nano", models.BigIntegerField()),
                        ("first_token_ms", models.IntegerField(null=True)),
                        ("duration_ms", models.IntegerField()),
                        ("queue_ms", models.IntegerField()),
                        ("part", models.SmallIntegerField()),
                        ("status", models.SmallIntegerField()),
                        ("attempts", models.SmallIntegerField()),
                        ("stream", models.BooleanField()),
                        ("clamped", models.BooleanField()),
                        ("tenant", models.TextField()),
                        ("key_name", models.TextField()),
                        ("alias", models.TextField()),
                        ("deployment", models.TextField()),
                        ("backend", models.TextField()),
                        ("outcome", models.TextField()),
                        ("error_code", models.TextField()),
                        ("usage_source", models.TextField()),
                        ("client_request_id", models.TextField()),
                        ("end_user", models.TextField()),
                        ("metadata", models.JSONField(null=True)),
                        ("limits", models.JSONField(null=True)),
                        ("price", models.JSONField(null=True)),
                    ],
                    options={
                        "indexes": [models.Index(fields=["tenant_id", "created_at"], name="usage_record_tenant_time")]
                    },
                ),
            ],
        ),
        rollup("MinuteRollup"),
        rollup("HourRollup"),
        rollup("DayRollup"),
        migrations.RunSQL(ROOM, migrations.RunSQL.noop),
        migrations.CreateModel(
            name="ReportingZone",
            fields=[
                ("tenant_id", models.UUIDField(primary_key=True, serialize=False)),
                ("time_zone", models.TextField()),
            ],
        ),
    ]
