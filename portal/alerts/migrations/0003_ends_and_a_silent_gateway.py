"""What is over is told too, and operators are told of a gateway that is silent."""

from django.db import migrations, models
from django.db.models import Q

OF_TENANTS = ("limit", "key_expiry", "error_rate")
OF_THE_PLATFORM = ("backend_down", "gateway_silent", "journal_lag", "error_rate")
ONCE = (
    ("notice", "notice_once", ["alert", "user", "is_end"]),
    ("delivery", "delivery_once_a_webhook", ["alert", "webhook", "is_end"]),
    ("delivery", "delivery_once_a_person", ["alert", "user", "is_end"]),
)


def begin(apps, schema_editor):
    apps.get_model("alerts", "AlertRule").objects.create(kind="gateway_silent", thresholds=[2])


def end(apps, schema_editor):
    apps.get_model("alerts", "AlertRule").objects.filter(kind="gateway_silent").delete()


class Migration(migrations.Migration):
    dependencies = [
        ("alerts", "0002_first_rules"),
    ]

    operations = [
        migrations.AddField("notice", "is_end", models.BooleanField(default=False, db_default=False)),
        migrations.AddField("delivery", "is_end", models.BooleanField(default=False, db_default=False)),
        *(
            operation
            for model, name, fields in ONCE
            for operation in (
                migrations.RemoveConstraint(model, name),
                migrations.AddConstraint(model, models.UniqueConstraint(fields=fields, name=name)),
            )
        ),
        migrations.RemoveConstraint("alertrule", "alert_rule_kind_known"),
        migrations.AddConstraint(
            "alertrule",
            models.CheckConstraint(
                condition=Q(tenant__isnull=False, kind__in=OF_TENANTS) | Q(tenant=None, kind__in=OF_THE_PLATFORM),
                name="alert_rule_kind_known",
            ),
        ),
        migrations.RunPython(begin, end),
    ]
