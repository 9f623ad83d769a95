"""Alerts, rules and deliveries on a page; and the bell in its header."""

from zoneinfo import ZoneInfo

from django import template

from accounts.models import User
from accounts.roles import Role
from portal.alerts import bell, words
from portal.alerts.models import Alert, AlertRule, Attempt, Delivery

register = template.Library()
register.filter("rule_name", words.rule_name)
register.filter("thresholds", words.thresholds)
register.filter("alert_title", words.title)
register.filter("told_title", words.title_of)
register.filter("alert_path", words.path)
register.filter("delivery_error", words.error)


@register.filter
def alert_rule(alert: Alert) -> str:
    return words.rule_name_of(alert)


@register.filter
def alert_detail(alert: Alert) -> str:
    return words.detail(alert, words.zone_of(alert))


@register.filter
def alert_end(alert: Alert) -> str:
    return words.detail_of(alert, words.zone_of(alert), is_end=True)


@register.filter
def alert_zone(alert: Alert) -> ZoneInfo:
    return words.zone_of(alert)


@register.filter
def last_try(delivery: Delivery) -> Attempt | None:
    """Of deliveries with their tries at hand."""
    return max(delivery.tries.all(), key=lambda one: one.number, default=None)


@register.filter
def told_people(rule: AlertRule) -> list[str]:
    """Roles by their names, then people: with both at hand."""
    roles = [str(label) for value, label in Role.choices if value in rule.roles]
    return [*roles, *sorted(person.email for person in rule.people.all())]


@register.simple_tag
def unread_notices(user: User) -> int:
    return bell.unread(user)
