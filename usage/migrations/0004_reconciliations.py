"""What backends count themselves, hour by hour, and what reconciliations found: for the page that compares the books."""

from django.db import migrations, models

AMOUNTS = ("prompt_tokens", "completion_tokens", "requests")


class Migration(migrations.Migration):
    dependencies = [("usage", "0003_endings")]
    operations = [
        migrations.CreateModel(
            name="BackendHour",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "backend", "starts_at", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("backend", models.TextField()),
                ("starts_at", models.DateTimeField()),
                *((name, models.BigIntegerField()) for name in AMOUNTS),
                ("covered_s", models.IntegerField()),
                ("resets", models.IntegerField()),
            ],
            options={"indexes": [models.Index(fields=["starts_at"], name="usage_backend_hour_time")]},
        ),
        migrations.CreateModel(
            name="BackendReading",
            fields=[
                ("backend", models.TextField(primary_key=True, serialize=False)),
                ("read_at", models.DateTimeField()),
                ("started_s", models.FloatField(null=True)),
                *((name, models.BigIntegerField()) for name in AMOUNTS),
            ],
        ),
        migrations.CreateModel(
            name="Reconciliation",
            fields=[
                ("ran_at", models.DateTimeField(primary_key=True, serialize=False)),
                ("day", models.DateField()),
                ("tenants", models.IntegerField()),
                ("counters", models.IntegerField()),
                ("drifts", models.IntegerField()),
                ("first", models.JSONField()),
            ],
        ),
    ]
