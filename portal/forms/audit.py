"""Which events of the audit trail are shown. What is asked stands in the URL."""

from datetime import date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import Tenant
from accounts.querysets import AuditEventQuerySet
from portal.wording import VERBS

# Far from the ends of the calendar, where time zones and sums of times overflow.
_DAYS: Final = (MinValueValidator(date(2000, 1, 1)), MaxValueValidator(date(2199, 12, 31)))


class _Day(forms.DateField):
    def __init__(self, label: Any) -> None:
        widget = forms.DateInput(format="%Y-%m-%d", attrs={"type": "date"})
        super().__init__(label=label, required=False, widget=widget, input_formats=["%Y-%m-%d"], validators=_DAYS)


class AuditFilter(forms.Form):
    """verb: also one that VERBS does not know. since, until: days of the tenant's time zone, both inclusive; the platform's
    is UTC. tenant: of the platform's trail alone, which holds those of all tenants.
    """

    verb = forms.CharField(label=gettext_lazy("What"), required=False, max_length=64, widget=forms.Select)
    person = forms.CharField(label=gettext_lazy("Who"), required=False, max_length=254)
    target = forms.CharField(label=gettext_lazy("On what"), required=False, max_length=200)
    since = _Day(gettext_lazy("From"))
    until = _Day(gettext_lazy("Until"))

    def __init__(self, *args: Any, tenant: Tenant | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._zone = ZoneInfo(tenant.time_zone if tenant else "UTC")
        if tenant is None:
            self.fields["tenant"] = forms.CharField(label=_("Tenant"), required=False, max_length=63)
            self.order_fields(["tenant"])
        asked = str(self.data.get("verb", ""))[:64]
        verbs = VERBS if not asked or asked in VERBS else {**VERBS, asked: asked}
        self.fields["verb"].widget.choices = [("", _("Everything")), *verbs.items()]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if (since := cleaned.get("since")) and (until := cleaned.get("until")) and until < since:
            raise ValidationError({"until": _("This day is before the first one. Take that day or a later one.")})
        return cleaned

    @property
    def is_narrow(self) -> bool:
        """Is anything asked for?"""
        return any(self.cleaned_data.values())

    def narrowed(self, events: AuditEventQuerySet) -> AuditEventQuerySet:
        """Those of `events` that are asked for. Once it is valid."""
        asked = self.cleaned_data
        if asked["verb"]:
            events = events.filter(verb=asked["verb"])
        if asked["person"]:
            events = events.filter(actor_label__icontains=asked["person"])
        if asked["target"]:
            events = events.filter(target__icontains=asked["target"])
        if asked.get("tenant"):
            events = events.filter(tenant_slug=asked["tenant"])
        if asked["since"]:
            events = events.filter(created_at__gte=self._begin(asked["since"]))
        if asked["until"]:
            events = events.filter(created_at__lt=self._begin(asked["until"] + timedelta(days=1)))
        return events

    def _begin(self, day: date) -> datetime:
        return datetime.combine(day, time.min, self._zone)
