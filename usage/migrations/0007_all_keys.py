"""Totals of all keys together, beside those of each: summed from them, and theirs to make again."""

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


class Migration(migrations.Migration):
    dependencies = [("usage", "0006_exports")]
    operations = [
        *map(table, SPANS),
        migrations.RunSQL("".join(map(fill, SPANS)), migrations.RunSQL.noop),
    ]
