"""Totals tell streamed answers from whole ones, and how many calls ran at once; end users and tags get totals of their own;
the ledger is told how long the gateway's own checks took, and finds the calls that were lost.

Rows of before: streamed where each of their calls had a first token, "" where that is not sure; how long their calls ran is
taken from the histogram of durations, in the span in which they began. Labels are summed from the ledger.
"""

from django.db import migrations, models

ROLLUPS = ("minuterollup", "hourrollup", "dayrollup")
KEY = ("tenant_id", "starts_at", "key_id", "alias", "backend", "status", "ending")
SUMS = ("requests", "errors", "refused", "blocked", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_nano")
LABEL_KEY = ("tenant_id", "starts_at", "kind", "label")
TIMINGS = ("auth_us", "policy_us", "admission_us")
# usage.histograms: the middle of each bucket, of the last one its edge.
EDGES_MS = (
    10, 16, 25, 40, 63, 100, 160, 250, 400, 630, 1_000, 1_600, 2_500, 4_000, 6_300, 10_000, 16_000, 25_000, 40_000, 63_000,
    100_000, 160_000, 250_000, 400_000, 630_000, 1_000_000, 1_800_000,
)  # fmt: skip
MIDDLES_MS = [(low + high) // 2 for low, high in zip((0, *EDGES_MS), (*EDGES_MS, EDGES_MS[-1]))]
BUSY = " + ".join(f"durations[{n}]::bigint * {middle}" for n, middle in enumerate(MIDDLES_MS, 1))
STREAMED = "(SELECT sum(n) FROM unnest(first_tokens) AS n)"
FORWARD = f"""
ALTER TABLE usage_{{name}} ADD COLUMN stream text NOT NULL DEFAULT '', ADD COLUMN busy_ms bigint NOT NULL DEFAULT 0;
UPDATE usage_{{name}} SET busy_ms = {BUSY},
    stream = CASE WHEN requests > 0 AND {STREAMED} = requests THEN 'yes' ELSE '' END;
ALTER TABLE usage_{{name}} ALTER COLUMN stream DROP DEFAULT, ALTER COLUMN busy_ms DROP DEFAULT,
    DROP CONSTRAINT usage_{{name}}_pkey, ADD PRIMARY KEY ({", ".join((*KEY, "stream"))});
"""


def summed(column):
    return "ARRAY[" + ", ".join(f"sum({column}[{n}])::int" for n in range(1, 29)) + "]"


# Rows that differ in `stream` alone are added up, those of calls that only ran on are left out.
BACKWARD = f"""
CREATE TEMPORARY TABLE usage_merged ON COMMIT DROP AS
    SELECT {", ".join(KEY)}, {", ".join(f"sum({name})::bigint AS {name}" for name in SUMS)},
        {summed("durations")} AS durations, {summed("first_tokens")} AS first_tokens
    FROM usage_{{name}} GROUP BY {", ".join(KEY)} HAVING {" OR ".join(f"sum({name}) <> 0" for name in SUMS)};
DELETE FROM usage_{{name}};
ALTER TABLE usage_{{name}} DROP CONSTRAINT usage_{{name}}_pkey, DROP COLUMN stream, DROP COLUMN busy_ms,
    ADD PRIMARY KEY ({", ".join(KEY)});
INSERT INTO usage_{{name}} ({", ".join((*KEY, *SUMS, "durations", "first_tokens"))}) SELECT * FROM usage_merged;
DROP TABLE usage_merged;
"""


def labels(span, most):
    """The totals of labels that the ledger's records have, the most frequent ones of each span by name."""
    local = f"date_trunc('{span}', created_at AT TIME ZONE zone)"
    starts = f"{local} AT TIME ZONE zone"
    if span == "hour":  # where the clock is set back an hour comes twice: by its distance from UTC it is told which
        starts = "date_trunc('hour', created_at + shift, 'UTC') - shift"
    return f"""
    INSERT INTO usage_{span}label ({", ".join((*LABEL_KEY, *SUMS))})
    WITH record AS (
        SELECT record.*, coalesce(known.name, 'UTC') AS zone,
            created_at AT TIME ZONE coalesce(known.name, 'UTC') - created_at AT TIME ZONE 'UTC' AS shift
        FROM usage_usagerecord AS record JOIN usage_reportingzone AS own USING (tenant_id)
            LEFT JOIN pg_timezone_names AS known ON known.name = own.time_zone
        WHERE end_user <> '' OR metadata IS NOT NULL
    ), labelled AS (
        SELECT record.*, 'end_user' AS kind, end_user AS label FROM record WHERE end_user <> ''
        UNION ALL
        SELECT record.*, 'tag', one.key || '=' || one.value
        FROM record, jsonb_each_text(CASE jsonb_typeof(metadata) WHEN 'object' THEN metadata ELSE '{{}}'::jsonb END) AS one
    ), summed AS (
        SELECT tenant_id, {starts} AS starts_at, kind, CASE WHEN length(label) > 200 THEN '' ELSE label END AS label,
            count(*) FILTER (WHERE part = 0) AS requests,
            count(*) FILTER (WHERE part = 0 AND outcome IN ('failed', 'timeout', 'lost') AND error_code <> 'content_blocked')
                AS errors,
            count(*) FILTER (WHERE part = 0 AND outcome = 'refused' AND error_code <> 'content_blocked') AS refused,
            count(*) FILTER (WHERE part = 0 AND error_code = 'content_blocked') AS blocked,
            sum(prompt_tokens)::bigint AS prompt_tokens, sum(cached_tokens)::bigint AS cached_tokens,
            sum(completion_tokens)::bigint AS completion_tokens, sum(cost_nano)::bigint AS cost_nano
        FROM labelled GROUP BY 1, 2, 3, 4
    ), ranked AS (
        SELECT *, row_number() OVER (PARTITION BY tenant_id, starts_at, kind ORDER BY label = '', requests DESC, label) AS place
        FROM summed
    )
    SELECT tenant_id, starts_at, kind, CASE WHEN place > {most} THEN '' ELSE label END,
        {", ".join(f"sum({name})::bigint" for name in SUMS)}
    FROM ranked GROUP BY 1, 2, 3, 4;
    """


def rollup(name):
    pk = models.CompositePrimaryKey(*KEY, "stream", blank=True, editable=False, primary_key=True, serialize=False)
    return migrations.SeparateDatabaseAndState(
        database_operations=[migrations.RunSQL(FORWARD.format(name=name), BACKWARD.format(name=name))],
        state_operations=[
            migrations.AddField(name, "stream", models.TextField(default=""), preserve_default=False),
            migrations.AddField(name, "busy_ms", models.BigIntegerField(default=0), preserve_default=False),
            migrations.AlterField(name, "pk", pk),
        ],
    )


def label_table(name):
    return migrations.CreateModel(
        name=name,
        fields=[
            ("pk", models.CompositePrimaryKey(*LABEL_KEY, blank=True, editable=False, primary_key=True, serialize=False)),
            ("tenant_id", models.UUIDField()),
            ("starts_at", models.DateTimeField()),
            ("kind", models.TextField()),
            ("label", models.TextField()),
            *((column, models.BigIntegerField()) for column in SUMS),
        ],
    )


class Migration(migrations.Migration):
    dependencies = [("usage", "0004_reconciliations")]
    operations = [
        *map(rollup, ROLLUPS),
        label_table("HourLabel"),
        label_table("DayLabel"),
        migrations.RunSQL(
            "ALTER TABLE usage_hourlabel SET (fillfactor = 60); ALTER TABLE usage_daylabel SET (fillfactor = 60);"
            + labels("hour", 200)
            + labels("day", 1000),
            migrations.RunSQL.noop,
        ),
        *(migrations.AddField("usagerecord", name, models.IntegerField(null=True)) for name in TIMINGS),
        migrations.AddIndex(
            "usagerecord",
            models.Index(condition=models.Q(outcome="lost"), fields=["tenant_id", "created_at"], name="usage_record_lost"),
        ),
    ]
