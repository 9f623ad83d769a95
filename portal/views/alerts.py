"""The alerts of a tenant, or of the platform: what fired, and the rules by which it does."""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import OuterRef, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _

from accounts.models import Tenant
from accounts.roles import Action
from portal import keyset
from portal.access import by
from portal.alerts import kinds, rules
from portal.alerts.hooks import masked
from portal.alerts.models import Alert, AlertRule, Delivery, Webhook
from portal.alerts.words import HINTS, KINDS
from portal.forms.alerts import RuleForm
from portal.holders import held, may_here, url_of
from portal.keyset import Column

POST: Final = ("POST",)
READ_AND_POST: Final = ("GET", "HEAD", "POST")
NEWEST_FIRST: Final = (Column("fired_at", keyset.moment, is_descending=True), Column("id", keyset.identity, is_descending=True))
WEBHOOKS_SHOWN: Final = 50
RULES_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Hook:
    """host: of its address; the rest of that is often a secret. last: how its last delivery went, "" for none yet."""

    row: Webhook
    host: str
    last: str


@held(Action.VIEW)
def index(request: HttpRequest, holder: Tenant | None) -> HttpResponse:
    is_open = request.GET.get("state") == "open"
    fired = Alert.objects.filter(tenant=holder).select_related("tenant")
    page = keyset.page_of(request, fired.filter(ended_at=None) if is_open else fired, NEWEST_FIRST)
    found = AlertRule.objects.filter(tenant=holder).prefetch_related("people", "webhooks")
    context = {
        "page": page,
        "is_open": is_open,
        "rules": found[:RULES_SHOWN],
        "hooks": _hooks(holder),
        "mails": settings.IS_MAIL_CONFIGURED,
    }
    return render(request, "portal/alerts/list.html", page_of(request, holder, **context))


@held(Action.MANAGE_SETTINGS, methods=READ_AND_POST)
def new_rule(request: HttpRequest, holder: Tenant | None) -> HttpResponse:
    """First what it shall watch, by the URL's `kind`, then the rest."""
    offered = kinds.OF_THE_PLATFORM if holder is None else kinds.OF_TENANTS
    kind = request.GET.get("kind", "")
    if kind not in offered:
        choices = [(name, KINDS[name], HINTS[name]) for name in offered]
        return render(request, "portal/alerts/kinds.html", page_of(request, holder, kinds=choices))
    form = RuleForm(request.POST or None, holder=holder, kind=kind)
    if request.method == "POST" and form.is_valid():
        try:
            rules.create(holder, form.terms, **by(request))
        except ValidationError as error:
            form.refuse(error)
        else:
            messages.success(request, _("Made: it is in force within seconds."))
            return redirect(url_of(holder, "alerts"))
    return _rule_page(request, holder, form, None)


@held(Action.MANAGE_SETTINGS, methods=READ_AND_POST)
def edit_rule(request: HttpRequest, holder: Tenant | None, pk: UUID) -> HttpResponse:
    rule = _rule(holder, pk)
    form = RuleForm(request.POST or None, holder=holder, kind=rule.kind, rule=rule)
    if request.method == "POST" and form.is_valid():
        try:
            changed = rules.change(rule, form.terms, **by(request))
        except ValidationError as error:
            form.refuse(error)
        else:
            done = _("Changed: it is in force within seconds.") if changed else _("Nothing was changed.")
            messages.success(request, done)
            return redirect(url_of(holder, "alerts"))
    return _rule_page(request, holder, form, rule)


@held(Action.MANAGE_SETTINGS, methods=POST)
def delete_rule(request: HttpRequest, holder: Tenant | None, pk: UUID) -> HttpResponse:
    rules.delete(_rule(holder, pk), **by(request))
    messages.success(request, _("The rule is gone; what it fired stays to be read."))
    return redirect(url_of(holder, "alerts"))


def page_of(request: HttpRequest, holder: Tenant | None, **more: Any) -> dict[str, Any]:
    """What every page of alerts says."""
    return {
        "tenant": holder,
        "holder": holder.name if holder else _("The platform"),
        "zone": holder.zone if holder else ZoneInfo("UTC"),
        "may_manage": may_here(request, holder, Action.MANAGE_SETTINGS),
        **more,
    }


def _rule_page(request: HttpRequest, holder: Tenant | None, form: RuleForm, rule: AlertRule | None) -> HttpResponse:
    context = {
        "form": form,
        "rule": rule,
        "kind": KINDS[form.kind.name],
        "hint": HINTS[form.kind.name],
        "mails": settings.IS_MAIL_CONFIGURED,
    }
    return render(request, "portal/alerts/rule.html", page_of(request, holder, **context))


def _rule(holder: Tenant | None, pk: UUID) -> AlertRule:
    return get_object_or_404(AlertRule.objects.filter(tenant=holder).select_related("tenant"), pk=pk)


def _hooks(holder: Tenant | None) -> list[Hook]:
    last = Delivery.objects.filter(webhook=OuterRef("pk")).order_by("-created_at").values("state")[:1]
    rows = Webhook.objects.filter(tenant=holder).annotate(last_state=Subquery(last))[:WEBHOOKS_SHOWN]
    return [Hook(row, masked(row.url), row.last_state or "") for row in rows]
