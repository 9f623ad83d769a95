"""Letters that the portal sends by e-mail, where mail is configured, each in its reader's language.

A page puts a letter into the worker's queue and waits for no mail server; what stands in the queue opens nothing by itself.
"""

import logging
from typing import Final, Literal
from uuid import UUID

from allauth.account.forms import default_token_generator
from allauth.account.utils import user_pk_to_url_str
from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.urls import reverse
from django.utils import formats, translation
from django.utils.translation import gettext as _
from kombu.exceptions import OperationalError

from accounts.models import Invitation, User
from gateway.config import encryption
from portal.celery import app

_log = logging.getLogger("portal.letters")

PATIENCE_S: Final = 20
EXPIRES_S: Final = 6 * 3600  # a letter that waited longer comes when nobody expects it any more
Fate = Literal["queued", "failed", "no_mail"]


class QueueUnavailable(Exception):
    """The broker does not answer: no letter is on its way."""


def is_mail_configured() -> bool:
    return bool(getattr(settings, "IS_MAIL_CONFIGURED", False))


def queue_invitation(invitation: Invitation, link: str) -> Fate:
    """Have the link sent to whom it is for. It opens the tenant: in the queue it is sealed."""
    if not is_mail_configured():
        return "no_mail"
    try:
        _queue("portal.tasks.send_invitation", str(invitation.pk), encryption.encrypt(link))
    except QueueUnavailable:
        return "failed"
    return "queued"


def queue_new_password(email: str, *, origin: str) -> None:
    """Have a link for a new password sent, if this is an account's address. Raises QueueUnavailable.

    Whether it is one is found out by the worker, so that the page takes as long for either. origin: scheme and host of the
    portal, as the person sees it.
    """
    _queue("portal.tasks.send_new_password", email, origin, translation.get_language())


def send_invitation(invitation_id: str, sealed_link: str) -> None:
    """Raises what the mail server's connection raises. An invitation that is over by now is not sent."""
    rows = Invitation.objects.open().select_related("tenant")
    invitation = rows.filter(pk=UUID(invitation_id)).first()
    if invitation is None:
        return
    tenant = " ".join(invitation.tenant.name.split())  # a line break in a subject would begin another header
    with translation.override(invitation.tenant.language):
        facts = {
            "person": invitation.invited_by_label,
            "tenant": tenant,
            "role": invitation.get_role_display(),
            "link": encryption.decrypt(sealed_link),
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
    _send(subject, body, to=invitation.email)


def send_new_password(email: str, origin: str, language: str | None) -> None:
    """To the open account of this address, in small letters, if there is one. Raises as send_invitation()."""
    for user in User.objects.filter(email=email, is_active=True):
        key = {"uidb36": user_pk_to_url_str(user), "key": default_token_generator.make_token(user)}
        with translation.override(user.language or language):
            subject = _("A new password for Sekisho")
            body = _(
                "Somebody, probably you, asked for a new password of %(email)s.\n\n"
                "Choose it here, within 24 hours:\n%(url)s\n\n"
                "If you did not ask for it, do nothing: the password stays as it is."
            ) % {"email": user.email, "url": origin + reverse("account_reset_password_from_key", kwargs=key)}
        _send(subject, body, to=user.email)


def _queue(task: str, *arguments: str | None) -> None:
    try:
        app.send_task(task, arguments, retry=False, expires=EXPIRES_S)
    except OperationalError as error:
        _log.error("A letter could not be queued: %s", type(error).__name__)
        raise QueueUnavailable from None


def _send(subject: str, body: str, *, to: str) -> None:
    EmailMessage(subject, body, to=[to], connection=get_connection(timeout=PATIENCE_S)).send()
