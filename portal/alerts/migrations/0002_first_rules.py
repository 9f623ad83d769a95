"""The rules that the platform and the tenants there are begin with; tenants made later get theirs with their row."""

from django.db import migrations

PERIODS = ["money_per_month", "tokens_per_day", "tokens_per_hour", "tokens_per_month"]
TOLD = {"roles": ["owner", "admin"]}
OF_TENANTS = (
    {"kind": "limit", "thresholds": [80, 100], "limits": PERIODS, **TOLD},
    {"kind": "key_expiry", "thresholds": [7, 3, 1], "tells_owner": True, **TOLD},
    {"kind": "error_rate", "thresholds": [20], **TOLD},
)
OF_THE_PLATFORM = (
    {"kind": "backend_down", "thresholds": [0]},
    {"kind": "journal_lag", "thresholds": [60]},
    {"kind": "error_rate", "thresholds": [20], "least_calls": 100},
)


def begin(apps, schema_editor):
    rule, tenant = apps.get_model("alerts", "AlertRule"), apps.get_model("accounts", "Tenant")
    rule.objects.bulk_create(rule(**facts) for facts in OF_THE_PLATFORM)
    rule.objects.bulk_create(rule(tenant=one, **facts) for one in tenant.objects.all() for facts in OF_TENANTS)


class Migration(migrations.Migration):

    dependencies = [
        ("alerts", "0001_initial"),
    ]

    operations = [
        migrations.RunPython(begin, migrations.RunPython.noop),
    ]
