"""Alerts, rules and deliveries as people read them, in the language that is active and the time zone that is given."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from django.conf import settings
from django.urls import reverse
from django.utils import formats
from django.utils.functional import Promise
from django.utils.translation import get_language, gettext_lazy, ngettext
from django.utils.translation import gettext as _

from portal import wording
from portal.alerts import kinds
from portal.alerts.models import Alert, AlertRule, Delivery, Notice
from portal.measures import whole
from usage.money import units

KINDS: Final[dict[str, Promise]] = {
    kinds.LIMIT: gettext_lazy("A limit is nearly used up"),
    kinds.KEY_EXPIRY: gettext_lazy("A key is about to end"),
    kinds.ERROR_RATE: gettext_lazy("Calls fail"),
    kinds.BACKEND_DOWN: gettext_lazy("A backend is out"),
    kinds.JOURNAL_LAG: gettext_lazy("The ledger is behind"),
    kinds.GATEWAY_SILENT: gettext_lazy("The gateway is silent"),
}
HINTS: Final[dict[str, Promise]] = {
    kinds.LIMIT: gettext_lazy("Once in the minute, hour, day or month of the limit, and again after it has been reset."),
    kinds.KEY_EXPIRY: gettext_lazy("Some days before a key is refused, while there is time to rotate it."),
    kinds.ERROR_RATE: gettext_lazy("When many of the last calls failed. Refused and blocked calls are no failures."),
    kinds.BACKEND_DOWN: gettext_lazy("When the gateway takes a backend out because calls or probes fail; not while it drains."),
    kinds.JOURNAL_LAG: gettext_lazy("When ended calls do not reach the ledger: PostgreSQL or the worker is out."),
    kinds.GATEWAY_SILENT: gettext_lazy("When no worker of the gateway reports any more: calls are probably not answered."),
}
ERRORS: Final[dict[str, Promise]] = {
    "refused": gettext_lazy("the address is not allowed: it is inside the house, or not https"),
    "no_host": gettext_lazy("there is no host of this name"),
    "no_connection": gettext_lazy("no connection, or it ended before the answer"),
    "tls": gettext_lazy("the certificate is not trusted, or there is no TLS"),
    "timeout": gettext_lazy("no answer in time"),
    "redirect": gettext_lazy("it redirects; redirects are not followed"),
    "status": gettext_lazy("an answer that is not 2xx"),
    "mail": gettext_lazy("the mail server did not take it"),
    "no_mail": gettext_lazy("no mail server is configured"),
    "secret": gettext_lazy("the secret cannot be decrypted: rotate it"),
    "unsaid": gettext_lazy("it could not be put into words: look into the worker's log"),
    "gone": gettext_lazy("the webhook is switched off"),
}
_OF: Final[dict[str, Promise]] = {
    "tenant": gettext_lazy("the whole tenant"),
    "alias": gettext_lazy("alias %(name)s"),
    "key": gettext_lazy("key %(name)s"),
}


def rule_name(rule: AlertRule) -> str:
    return rule.name or str(KINDS[rule.kind])


def rule_name_of(alert: Alert) -> str:
    return alert.rule_name or str(KINDS[alert.kind])


def thresholds(rule: AlertRule) -> str:
    """When it fires: “80 %, 100 %”, “7, 3, 1 days before”."""
    values = sorted(rule.thresholds, key=kinds.KINDS[rule.kind].rank)
    listed = _listed(str(value) for value in values)
    if rule.kind == kinds.KEY_EXPIRY:
        return _("%(days)s days before") % {"days": listed}
    if rule.kind == kinds.LIMIT:
        return _listed(_("%(number)s%%") % {"number": value} for value in values)
    first = values[0]
    if rule.kind == kinds.ERROR_RATE:
        facts = {"percent": first, "minutes": rule.minutes, "calls": whole(rule.least_calls)}
        return _("%(percent)s%% or more within %(minutes)s minutes, of %(calls)s calls or more") % facts
    if rule.kind == kinds.JOURNAL_LAG:
        return ngettext("after %(number)d second", "after %(number)d seconds", first) % {"number": first}
    return ngettext("after %(number)d minute", "after %(number)d minutes", first) % {"number": first} if first else _("at once")


def title(alert: Alert) -> str:
    """One line."""
    facts = alert.facts
    if alert.kind == kinds.LIMIT:
        named = {"limit": wording.in_words(facts["limit"]), "of": _whose(facts), "percent": alert.threshold}
        if alert.threshold >= 100:
            return _("Used up: %(limit)s (%(of)s)") % named
        return _("%(percent)d%% used: %(limit)s (%(of)s)") % named
    if alert.kind == kinds.KEY_EXPIRY:
        named = {"name": facts["key"], "number": alert.threshold}
        told = ngettext("Key %(name)s ends within %(number)d day", "Key %(name)s ends within %(number)d days", alert.threshold)
        return told % named
    if alert.kind == kinds.ERROR_RATE:
        return _("%(percent)s%% of calls failed") % {"percent": facts["percent"]}
    if alert.kind == kinds.BACKEND_DOWN:
        return _("Backend %(name)s is out") % {"name": facts["backend"]}
    return str(KINDS[alert.kind])


def title_of(told: Notice | Delivery) -> str:
    """Of what is told of an alert: that it began, or that it is over."""
    if told.alert is None:
        return _("Test")
    return _("Over: %(alert)s") % {"alert": title(told.alert)} if told.is_end else title(told.alert)


def detail_of(alert: Alert, zone: ZoneInfo, *, is_end: bool) -> str:
    """is_end: from when to when it was so."""
    if not is_end or alert.ended_at is None:
        return detail(alert, zone)
    minutes = max(1, round((alert.ended_at - alert.fired_at).total_seconds() / 60))
    start, end = (moment(at.timestamp(), zone) for at in (alert.fired_at, alert.ended_at))
    told = ngettext(
        "It lasted %(number)d minute, from %(start)s to %(end)s.",
        "It lasted %(number)d minutes, from %(start)s to %(end)s.",
        minutes,
    )
    return told % {"number": minutes, "start": start, "end": end}


def detail(alert: Alert, zone: ZoneInfo) -> str:
    """The figures, and what to do."""
    facts = alert.facts
    return _DETAILS[alert.kind](facts, zone)


def _of_limit(facts: dict[str, Any], zone: ZoneInfo) -> str:
    is_money = facts["limit"] == "money_per_month"
    used, most = (units(facts[name]) if is_money else whole(facts[name]) for name in ("used", "max"))
    told = [_("%(used)s of %(max)s are used (%(percent)d%%).") % {"used": used, "max": most, "percent": facts["percent"]}]
    if facts["is_refusing"]:
        told.append(_("Calls that do not fit it are refused."))
    elif facts["mode"] == "shadow":
        told.append(_("It is only counted: no call is refused."))
    if facts["resets_s"]:
        told.append(_("All of it is free again at %(time)s.") % {"time": moment(facts["resets_s"], zone)})
    return _text(told)


def _of_key(facts: dict[str, Any], zone: ZoneInfo) -> str:
    named = {"hint": facts["hint"], "end": moment(facts["ends_s"], zone)}
    told = [_("The key %(hint)s is refused from %(end)s on.") % named]
    if facts["used_s"]:
        told.append(_("It was last used at %(time)s.") % {"time": moment(facts["used_s"], zone)})
    else:
        told.append(_("It was never used."))
    told.append(_("Give it a later end, or rotate it and change the program."))
    return _text(told)


def _of_errors(facts: dict[str, Any], zone: ZoneInfo) -> str:
    named = {"errors": whole(facts["errors"]), "requests": whole(facts["requests"]), "minutes": facts["minutes"]}
    told = _("%(errors)s of %(requests)s calls failed within %(minutes)s minutes.") % named
    return _text([told, _("Calls that were refused or blocked are no failures.")])


def _of_backend(facts: dict[str, Any], zone: ZoneInfo) -> str:
    named = {"time": moment(facts["since_s"], zone), "reason": facts["reason"]}
    return _("Since %(time)s: %(reason)s. Others of its pools take its calls, where there are any.") % named


def _of_journal(facts: dict[str, Any], zone: ZoneInfo) -> str:
    named = {"entries": whole(facts["entries"]), "seconds": whole(facts["oldest_s"])}
    told = _("%(entries)s ended calls wait, the oldest for %(seconds)s s. Is PostgreSQL or the worker out? Calls go on.")
    return told % named


def _of_gateway(facts: dict[str, Any], zone: ZoneInfo) -> str:
    told = _("No worker has reported since %(time)s. Is the gateway running, and does it reach Redis?")
    return told % {"time": moment(facts["since_s"], zone)}


_DETAILS: Final = {
    kinds.LIMIT: _of_limit,
    kinds.KEY_EXPIRY: _of_key,
    kinds.ERROR_RATE: _of_errors,
    kinds.BACKEND_DOWN: _of_backend,
    kinds.JOURNAL_LAG: _of_journal,
    kinds.GATEWAY_SILENT: _of_gateway,
}


def path(alert: Alert) -> str:
    """The page of what it is about."""
    facts, tenant = alert.facts, alert.tenant
    if tenant is None:
        if alert.kind == kinds.BACKEND_DOWN:
            return reverse("admin_backend", args=[facts["backend"]])
        return reverse("admin_usage" if alert.kind == kinds.ERROR_RATE else "admin_health")
    if alert.kind == kinds.KEY_EXPIRY or facts.get("of") == "key":
        return reverse("key", args=[tenant.slug, facts.get("key_id") or facts["of_id"]])
    if alert.kind == kinds.LIMIT:
        return reverse("limits", args=[tenant.slug])
    return f"{reverse('requests', args=[tenant.slug])}?ending=failed"


def url(alert: Alert) -> str:
    return settings.PORTAL_PUBLIC_URL + path(alert)


def moment(at_s: float, zone: ZoneInfo) -> str:
    told = formats.date_format(datetime.fromtimestamp(at_s, UTC).astimezone(zone), "DATETIME_FORMAT")
    return f"{told} ({zone.key})"


def zone_of(alert: Alert) -> ZoneInfo:
    return alert.tenant.zone if alert.tenant else ZoneInfo("UTC")


def error(word: str) -> str:
    return str(ERRORS.get(word, word))


def _listed(parts: Iterable[str]) -> str:
    return ("、" if get_language() == "ja" else ", ").join(parts)


def _text(sentences: Iterable[str]) -> str:
    """Japanese has no spaces between them."""
    return ("" if get_language() == "ja" else " ").join(sentences)


def _whose(facts: dict[str, Any]) -> str:
    return str(_OF[facts["of"]]) % {"name": facts["of_name"]}
