"""From what rules find to what people are told: an alert with its notices and deliveries is one transaction.

Two workers may do all of this at once: the constraints of the table let one of them fire, and the other finds it done.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet

from accounts.models import Membership, User
from portal.alerts import kinds, pace
from portal.alerts.models import Alert, AlertRule, Delivery, Notice
from portal.alerts.observing import Found, Observed, observe


def watch(now: datetime) -> list[Alert]:
    """One look at every rule; what fired by this call. Rules of suspended tenants rest."""
    rules = list(AlertRule.objects.filter(is_active=True).exclude(tenant__is_active=False).select_related("tenant"))
    return apply(rules, observe(rules, now), now) if rules else []


def apply(rules: Sequence[AlertRule], found: Found, now: datetime) -> list[Alert]:
    """End what is over, then fire what is new."""
    open_alerts: dict[UUID, list[Alert]] = defaultdict(list)
    for alert in Alert.objects.filter(ended_at=None, rule__in=[rule.pk for rule in rules]).select_related("tenant"):
        if alert.rule_id is not None:
            open_alerts[alert.rule_id].append(alert)
    fired = []
    for rule in rules:
        observed = found.get(rule.pk)
        if observed is None:
            continue  # nobody can tell now
        lasting = _end(open_alerts[rule.pk], observed, now)
        fired += [made for one in observed if (made := _fire(rule, one, lasting, now)) is not None]
    return fired


def end_all(rule: AlertRule, now: datetime) -> None:
    """A rule that rests or goes leaves nothing open. Nobody is told that it is over: nobody knows."""
    rule.alerts.filter(ended_at=None).update(ended_at=now)


def _end(alerts: Sequence[Alert], observed: Iterable[Observed], now: datetime) -> list[Alert]:
    """Returns those that last."""
    by_subject = {one.subject: one for one in observed}
    over = [alert for alert in alerts if not _lasts(alert, by_subject.get(alert.subject))]
    for alert in over:
        _close(alert, now, is_well=alert.subject not in by_subject)
    return [alert for alert in alerts if alert not in over]


def _lasts(alert: Alert, one: Observed | None) -> bool:
    if one is None or one.window:
        return one is not None and one.window == alert.window  # within a period nothing that is used comes back
    rank = kinds.KINDS[alert.kind].rank
    return rank(one.threshold) >= rank(alert.threshold)


def _fire(rule: AlertRule, one: Observed, lasting: Iterable[Alert], now: datetime) -> Alert | None:
    """None when it was told before: what was used up is not told to be nearly used up afterwards."""
    kind = kinds.KINDS[rule.kind]
    as_bad = [threshold for threshold in rule.thresholds if kind.rank(threshold) >= kind.rank(one.threshold)]
    if any(alert.subject == one.subject and alert.threshold in as_bad for alert in lasting):
        return None
    window = one.window or kind.window(now.timestamp())
    told = rule.alerts.filter(subject=one.subject, window=window)
    if any(kind.rank(threshold) >= kind.rank(one.threshold) for threshold in told.values_list("threshold", flat=True)):
        return None
    try:
        with transaction.atomic():
            alert = Alert.objects.create(
                tenant=rule.tenant,
                rule=rule,
                rule_name=rule.name,
                kind=rule.kind,
                subject=one.subject,
                threshold=one.threshold,
                window=window,
                facts=one.facts,
                fired_at=now,
            )
            _tell(alert, rule, now)
    except IntegrityError:
        return None  # another worker was first, or the rule went away
    return alert


def _tell(alert: Alert, rule: AlertRule, now: datetime) -> None:
    people = recipients(rule, alert)
    Notice.objects.bulk_create(Notice(alert=alert, user=person) for person in people)
    outbox = [_delivery(alert, now, webhook=webhook) for webhook in rule.webhooks.filter(is_active=True)]
    if rule.sends_mail and settings.IS_MAIL_CONFIGURED:
        outbox += [_delivery(alert, now, user=person) for person in people]
    Delivery.objects.bulk_create(outbox)


def _close(alert: Alert, now: datetime, *, is_well: bool) -> None:
    """The worker that ends it tells of it, and no other. is_well: not when its rule has another threshold now."""
    with transaction.atomic():
        is_ours = Alert.objects.filter(pk=alert.pk, ended_at=None).update(ended_at=now)
        if is_ours and is_well and kinds.KINDS[alert.kind].tells_end:
            _tell_end(alert, now)


def _tell_end(alert: Alert, now: datetime) -> None:
    """Whom it was told, whatever the rule says by now: they wait for this."""
    people = {person.pk: person for person in _still_there(alert)}
    Notice.objects.bulk_create(Notice(alert=alert, user=person, is_end=True) for person in people.values())
    outbox = []
    for sent in alert.deliveries.filter(is_end=False).select_related("webhook"):
        if sent.webhook is not None and sent.webhook.is_active:
            outbox.append(_delivery(alert, now, webhook=sent.webhook, is_end=True))
        elif sent.user_id in people and settings.IS_MAIL_CONFIGURED:
            outbox.append(_delivery(alert, now, user=people[sent.user_id], is_end=True))
    Delivery.objects.bulk_create(outbox)


def _still_there(alert: Alert) -> QuerySet[User, User]:
    """Those who were told that it began, and may still know."""
    told = User.objects.filter(pk__in=alert.notices.filter(is_end=False).values("user"), is_active=True)
    return told.filter(memberships__tenant=alert.tenant) if alert.tenant else told.filter(is_operator=True)


def _delivery(alert: Alert, now: datetime, **to: object) -> Delivery:
    return Delivery(tenant=alert.tenant, alert=alert, created_at=now, next_at=now, give_up_at=now + pace.LIFETIME, **to)


def recipients(rule: AlertRule, alert: Alert | None = None) -> list[User]:
    """Who is told; of a rule of keys also who made the key of `alert`. Members alone, and operators for the platform."""
    chosen = set(rule.people.values_list("pk", flat=True))
    if rule.tenant is None:
        operators = User.objects.filter(is_operator=True, is_active=True)
        return list((operators.filter(pk__in=chosen) if chosen else operators).order_by("email"))
    if rule.tells_owner and alert is not None and (owner := alert.facts.get("owner_id")):
        chosen.add(UUID(owner))
    told = Q(role__in=rule.roles) | Q(user__in=chosen)
    members = Membership.objects.for_tenant(rule.tenant).filter(told, user__is_active=True)
    return [member.user for member in members.select_related("user").order_by("user__email")]
