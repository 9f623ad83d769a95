"""How long a tenant's ledger and rollups are kept."""

import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0002_audit_append_only")]
    operations = [
        migrations.AddField(
            model_name="tenant",
            name="usage_retention_days",
            field=models.PositiveIntegerField(
                default=400,
                validators=[
                    django.core.validators.MinValueValidator(1),
                    django.core.validators.MaxValueValidator(3650),
                ],
            ),
        ),
        migrations.AddConstraint(
            model_name="tenant",
            constraint=models.CheckConstraint(
                condition=models.Q(("usage_retention_days__range", (1, 3650))), name="tenant_retention_range"
            ),
        ),
    ]
