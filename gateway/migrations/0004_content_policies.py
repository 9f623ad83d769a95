"""Content policies and their versions. What a version that is no draft says never changes, and it goes only with its policy.

The foreign key to the policy is made here: its cascade is PostgreSQL's, so that the trigger sees the policy gone.
"""

import django.contrib.postgres.fields
import django.core.validators
import django.db.models.deletion
import uuid_utils.compat
from django.db import migrations, models

FORWARD = """
ALTER TABLE gateway_contentpolicyversion ADD CONSTRAINT policy_version_of_policy
    FOREIGN KEY (policy_id) REFERENCES gateway_contentpolicy (id) ON DELETE CASCADE;

CREATE FUNCTION gateway_contentpolicyversion_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.is_draft OR NOT EXISTS (SELECT FROM gateway_contentpolicy WHERE id = OLD.policy_id) THEN RETURN OLD; END IF;
    ELSIF OLD.is_draft AND NEW.policy_id = OLD.policy_id OR NEW IS NOT DISTINCT FROM OLD THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'versions of content policies are never changed or deleted' USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER gateway_contentpolicyversion_keep BEFORE UPDATE OR DELETE ON gateway_contentpolicyversion
    FOR EACH ROW EXECUTE FUNCTION gateway_contentpolicyversion_keep();

CREATE FUNCTION gateway_contentpolicy_published() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.published_id IS NULL OR EXISTS (
        SELECT FROM gateway_contentpolicyversion WHERE id = NEW.published_id AND policy_id = NEW.id AND NOT is_draft
    ) THEN RETURN NEW; END IF;
    RAISE EXCEPTION 'a content policy publishes one of its own versions, and no draft' USING ERRCODE = 'check_violation';
END $$;

CREATE TRIGGER gateway_contentpolicy_published BEFORE INSERT OR UPDATE ON gateway_contentpolicy
    FOR EACH ROW EXECUTE FUNCTION gateway_contentpolicy_published();
"""
BACKWARD = """
DROP TRIGGER gateway_contentpolicy_published ON gateway_contentpolicy;
DROP FUNCTION gateway_contentpolicy_published();
DROP TRIGGER gateway_contentpolicyversion_keep ON gateway_contentpolicyversion;
DROP FUNCTION gateway_contentpolicyversion_keep();
ALTER TABLE gateway_contentpolicyversion DROP CONSTRAINT policy_version_of_policy;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0005_key_policies'),
        ('gateway', '0003_pools_fallbacks_and_canaries'),
    ]

    operations = [
        migrations.AddField(
            model_name='modelalias',
            name='policies',
            field=django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=64), blank=True, default=list, size=None),
        ),
        migrations.CreateModel(
            name='ContentPolicy',
            fields=[
                ('id', models.UUIDField(default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=64, validators=[django.core.validators.RegexValidator('^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\\Z', 'Use letters, digits, dots, underscores and hyphens; 64 characters at most.')], verbose_name='name')),
                ('is_everywhere', models.BooleanField(default=False)),
                ('tenant', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='policies', to='accounts.tenant')),
            ],
            options={
                'verbose_name_plural': 'content policies',
                'ordering': ['name'],
            },
        ),
        migrations.CreateModel(
            name='ContentPolicyVersion',
            fields=[
                ('id', models.UUIDField(default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False)),
                ('number', models.PositiveIntegerField()),
                ('rules', models.JSONField()),
                ('is_draft', models.BooleanField(default=False)),
                ('created_by', models.CharField(max_length=254)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('policy', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='versions', to='gateway.contentpolicy')),
            ],
            options={
                'ordering': ['policy', 'number'],
            },
        ),
        migrations.AddField(
            model_name='contentpolicy',
            name='published',
            field=models.ForeignKey(blank=True, editable=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='gateway.contentpolicyversion'),
        ),
        migrations.AddConstraint(
            model_name='contentpolicyversion',
            constraint=models.UniqueConstraint(fields=('policy', 'number'), name='policy_version_number_once'),
        ),
        migrations.AddConstraint(
            model_name='contentpolicyversion',
            constraint=models.UniqueConstraint(condition=models.Q(('is_draft', True)), fields=('policy',), name='policy_has_one_draft'),
        ),
        migrations.AddConstraint(
            model_name='contentpolicyversion',
            constraint=models.CheckConstraint(condition=models.Q(('number__gte', 1)), name='policy_version_from_one'),
        ),
        migrations.AddConstraint(
            model_name='contentpolicy',
            constraint=models.UniqueConstraint(fields=('tenant', 'name'), name='policy_name_unique_in_tenant', nulls_distinct=False),
        ),
        migrations.AddConstraint(
            model_name='contentpolicy',
            constraint=models.CheckConstraint(condition=models.Q(('name__regex', '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$')), name='policy_name_form'),
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
