"""What content policies decided about a call."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0001_initial")]
    operations = [
        migrations.AddField("usagerecord", "policy", models.JSONField(null=True)),
        migrations.AddIndex(
            "usagerecord",
            models.Index(
                condition=models.Q(("policy__isnull", False)), fields=["tenant_id", "created_at"], name="usage_record_policy"
            ),
        ),
    ]
