"""Totals of all keys together, and of each key whatever it asked for: summed from those that tell both apart."""

from django.contrib.postgres.fields import ArrayField
from django.db import migrations, models

SPANS = ("minute", "hour", "day")
KEY = ("tenant_id", "starts_at", "alias", "backend", "status", "ending", "stream")
SUMS = (
    "requests", "errors", "refused", "blocked", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_nano", "busy_ms",
)  # fmt: skip
HISTOGRAMS = ("durations", "first_tokens")


def summed(column):
    return "ARRAY[" + ", ".join(f"sum({column}[{n}])::int" for n in range(1, 29)) + "]"


def fill(span):
    """Updates find room on the page of their row: see 0001."""
    sums = [f"sum({name})::bigint" for name in SUMS] + [summed(name) for name in HISTOGRAMS]
    return f"""
        ALTER TABLE usage_{span}allkeys SET (fillfactor = 60);
        INSERT INTO usage_{span}allkeys ({", ".join((*KEY, *SUMS, *HISTOGRAMS))})
        SELECT {", ".join((*KEY, *sums))} FROM usage_{span}rollup GROUP BY {", ".join(KEY)};
    """


def table(span):
    return migrations.CreateModel(
        name=f"{span.capitalize()}AllKeys",
        fields=[
            ("pk", models.CompositePrimaryKey(*KEY, blank=True, editable=False, primary_key=True, serialize=False)),
            ("tenant_id", models.UUIDField()),
            ("starts_at", models.DateTimeField()),
            ("alias", models.TextField()),
            ("backend", models.TextField()),
            ("status", models.SmallIntegerField()),
            ("ending", models.TextField()),
            ("stream", models.TextField()),
            *((name, models.BigIntegerField()) for name in SUMS),
            *((name, ArrayField(models.IntegerField(), size=28)) for name in HISTOGRAMS),
        ],
    )


DAY_KEY = ("tenant_id", "starts_at", "key_id")
FILL_DAY_KEYS = f"""
ALTER TABLE usage_daykey SET (fillfactor = 60);
INSERT INTO usage_daykey ({", ".join((*DAY_KEY, *SUMS))})
SELECT {", ".join(DAY_KEY)}, {", ".join(f"sum({name})::bigint" for name in SUMS)}
FROM usage_dayrollup GROUP BY {", ".join(DAY_KEY)};
"""


class Migration(migrations.Migration):
    dependencies = [("usage", "0006_exports")]
    operations = [
        *map(table, SPANS),
        migrations.CreateModel(
            name="DayKey",
            fields=[
                ("pk", models.CompositePrimaryKey(*DAY_KEY, blank=True, editable=False, primary_key=True, serialize=False)),
                ("tenant_id", models.UUIDField()),
                ("starts_at", models.DateTimeField()),
                ("key_id", models.UUIDField()),
                *((name, models.BigIntegerField()) for name in SUMS),
            ],
        ),
        migrations.RunSQL("".join(map(fill, SPANS)) + FILL_DAY_KEYS, migrations.RunSQL.noop),
    ]
