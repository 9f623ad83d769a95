"""What fires, whom it is told, once a window, and armed again when that is over."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import pytest
import redis
from django.apps import apps
from django.db import connection
from django.utils import timezone

from accounts import issuing
from accounts.models import Tenant, User
from gateway import presence
from gateway.models import Backend, Limit
from gateway.routing import exchange
from portal.alerts import defaults, firing, hooks, words
from portal.alerts.models import Alert, AlertRule, Delivery, Notice
from portal.alerts.observing import Observed
from tests.e2e.conftest import BY
from tests.portal.test_backend_pages import tell
from tests.usage.made import event, put_on_journal
from usage import ledger, limits

pytestmark = pytest.mark.django_db
Use = Callable[..., None]


def watch() -> list[Alert]:
    return firing.watch(timezone.now())


def at_once(look: Callable[[], list[Alert]], workers: int = 6) -> list[Alert]:
    """What all of them fired together."""
    barrier, fired = threading.Barrier(workers), []

    def work() -> None:
        barrier.wait(timeout=30)
        fired.extend(look())
        connection.close()

    racers = [threading.Thread(target=work) for _ in range(workers)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    return fired


def thresholds(alerts: list[Alert]) -> list[int]:
    return [alert.threshold for alert in alerts]


def test_a_limit_fires_at_each_threshold_once(acme: Tenant, daily: Limit, use: Use, acme_owner: User) -> None:
    use(790)
    assert watch() == []
    use(800)
    (alert,) = watch()
    assert (alert.threshold, alert.tenant, alert.level) == (80, acme, "warn")
    assert alert.facts["percent"] == 80
    assert watch() == []
    use(1000)
    assert thresholds(watch()) == [100]
    assert watch() == []
    assert Notice.objects.filter(user=acme_owner).count() == 2


def test_what_jumps_over_a_threshold_is_told_once_by_the_worst(daily: Limit, use: Use) -> None:
    use(1000)
    assert thresholds(watch()) == [100]
    use(850)
    assert watch() == []
    assert Alert.objects.get().ended_at is None, "not over before the day is"


def test_a_new_day_arms_it_again(daily: Limit, use: Use, limit_rule: AlertRule) -> None:
    now = timezone.now()
    of = Observed(f"limit:{daily.pk}", 80, "2026-11-20/1000", {"limit": "tokens_per_day"})
    assert len(firing.apply([limit_rule], {limit_rule.pk: [of]}, now)) == 1
    assert firing.apply([limit_rule], {limit_rule.pk: [of]}, now) == []
    assert firing.apply([limit_rule], {limit_rule.pk: []}, now) == []
    assert firing.apply([limit_rule], {limit_rule.pk: [of]}, now) == [], "the same day"
    next_day = Observed(of.subject, 80, "2026-11-21/1000", of.facts)
    assert len(firing.apply([limit_rule], {limit_rule.pk: [next_day]}, now)) == 1
    assert Alert.objects.filter(ended_at=None).count() == 1


def test_a_limit_that_is_raised_is_armed_anew(acme: Tenant, daily: Limit, use: Use) -> None:
    use(900)
    assert len(watch()) == 1
    Limit.replace_all(acme, [limits.Limit("tokens_per_day", 10_000)])
    assert watch() == []
    assert not Alert.objects.filter(ended_at=None).exists()
    use(8_500)
    assert thresholds(watch()) == [80]


def test_an_episode_fires_again_after_it_was_well_and_not_within_the_hour(limit_rule: AlertRule) -> None:
    begun = datetime(2026, 11, 21, 10, 5, tzinfo=UTC)
    of = Observed("limit:x", 80, "", {"limit": "tokens_per_hour"})

    def look(minutes: int, *found: Observed) -> int:
        return len(firing.apply([limit_rule], {limit_rule.pk: list(found)}, begun + timedelta(minutes=minutes)))

    assert look(0, of) == 1
    assert look(90, of) == 0, "it is so still"
    assert look(91) == 0
    assert look(92, of) == 1
    assert look(93) == 0
    assert look(94, of) == 0, "the same hour"
    assert look(160, of) == 1


def test_where_nobody_can_tell_nothing_begins_and_nothing_ends(daily: Limit, use: Use, settings: Any) -> None:
    use(900)
    assert len(watch()) == 1
    settings.REDIS_URL = "unix:///nowhere/at/all.sock"
    assert watch() == []
    assert Alert.objects.get().ended_at is None


def test_a_limit_that_refuses_its_last_calls_is_used_up(acme: Tenant, daily: Limit, use: Use) -> None:
    use(960)
    ledger.post([event(acme, timezone.now(), status=429, outcome="refused", error_code="token_quota_exceeded")])
    (alert,) = watch()
    assert alert.threshold == 100
    assert alert.facts["is_refusing"]
    assert "96%" in words.detail(alert, acme.zone)


def test_a_rule_watches_the_limits_it_names(daily: Limit, use: Use, limit_rule: AlertRule) -> None:
    limit_rule.limits = ["tokens_per_month"]
    limit_rule.save()
    use(1000)
    assert watch() == []


def test_limits_of_keys_and_aliases_are_watched(acme: Tenant, valkey: redis.Redis, use: Use) -> None:
    key, _ = issuing.issue(acme, issuing.Terms(name="batch"), **BY)
    Limit.replace_all(key, [limits.Limit("tokens_per_day", 100)])
    use(0)
    from usage.quota import Quota
    from usage.reservation import Counter

    now_s = time.time()
    counter = Counter("key", str(key.pk), "tokens_per_day", 85, now_s)
    Quota(valkey).restore(str(acme.pk), [counter], time_zone=acme.time_zone, now_s=now_s)
    (alert,) = watch()
    assert "key batch" in words.title(alert)
    issuing.revoke(key, **BY)
    assert watch() == []
    assert Alert.objects.get().ended_at is not None


def test_suspended_tenants_and_resting_rules_are_quiet(acme: Tenant, daily: Limit, use: Use, limit_rule: AlertRule) -> None:
    use(900)
    Tenant.objects.update(is_active=False)
    assert watch() == []
    Tenant.objects.update(is_active=True)
    AlertRule.objects.filter(pk=limit_rule.pk).update(is_active=False)
    assert watch() == []


def test_owners_and_admins_are_told_by_bell_and_mail(
    daily: Limit, use: Use, acme_owner: User, acme_admin: User, acme_developer: User, settings: Any
) -> None:
    settings.IS_MAIL_CONFIGURED = True
    use(900)
    watch()
    assert set(Notice.objects.values_list("user__email", flat=True)) == {acme_owner.email, acme_admin.email}
    assert set(Delivery.objects.values_list("user__email", flat=True)) == {acme_owner.email, acme_admin.email}
    assert acme_developer.email not in Delivery.objects.values_list("user__email", flat=True)


def test_people_who_are_members_no_more_are_not_told(
    daily: Limit, use: Use, limit_rule: AlertRule, acme_developer: User, globex_admin: User
) -> None:
    limit_rule.roles = []
    limit_rule.save()
    limit_rule.people.set([acme_developer, globex_admin])
    use(900)
    watch()
    assert [notice.user for notice in Notice.objects.all()] == [acme_developer]


@pytest.mark.parametrize(("days", "told"), [(8, None), (6.9, 7), (2.5, 3), (0.5, 1)])
def test_a_key_that_ends_is_told_to_who_made_it(
    acme: Tenant, acme_developer: User, acme_owner: User, days: float, told: int | None
) -> None:
    end = timezone.now() + timedelta(days=days)
    key, _ = issuing.issue(acme, issuing.Terms("ci", expires_at=end), actor=acme_developer)
    type(key).objects.filter(pk=key.pk).update(created_at=timezone.now() - timedelta(days=60))
    fired = watch()
    assert thresholds(fired) == ([] if told is None else [told])
    if told is not None:
        assert set(Notice.objects.values_list("user", flat=True)) == {acme_developer.pk, acme_owner.pk}
        assert watch() == []


def test_a_key_is_told_of_at_each_threshold_and_anew_with_a_later_end(acme: Tenant) -> None:
    now = timezone.now()
    key, _ = issuing.issue(acme, issuing.Terms("ci", expires_at=now + timedelta(days=30)), **BY)
    for day, told in ((22, []), (24, [7]), (25, []), (27.5, [3]), (29.5, [1]), (29.6, [])):
        assert thresholds(firing.watch(now + timedelta(days=day))) == told, day
    type(key).objects.filter(pk=key.pk).update(expires_at=now + timedelta(days=60))
    assert firing.watch(now + timedelta(days=31)) == []
    assert thresholds(firing.watch(now + timedelta(days=54))) == [7]


def test_a_key_made_for_a_day_is_not_told_of(acme: Tenant) -> None:
    issuing.issue(acme, issuing.Terms("short", expires_at=timezone.now() + timedelta(hours=23)), **BY)
    assert watch() == []


def test_errors_fire_from_a_share_and_a_number_of_calls_on(acme: Tenant, globex: Tenant) -> None:
    now = timezone.now()
    failed = [event(acme, now, status=502, outcome="failed", error_code="upstream_unavailable") for _ in range(5)]
    ledger.post(failed)
    assert watch() == [], "too few calls"
    ledger.post([event(acme, now) for _ in range(15)])
    (alert,) = watch()
    assert (alert.tenant, alert.facts["percent"]) == (acme, 25.0)
    ledger.post([event(acme, now) for _ in range(30)])
    assert watch() == []
    assert Alert.objects.get().ended_at is not None


def test_errors_of_all_tenants_are_told_to_operators(acme: Tenant, globex: Tenant, operator: User) -> None:
    AlertRule.objects.filter(tenant=None).exclude(kind="error_rate").delete()
    now = timezone.now()
    ledger.post(
        [event(tenant, now, status=502, outcome="failed", error_code="x") for tenant in (acme, globex) for _ in range(60)]
    )
    of_all = [alert for alert in watch() if alert.tenant is None]
    assert [alert.facts["requests"] for alert in of_all] == [120]
    assert operator.pk in Notice.objects.filter(alert=of_all[0]).values_list("user", flat=True)


def test_a_late_journal_is_told_to_operators(acme: Tenant, valkey: redis.Redis, operator: User) -> None:
    put_on_journal(valkey, event(acme, timezone.now()))
    assert watch() == []
    later = timezone.now() + timedelta(minutes=2)
    (alert,) = firing.watch(later)
    assert (alert.kind, alert.tenant) == ("journal_lag", None)
    assert Notice.objects.get().user == operator
    valkey.flushdb()
    firing.watch(later)
    assert Alert.objects.get().ended_at is not None


def test_a_backend_that_is_out_is_told_to_operators_and_not_while_it_drains(valkey: redis.Redis, operator: User) -> None:
    row = Backend.objects.create(name="gpu-1", url="http://192.0.2.7:8000")
    tell(valkey, problem="no connection")
    (alert,) = watch()
    assert (alert.kind, alert.tenant, alert.facts["reason"]) == ("backend_down", None, "no connection")
    assert words.path(alert) == "/admin/backends/gpu-1/"
    assert Notice.objects.get().user == operator
    assert watch() == []
    valkey.flushdb()
    assert watch() == [], "no worker of the gateway tells of itself"
    assert Alert.objects.get().ended_at is None
    tell(valkey, problem="no connection")
    Backend.objects.filter(pk=row.pk).update(is_draining=True)
    assert watch() == []
    assert Alert.objects.get().ended_at is not None


def test_a_gateway_that_is_silent_for_two_minutes_is_told_to_operators(valkey: redis.Redis, operator: User) -> None:
    assert watch() == [], "of one that was never started nobody waits for a word"
    seconds, _ = valkey.time()
    here = presence.Presence(seconds - 110, 1.0, "1", 0.0, 0, 0, True)
    presence.tell(valkey, "worker", here)
    assert watch() == []
    presence.tell(valkey, "worker", replace(here, at_s=seconds - 121))
    presence.leave(valkey, "worker")  # as a worker that is stopped does
    (alert,) = watch()
    assert (alert.kind, alert.tenant, alert.facts) == ("gateway_silent", None, {"since_s": round(seconds - 121)})
    assert (words.path(alert), Notice.objects.get().user) == ("/admin/health/", operator)
    assert "Is the gateway running" in words.detail(alert, words.zone_of(alert))
    assert watch() == []
    presence.tell(valkey, "worker", replace(here, at_s=float(seconds)))
    assert watch() == []
    assert [notice.is_end for notice in Notice.objects.order_by("pk")] == [False, True]


def test_a_backend_that_is_back_is_told_once_to_whom_it_was_told(valkey: redis.Redis, operator: User, settings: Any) -> None:
    settings.IS_MAIL_CONFIGURED = True
    webhook, _ = hooks.create(None, "ops", "http://10.0.0.1/hook", **BY)
    late, _ = hooks.create(None, "late", "http://10.0.0.1/late", **BY)
    rule = AlertRule.objects.get(kind="backend_down")
    rule.webhooks.add(webhook)
    Backend.objects.create(name="gpu-1", url="http://192.0.2.7:8000")
    tell(valkey, problem="no connection")
    (alert,) = watch()
    rule.webhooks.set([late])  # what was told of its beginning waits for its end all the same
    valkey.delete(exchange.EJECTIONS)
    tell(valkey)
    for _ in range(3):
        assert watch() == []
    assert [notice.user for notice in Notice.objects.filter(is_end=True)] == [operator]
    ends = Delivery.objects.filter(is_end=True)
    assert {(one.webhook, one.user) for one in ends} == {(webhook, None), (None, operator)}
    assert words.title_of(ends[0]) == "Over: Backend gpu-1 is out"
    alert.refresh_from_db()
    alert.fired_at = alert.ended_at - timedelta(minutes=12)
    assert "It lasted 12 minutes, from " in words.detail_of(alert, words.zone_of(alert), is_end=True)


def test_errors_that_are_over_are_told_to_those_who_are_still_members(acme: Tenant, acme_owner: User, acme_admin: User) -> None:
    now = timezone.now()
    ledger.post([event(acme, now, status=502, outcome="failed", error_code="upstream_unavailable") for _ in range(30)])
    assert len(watch()) == 1
    acme.memberships.filter(user=acme_admin).delete()
    ledger.post([event(acme, now) for _ in range(300)])
    assert watch() == []
    assert [notice.user for notice in Notice.objects.filter(is_end=True)] == [acme_owner]


def test_a_limit_that_is_reset_and_a_rule_that_rests_tell_no_end(
    acme: Tenant, daily: Limit, use: Use, acme_owner: User
) -> None:
    use(900)
    assert len(watch()) == 1
    Limit.replace_all(acme, [limits.Limit("tokens_per_day", 10_000)])
    watch()
    ledger.post([event(acme, timezone.now(), status=502, outcome="failed", error_code="x") for _ in range(30)])
    assert len(watch()) == 1
    firing.end_all(acme.alert_rules.get(kind="error_rate"), timezone.now())
    assert not Alert.objects.filter(ended_at=None).exists()
    assert not Notice.objects.filter(is_end=True).exists()


def test_a_rule_with_a_lower_threshold_tells_no_end_of_what_is_still_so(acme: Tenant, acme_owner: User) -> None:
    now = timezone.now()
    ledger.post([event(acme, now, status=502, outcome="failed", error_code="x") for _ in range(30)])
    assert len(watch()) == 1
    ledger.post([event(acme, now) for _ in range(170)])
    AlertRule.objects.filter(kind="error_rate").update(thresholds=[10])
    watch()
    assert not Notice.objects.filter(is_end=True).exists()


def test_every_tenant_begins_with_rules(acme: Tenant) -> None:
    assert {rule.kind: rule.thresholds for rule in acme.alert_rules.all()} == {
        "limit": [80, 100],
        "key_expiry": [7, 3, 1],
        "error_rate": [20],
    }


def test_a_fresh_installation_has_rules_of_the_platform() -> None:
    AlertRule.objects.all().delete()
    for name in ("0002_first_rules", "0003_ends_and_a_silent_gateway"):
        import_module(f"portal.alerts.migrations.{name}").begin(apps, None)
    kinds = set(AlertRule.objects.filter(tenant=None).values_list("kind", flat=True))
    assert kinds == {rule.kind for rule in defaults.rules(None)}


def test_many_rules_take_few_queries(acme: Tenant, use: Use, django_assert_max_num_queries: Any) -> None:
    use(0)
    for n in range(30):
        tenant = Tenant.objects.create(slug=f"t{n}", name=f"T {n}")
        Limit.replace_all(tenant, [limits.Limit("tokens_per_day", 100)])
    with django_assert_max_num_queries(15):
        watch()


@pytest.mark.django_db(transaction=True)
def test_two_workers_that_see_it_at_once_fire_once(acme: Tenant, acme_owner: User) -> None:
    rule = acme.alert_rules.get(kind="limit")
    of = Observed("limit:x", 80, "2026-11-21/1000", {"limit": "tokens_per_day"})
    fired = at_once(lambda: firing.apply([rule], {rule.pk: [of]}, timezone.now()))
    assert len(fired) == Alert.objects.count() == Notice.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_workers_that_see_it_end_at_once_tell_it_once(acme: Tenant, acme_owner: User) -> None:
    rule = acme.alert_rules.get(kind="error_rate")
    of = Observed("errors", 20, facts={"errors": 9, "requests": 20, "percent": 45.0, "minutes": 10})
    assert len(firing.apply([rule], {rule.pk: [of]}, timezone.now())) == 1
    at_once(lambda: firing.apply([rule], {rule.pk: []}, timezone.now()))
    assert Notice.objects.filter(is_end=True).count() == 1


@pytest.mark.django_db(transaction=True)
def test_who_is_killed_while_firing_leaves_nothing_and_the_next_fires_it_all(
    acme: Tenant, acme_owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = acme.alert_rules.get(kind="limit")
    of = Observed("limit:x", 80, "2026-11-21/1000", {"limit": "tokens_per_day"})

    def killed(*_: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(firing, "_delivery", killed)
        patch.setattr(firing, "recipients", killed)
        with pytest.raises(SystemExit):
            firing.apply([rule], {rule.pk: [of]}, timezone.now())
    assert Alert.objects.count() == 0
    assert len(firing.apply([rule], {rule.pk: [of]}, timezone.now())) == 1
    assert Notice.objects.get().user == acme_owner
