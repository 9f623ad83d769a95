"""How calls ended, in the rollups' keys, so that tokens and latencies can be told apart by it; an index of what went wrong.

Rows of before are given the ending that all their calls had; where they had several it stays "".
"""

from django.db import migrations, models

ROLLUPS = ("minuterollup", "hourrollup", "dayrollup")
KEY = ("tenant_id", "starts_at", "key_id", "alias", "backend", "status")
FORWARD = """
ALTER TABLE usage_{name} ADD COLUMN ending text NOT NULL DEFAULT '';
UPDATE usage_{name} SET ending = CASE
    WHEN errors + refused + blocked = 0 THEN CASE WHEN status = 499 THEN 'client_left' ELSE 'completed' END
    WHEN blocked = requests THEN 'blocked'
    WHEN refused = requests THEN 'refused'
    WHEN errors = requests THEN 'failed'
    ELSE '' END;
ALTER TABLE usage_{name} ALTER COLUMN ending DROP DEFAULT, DROP CONSTRAINT usage_{name}_pkey,
    ADD PRIMARY KEY (tenant_id, starts_at, key_id, alias, backend, status, ending);
"""

SUMS = ("requests", "errors", "refused", "blocked", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_nano")


def summed(column):
    return "ARRAY[" + ", ".join(f"sum({column}[{n}])::int" for n in range(1, 29)) + "]"


# Rows that differ in their ending alone are added up.
BACKWARD = f"""
CREATE TEMPORARY TABLE usage_merged ON COMMIT DROP AS
    SELECT {", ".join(KEY)}, {", ".join(f"sum({name})::bigint AS {name}" for name in SUMS)},
        {summed("durations")} AS durations, {summed("first_tokens")} AS first_tokens
    FROM usage_{{name}} GROUP BY {", ".join(KEY)};
DELETE FROM usage_{{name}};
ALTER TABLE usage_{{name}} DROP CONSTRAINT usage_{{name}}_pkey, DROP COLUMN ending, ADD PRIMARY KEY ({", ".join(KEY)});
INSERT INTO usage_{{name}} ({", ".join((*KEY, *SUMS, "durations", "first_tokens"))}) SELECT * FROM usage_merged;
DROP TABLE usage_merged;
"""


def rollup(name):
    pk = models.CompositePrimaryKey(*KEY, "ending", blank=True, editable=False, primary_key=True, serialize=False)
    return migrations.SeparateDatabaseAndState(
        database_operations=[migrations.RunSQL(FORWARD.format(name=name), BACKWARD.format(name=name))],
        state_operations=[
            migrations.AddField(name, "ending", models.TextField(default=""), preserve_default=False),
            migrations.AlterField(name, "pk", pk),
        ],
    )


class Migration(migrations.Migration):
    dependencies = [("usage", "0002_policy_decisions")]
    operations = [
        *map(rollup, ROLLUPS),
        migrations.AddIndex(
            "usagerecord",
            models.Index(condition=~models.Q(error_code=""), fields=["tenant_id", "created_at"], name="usage_record_errors"),
        ),
    ]
