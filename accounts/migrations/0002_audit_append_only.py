"""Audit events are never changed or deleted, whoever asks; TRUNCATE stays possible for the tests."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION accounts_auditevent_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        -- on_delete SET NULL of the user or the tenant is the one change there is; neither column is in the digest.
        IF NEW.actor_id IS NULL THEN OLD.actor_id := NULL; END IF;
        IF NEW.tenant_id IS NULL THEN OLD.tenant_id := NULL; END IF;
        IF NEW IS NOT DISTINCT FROM OLD THEN RETURN NEW; END IF;
    END IF;
    RAISE EXCEPTION 'audit events are never changed or deleted' USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER accounts_auditevent_keep BEFORE UPDATE OR DELETE ON accounts_auditevent
    FOR EACH ROW EXECUTE FUNCTION accounts_auditevent_keep();
"""
BACKWARD = """
DROP TRIGGER accounts_auditevent_keep ON accounts_auditevent;
DROP FUNCTION accounts_auditevent_keep();
"""


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
