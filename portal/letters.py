"""Letters that the portal sends by e-mail, where mail is configured. They are written in the tenant's language."""

import logging
from smtplib import SMTPException
from typing import Final, Literal

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.utils import formats, translation
from django.utils.translation import gettext as _

from accounts.models import Invitation

_log = logging.getLogger("portal.letters")

# A letter is sent while its page waits: a mail server that does not answer may hold the page up no longer.
PATIENCE_S: Final = 5
Fate = Literal["sent", "failed", "no_mail"]


def is_mail_configured() -> bool:
    return bool(getattr(settings, "IS_MAIL_CONFIGURED", False))


def send_invitation(invitation: Invitation, link: str) -> Fate:
    """Send the link to whom it is for. What fails is logged without the link, which opens the tenant."""
    if not is_mail_configured():
        return "no_mail"
    tenant = " ".join(invitation.tenant.name.split())  # a line break in a subject would begin another header
    with translation.override(invitation.tenant.language):
        facts = {
            "person": invitation.invited_by_label,
            "tenant": tenant,
            "role": invitation.get_role_display(),
            "link": link,
            "end": formats.date_format(invitation.expires_at.astimezone(invitation.tenant.zone), "DATETIME_FORMAT"),
            "zone": invitation.tenant.time_zone,
        }
        subject = _("Invitation to %(tenant)s on Sekisho") % facts
        body = (
            _(
                "%(person)s invites you to join %(tenant)s on Sekisho as: %(role)s.\n\n"
                "Open this link to accept:\n%(link)s\n\n"
                "It works once, for this address alone, until %(end)s (%(zone)s). "
                "If you did not expect it, leave it: nothing happens then."
            )
            % facts
        )
    letter = EmailMessage(subject, body, to=[invitation.email], connection=get_connection(timeout=PATIENCE_S))
    try:
        letter.send()
    except (SMTPException, OSError) as error:
        _log.warning("An invitation could not be sent by mail: %s", type(error).__name__)
        return "failed"
    return "sent"
