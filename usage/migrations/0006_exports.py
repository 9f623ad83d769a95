"""Files that the worker makes for people, in pieces, until they expire."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0005_finer_totals")]
    operations = [
        migrations.CreateModel(
            name="Export",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("owner_id", models.UUIDField()),
                ("tenant_id", models.UUIDField(null=True)),
                *((name, models.TextField()) for name in ("subject", "kind", "query", "language", "state")),
                *((name, models.DateTimeField()) for name in ("created_at", "touched_at", "expires_at")),
                ("rows_total", models.BigIntegerField()),
                *((name, models.BigIntegerField(default=0)) for name in ("rows_done", "size_bytes", "stored_bytes")),
                ("reason", models.TextField(default="")),
            ],
            options={"indexes": [models.Index(fields=["owner_id", "created_at"], name="usage_export_owner")]},
        ),
        migrations.CreateModel(
            name="ExportPart",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "export_id", "number", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("export_id", models.UUIDField()),
                ("number", models.IntegerField()),
                ("body", models.BinaryField()),
            ],
        ),
    ]
