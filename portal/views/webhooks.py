"""Webhooks of a tenant, or of the platform, and what was delivered. A secret is in one answer alone, that of the POST that
made it: it is never in a URL, a session or a message.
"""

from typing import Final
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_variables

from accounts.models import Tenant
from accounts.roles import Action
from portal import keyset
from portal.access import by
from portal.alerts import hooks, signing
from portal.alerts.models import Delivery, Webhook
from portal.forms.alerts import DeleteWebhookForm, DeliveryFilter, RotateSecretForm, WebhookForm
from portal.holders import held, url_of
from portal.keyset import Column
from portal.views.alerts import page_of

POST: Final = ("POST",)
READ_AND_POST: Final = ("GET", "HEAD", "POST")
NEWEST_FIRST: Final = (
    Column("created_at", keyset.moment, is_descending=True),
    Column("id", keyset.identity, is_descending=True),
)
DELIVERIES_SHOWN: Final = 10


@held(Action.MANAGE_SETTINGS, methods=READ_AND_POST)
@sensitive_variables("secret")
def new(request: HttpRequest, holder: Tenant | None) -> HttpResponse:
    form = WebhookForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            webhook, secret = hooks.create(holder, form.cleaned_data["name"], form.cleaned_data["url"], **by(request))
        except ValidationError as error:
            form.refuse(error)
        else:
            return _handed_over(request, webhook, secret)
    return render(request, "portal/webhooks/form.html", page_of(request, holder, form=form))


@held(Action.MANAGE_SETTINGS)
def show(request: HttpRequest, holder: Tenant | None, pk: UUID) -> HttpResponse:
    webhook = _webhook(holder, pk)
    context = {
        "webhook": webhook,
        "rules": webhook.rules.all(),
        "deliveries": _latest(webhook),
        "python": signing.PYTHON,
        "javascript": signing.JAVASCRIPT,
    }
    return render(request, "portal/webhooks/show.html", page_of(request, holder, **context))


@held(Action.MANAGE_SETTINGS)
def live(request: HttpRequest, holder: Tenant | None, pk: UUID) -> HttpResponse:
    """What of its page changes by itself."""
    webhook = _webhook(holder, pk)
    context = page_of(request, holder, webhook=webhook, deliveries=_latest(webhook))
    return render(request, "portal/webhooks/_live.html", context)


@held(Action.MANAGE_SETTINGS, methods=READ_AND_POST)
def edit(request: HttpRequest, holder: Tenant | None, pk: UUID) -> HttpResponse:
    webhook = _webhook(holder, pk)
    form = WebhookForm(request.POST or None, webhook=webhook)
    if request.method == "POST" and form.is_valid():
        try:
            changed = hooks.change(webhook, **form.cleaned_data, **by(request))
        except ValidationError as error:
            form.refuse(error)
        else:
            messages.success(request, _("The webhook is changed.") if changed else _("Nothing was changed."))
            return redirect(url_of(holder, "webhook", webhook.pk))
    return render(request, "portal/webhooks/form.html", page_of(request, holder, form=form, webhook=webhook))


@held(Action.MANAGE_SETTINGS, methods=READ_AND_POST)
@sensitive_variables("secret")
def rotate(request: HttpRequest, holder: Tenant | None, pk: UUID) -> HttpResponse:
    webhook = _webhook(holder, pk)
    form = RotateSecretForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        secret = hooks.rotate(webhook, form.duration, **by(request))
        webhook.refresh_from_db()
        return _handed_over(request, webhook, secret)
    return render(request, "portal/webhooks/rotate.html", page_of(request, holder, form=form, webhook=webhook))


@held(Action.MANAGE_SETTINGS, methods=POST)
def test(request: HttpRequest, holder: Tenant | None, pk: UUID) -> HttpResponse:
    webhook = _webhook(holder, pk)
    hooks.test(webhook, **by(request))
    messages.success(request, _("A test is on its way: how it went stands below within seconds."))
    return redirect(url_of(holder, "webhook", webhook.pk))


@held(Action.MANAGE_SETTINGS, methods=READ_AND_POST)
def delete(request: HttpRequest, holder: Tenant | None, pk: UUID) -> HttpResponse:
    webhook = _webhook(holder, pk)
    form = DeleteWebhookForm(request.POST or None, webhook=webhook)
    if request.method == "POST" and form.is_valid():
        hooks.delete(webhook, **by(request))
        messages.success(request, _("%(name)s is deleted.") % {"name": webhook.name})
        return redirect(url_of(holder, "alerts"))
    context = page_of(request, holder, form=form, webhook=webhook, rules=webhook.rules.all())
    return render(request, "portal/webhooks/delete.html", context)


@held(Action.MANAGE_SETTINGS)
def deliveries(request: HttpRequest, holder: Tenant | None) -> HttpResponse:
    form = DeliveryFilter(request.GET)
    form.is_valid()
    state, to = form.cleaned_data.get("state", ""), form.cleaned_data.get("to", "")
    rows = _deliveries(holder)
    if state:
        rows = rows.filter(state=state)
    if to:
        rows = rows.filter(webhook__isnull=to == "mail")
    context = {
        "form": form,
        "is_filtered": bool(state or to),
        "page": keyset.page_of(request, rows, NEWEST_FIRST),
        "mails": settings.IS_MAIL_CONFIGURED,
    }
    return render(request, "portal/webhooks/deliveries.html", page_of(request, holder, **context))


@held(Action.MANAGE_SETTINGS)
def delivery(request: HttpRequest, holder: Tenant | None, pk: UUID) -> HttpResponse:
    """One of them with its attempts."""
    row = get_object_or_404(_deliveries(holder), pk=pk)
    return render(request, "portal/webhooks/delivery.html", page_of(request, holder, delivery=row, tries=row.tries.all()))


@held(Action.MANAGE_SETTINGS, methods=POST)
def resend(request: HttpRequest, holder: Tenant | None, pk: UUID) -> HttpResponse:
    row = get_object_or_404(_deliveries(holder), pk=pk)
    if hooks.resend(row, **by(request)):
        messages.success(request, _("It is on its way again."))
    else:
        messages.success(request, _("It is on its way already."))
    return redirect(url_of(holder, "delivery", row.pk))


@sensitive_variables("secret")
def _handed_over(request: HttpRequest, webhook: Webhook, secret: str) -> HttpResponse:
    context = {"webhook": webhook, "secret": secret, "python": signing.PYTHON, "javascript": signing.JAVASCRIPT}
    return render(request, "portal/webhooks/made.html", page_of(request, webhook.tenant, **context))


def _webhook(holder: Tenant | None, pk: UUID) -> Webhook:
    return get_object_or_404(Webhook.objects.filter(tenant=holder).select_related("tenant"), pk=pk)


def _deliveries(holder: Tenant | None) -> QuerySet[Delivery, Delivery]:
    rows = Delivery.objects.filter(tenant=holder).select_related("alert__tenant", "webhook", "user")
    return rows.prefetch_related("tries")


def _latest(webhook: Webhook) -> QuerySet[Delivery, Delivery]:
    rows = webhook.deliveries.select_related("alert__tenant", "webhook", "user").prefetch_related("tries")
    return rows[:DELIVERIES_SHOWN]
