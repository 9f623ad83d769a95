"""Alerts: what a rule watches and whom it tells, where a webhook goes, and which deliveries are listed."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from accounts.models import Tenant, User
from accounts.roles import Role
from portal.alerts import defaults, kinds
from portal.alerts.hooks import OVERLAPS_H
from portal.alerts.models import NAME, URL_LENGTH, AlertRule, Delivery, Webhook
from portal.alerts.rules import Terms
from portal.wording import LIMITS
from usage.limits import NAMES

PEOPLE_MOST: Final = 100
LISTED_MOST: Final = 50
_PLAIN: Final = {"autocomplete": "off", "spellcheck": "false"}


class RuleForm(forms.Form):
    """Has the fields of its kind alone. `terms` once it is valid."""

    name = forms.CharField(
        label=gettext_lazy("Name"),
        required=False,
        max_length=64,
        validators=[NAME],
        widget=forms.TextInput(attrs=_PLAIN),
        help_text=gettext_lazy("Empty: it goes by what it watches."),
    )

    def __init__(self, *args: Any, holder: Tenant | None, kind: str, rule: AlertRule | None = None, **kwargs: Any) -> None:
        self._rule = rule or AlertRule(tenant=holder, kind=kind, thresholds=list(kinds.KINDS[kind].first))
        self._is_new = rule is None
        self._holder, self.kind = holder, kinds.KINDS[kind]
        super().__init__(*args, **{"initial": self._initial(), **kwargs})
        self._watch()
        self._tell()
        self.fields["is_active"] = _switch(_("In force"), _("A rule that rests fires nothing; what is open ends."))

    def _initial(self) -> dict[str, Any]:
        rule = self._rule
        held = {
            name: getattr(rule, name) for name in ("name", "minutes", "least_calls", "tells_owner", "sends_mail", "is_active")
        }
        begun = {"roles": [Role.OWNER, Role.ADMIN], "limits": defaults.LIMITS, "tells_owner": True} if self._is_new else {}
        people = () if self._is_new else rule.people.order_by("email").values_list("email", flat=True)
        return {
            **held,
            "thresholds": rule.thresholds,
            "threshold": rule.thresholds[0],
            "limits": rule.limits or list(NAMES),
            "roles": rule.roles,
            "people": "\n".join(people),
            "webhooks": [] if self._is_new else [str(one.pk) for one in rule.webhooks.all()],
            **begun,
        }

    def _watch(self) -> None:
        kind = self.kind
        if kind.choices:
            choices = [(str(value), _threshold(kind, value)) for value in kind.choices]
            label = _("Tell me at") if kind.name == kinds.LIMIT else _("Tell me before it ends")
            self.fields["thresholds"] = _boxes(label, choices, error=_("Choose one or more."))
        else:
            asked, unit = _NUMBERS[kind.name]
            self.fields["threshold"] = forms.IntegerField(
                label=asked, help_text=unit, min_value=kind.low, max_value=kind.high, widget=_number(kind.low, kind.high)
            )
        if kind.name == kinds.LIMIT:
            named = [(name, LIMITS[name]) for name in NAMES]
            self.fields["limits"] = _boxes(_("Which limits"), named, error=_("Choose one limit or more."))
        if kind.name == kinds.ERROR_RATE:
            low, high = kinds.MINUTES_MIN, kinds.MINUTES_MAX
            self.fields["minutes"] = forms.IntegerField(
                label=_("Over the last minutes"), min_value=low, max_value=high, widget=_number(low, high)
            )
            self.fields["least_calls"] = forms.IntegerField(
                label=_("With at least so many calls"),
                min_value=1,
                max_value=kinds.LEAST_CALLS_MAX,
                widget=_number(1, kinds.LEAST_CALLS_MAX),
                help_text=_("Of few calls one that fails is a large share."),
            )

    def _tell(self) -> None:
        if self._holder is not None:
            self.fields["roles"] = _boxes(_("Who is told"), Role.choices, is_required=False)
        if self.kind.name == kinds.KEY_EXPIRY:
            self.fields["tells_owner"] = _switch(_("Also who made the key"))
        self.fields["people"] = forms.CharField(
            label=_("These people") if self._holder is None else _("And these people"),
            required=False,
            widget=forms.Textarea(attrs={**_PLAIN, "rows": 2, "class": "code"}),
            help_text=_("Addresses of operators, one a line. Empty: all of them.")
            if self._holder is None
            else _("Addresses of members, one a line."),
        )
        self.fields["sends_mail"] = _switch(_("Send them mail, too"), _("In the portal's bell they are told in any case."))
        rows = Webhook.objects.filter(tenant=self._holder)[:LISTED_MOST]
        choices = [(str(row.pk), row.name) for row in rows]
        if choices:
            self.fields["webhooks"] = _boxes(_("Webhooks"), choices, is_required=False)

    def clean_people(self) -> list[User]:
        addresses = {one.strip().lower() for one in self.cleaned_data["people"].replace(",", "\n").split("\n") if one.strip()}
        if len(addresses) > PEOPLE_MOST:
            raise ValidationError(_("Name %(most)d people at most; roles are for more."), params={"most": PEOPLE_MOST})
        found = {person.email: person for person in _people(self._holder).filter(email__in=addresses)}
        if strange := sorted(addresses - set(found)):
            told = _("No operator: %(names)s.") if self._holder is None else _("No member of this tenant: %(names)s.")
            raise ValidationError(told, params={"names": ", ".join(strange)[:200]})
        return list(found.values())

    @property
    def terms(self) -> Terms:
        said = self.cleaned_data
        thresholds = [int(value) for value in said["thresholds"]] if "thresholds" in said else [said["threshold"]]
        chosen = said.get("limits", [])
        return Terms(
            kind=self.kind.name,
            name=said["name"],
            thresholds=thresholds,
            limits=[] if set(chosen) == set(NAMES) else chosen,
            minutes=said.get("minutes", kinds.MINUTES_FIRST),
            least_calls=said.get("least_calls", kinds.LEAST_CALLS_FIRST),
            roles=said.get("roles", []),
            people=said["people"],
            webhooks=Webhook.objects.filter(tenant=self._holder, pk__in=said.get("webhooks", [])),
            tells_owner=said.get("tells_owner", False),
            sends_mail=said["sends_mail"],
            is_active=said["is_active"],
        )

    def refuse(self, error: ValidationError) -> None:
        """Say at the field what could not be."""
        told = error.message_dict if hasattr(error, "error_dict") else {"": error.messages}
        for name, said in told.items():
            self.add_error(name if name in self.fields else None, " ".join(said))


class WebhookForm(forms.Form):
    name = forms.CharField(label=gettext_lazy("Name"), max_length=64, validators=[NAME], widget=forms.TextInput(attrs=_PLAIN))
    url = forms.CharField(
        label="URL",
        max_length=URL_LENGTH,
        widget=forms.TextInput(attrs={**_PLAIN, "inputmode": "url", "class": "code"}),
        help_text=gettext_lazy("Alerts are posted there as JSON, such as https://hooks.example.com/sekisho."),
    )
    is_active = forms.BooleanField(
        label=gettext_lazy("In force"), required=False, help_text=gettext_lazy("Switched off it gets no alerts, but tests.")
    )

    def __init__(self, *args: Any, webhook: Webhook | None = None, **kwargs: Any) -> None:
        begun = {"name": webhook.name, "url": webhook.url, "is_active": webhook.is_active} if webhook else {}
        super().__init__(*args, **{"initial": begun, **kwargs})
        if webhook is None:
            del self.fields["is_active"]

    def refuse(self, error: ValidationError) -> None:
        told = error.message_dict if hasattr(error, "error_dict") else {"": error.messages}
        for name, said in told.items():
            self.add_error(name if name in self.fields else None, " ".join(said))


class RotateSecretForm(forms.Form):
    """overlap: hours for which the secret there is now goes on signing beside the new one."""

    overlap = forms.TypedChoiceField(
        label=gettext_lazy("The old secret signs, too"), coerce=int, widget=forms.RadioSelect, initial=24
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["overlap"].choices = [(hours, _overlap(hours)) for hours in OVERLAPS_H]  # type: ignore[attr-defined] # it is a field of choices

    @property
    def duration(self) -> timedelta:
        return timedelta(hours=self.cleaned_data["overlap"])


class DeleteWebhookForm(forms.Form):
    name = forms.CharField(label=gettext_lazy("Name"), widget=forms.TextInput(attrs=_PLAIN))

    def __init__(self, *args: Any, webhook: Webhook, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._webhook = webhook

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if name != self._webhook.name:
            raise ValidationError(_("That is another name. Type it as it stands above."))
        return name


class DeliveryFilter(forms.Form):
    state = forms.ChoiceField(
        label=gettext_lazy("State"), required=False, choices=[("", gettext_lazy("All")), *Delivery.State.choices]
    )
    to = forms.ChoiceField(
        label=gettext_lazy("To"),
        required=False,
        choices=[("", gettext_lazy("All")), ("webhook", gettext_lazy("Webhooks")), ("mail", gettext_lazy("Mailboxes"))],
    )


_NUMBERS: Final = {
    kinds.ERROR_RATE: (gettext_lazy("From this share of failed calls on"), gettext_lazy("Percent.")),
    kinds.BACKEND_DOWN: (gettext_lazy("When it has been out for"), gettext_lazy("Minutes; 0: at once.")),
    kinds.GATEWAY_SILENT: (gettext_lazy("When it has been silent for"), gettext_lazy("Minutes.")),
    kinds.JOURNAL_LAG: (gettext_lazy("When the oldest call waits for"), gettext_lazy("Seconds.")),
}


def _threshold(kind: kinds.Kind, value: int) -> str:
    if kind.unit == "percent":
        return _("%(number)s%%") % {"number": value}
    return ngettext("%(number)d day", "%(number)d days", value) % {"number": value}


def _overlap(hours: int) -> str:
    if hours == 0:
        return _("No more: from now on the new one alone")
    if hours < 48:
        return ngettext("for %(number)d hour", "for %(number)d hours", hours) % {"number": hours}
    return ngettext("for %(number)d day", "for %(number)d days", hours // 24) % {"number": hours // 24}


def _people(holder: Tenant | None) -> QuerySet[User, User]:
    people = User.objects.filter(is_active=True)
    return people.filter(is_operator=True) if holder is None else people.filter(memberships__tenant=holder)


def _boxes(label: Any, choices: Sequence[Any], *, is_required: bool = True, error: str = "") -> forms.MultipleChoiceField:
    field = forms.MultipleChoiceField(label=label, choices=choices, required=is_required, widget=forms.CheckboxSelectMultiple)
    if error:
        field.error_messages["required"] = error
    return field


def _switch(label: str, help_text: str = "") -> forms.BooleanField:
    return forms.BooleanField(label=label, required=False, help_text=help_text)


def _number(low: int, high: int) -> forms.NumberInput:
    return forms.NumberInput(attrs={"min": low, "max": high, "step": 1, "autocomplete": "off"})
