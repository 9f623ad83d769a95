"""An alert as a letter: plain text, in the language of whoever gets it."""

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.template.loader import render_to_string
from django.utils import translation

from accounts.models import User
from portal.alerts import words
from portal.alerts.models import Alert

PATIENCE_S = 5


def language_of(person: User, alert: Alert) -> str:
    return person.language or (alert.tenant.language if alert.tenant else settings.LANGUAGE_CODE)


def letter(alert: Alert, person: User) -> EmailMessage:
    """Links lead to where SEKISHO_PORTAL_PUBLIC_URL says people reach the portal."""
    with translation.override(language_of(person, alert)):
        title = words.title(alert)
        context = {
            "title": title,
            "detail": words.detail(alert, words.zone_of(alert)),
            "rule": words.rule_name_of(alert),
            "holder": alert.tenant.name if alert.tenant else translation.gettext("The platform"),
            "url": words.url(alert),
            "person": person,
        }
        body = render_to_string("portal/alerts/letter.txt", context)
        holder = " ".join(context["holder"].split())  # a line break in a subject would begin another header
        subject = f"[Sekisho] {holder}: {' '.join(title.split())}"
    return EmailMessage(subject, body, to=[person.email], connection=get_connection(timeout=PATIENCE_S))
