"""An alert as a letter: plain text, in the language of whoever gets it."""

from django.conf import settings
from django.core.mail import EmailMessage
from django.utils import translation
from django.utils.translation import gettext as _

from accounts.models import User
from portal.alerts import words
from portal.alerts.models import Alert, Delivery


def language_of(person: User, alert: Alert) -> str:
    return person.language or (alert.tenant.language if alert.tenant else settings.LANGUAGE_CODE)


def letter(delivery: Delivery, alert: Alert, person: User) -> EmailMessage:
    """Links lead to where SEKISHO_PORTAL_PUBLIC_URL says people reach the portal."""
    with translation.override(language_of(person, alert)):
        title = words.title_of(delivery)
        # A line break in a subject would begin another header.
        holder = " ".join((alert.tenant.name if alert.tenant else _("The platform")).split())
        detail = words.detail_of(alert, words.zone_of(alert), is_end=delivery.is_end)
        told = _("Look at it:")
        why = _("%(holder)s, by the rule “%(rule)s”. Who is told of what is set on the page of alerts.")
        why %= {"holder": holder, "rule": words.rule_name_of(alert)}
        body = f"{title}\n\n{detail}\n\n{told}\n{words.url(alert)}\n\n-- \n{why}\n"
        subject = f"[Sekisho] {holder}: {' '.join(title.split())}"
    return EmailMessage(subject, body, to=[person.email])
