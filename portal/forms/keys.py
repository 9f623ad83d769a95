"""API keys: which are listed, what a new or changed one may do, how long a rotated one stays, and what is to be revoked."""

import re
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.issuing import SCOPES_DEFAULT, IssuingError, Terms
from accounts.models import ApiKey, Tenant
from accounts.models.keys import validate_network
from accounts.scopes import SCOPES
from gateway.models import ContentPolicy, ModelAlias
from portal.forms.search import order_field, search_field
from portal.templatetags.scopes import scope_in_words

NETWORKS_MAX: Final = 100
EXPIRY_DEFAULT: Final = "90"
DAY_MAX: Final = date(2999, 12, 31)  # the last moments of year 9999 are past what Python can say in UTC
TAIL_LENGTH: Final = 4  # of a hint, what people compare


class FilterForm(forms.Form):
    """q: part of a name, or a hint or its last four; state: "" for any, but the playground's; sort: see ORDERS of the view."""

    q = search_field(gettext_lazy("Name, or last four characters of the key"), most=64)
    state = forms.ChoiceField(
        label=gettext_lazy("State"),
        required=False,
        choices=[
            ("", gettext_lazy("Any")),
            ("active", gettext_lazy("Active")),
            ("retiring", gettext_lazy("Retiring")),
            ("expired", gettext_lazy("Expired")),
            ("revoked", gettext_lazy("Revoked")),
            ("playground", gettext_lazy("Of the playground")),
        ],
    )
    sort = order_field(
        ("name", gettext_lazy("By name")),
        ("-name", gettext_lazy("By name, from the end")),
        ("-used", gettext_lazy("Last used first")),
        ("used", gettext_lazy("Longest unused first")),
        ("ends", gettext_lazy("Ending soonest first")),
        ("-ends", gettext_lazy("Ending latest first")),
        ("-made", gettext_lazy("Newest first")),
        ("made", gettext_lazy("Oldest first")),
    )


class TermsForm(forms.Form):
    """What a key may do, and until when; `terms` says it once the form is valid. key None: one that is yet to be made."""

    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=64,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        help_text=gettext_lazy("What uses it, such as “nightly batch”. Everybody in this tenant sees it."),
    )
    scopes = forms.MultipleChoiceField(label=gettext_lazy("What it may do"), widget=forms.CheckboxSelectMultiple)
    reach = forms.ChoiceField(
        label=gettext_lazy("Aliases it may call"),
        choices=[
            ("all", gettext_lazy("All of this tenant, those added later too")),
            ("some", gettext_lazy("Only those chosen here")),
        ],
        widget=forms.RadioSelect,
    )
    aliases = forms.MultipleChoiceField(
        label=gettext_lazy("Chosen aliases"), required=False, widget=forms.CheckboxSelectMultiple
    )
    policies = forms.MultipleChoiceField(
        label=gettext_lazy("Content policies its calls must pass"), required=False, widget=forms.CheckboxSelectMultiple
    )
    networks = forms.CharField(
        label=gettext_lazy("Networks it may be used from"),
        required=False,
        max_length=5000,
        widget=forms.Textarea(attrs={"rows": 3, "class": "code", "spellcheck": "false", "autocomplete": "off"}),
        help_text=gettext_lazy("One a line, such as 192.0.2.0/24. Empty: from anywhere."),
    )
    expiry = forms.ChoiceField(label=gettext_lazy("It works"), widget=forms.RadioSelect)
    last_day = forms.DateField(
        label=gettext_lazy("Last day"),
        required=False,
        input_formats=["%Y-%m-%d"],
        validators=[MaxValueValidator(DAY_MAX)],
        widget=forms.DateInput(format="%Y-%m-%d", attrs={"type": "date"}),
    )

    def __init__(
        self, *args: Any, tenant: Tenant, key: ApiKey | None = None, binds_policies: bool = True, **kwargs: Any
    ) -> None:
        """binds_policies: may this person put policies on a key, and take them off?"""
        super().__init__(*args, **{"initial": _initial(key), **kwargs})
        self._tenant, self._key = tenant, key
        self.fields["policies"].disabled = not binds_policies
        aliases = ModelAlias.objects.filter(tenant=tenant).values_list("name", flat=True)
        # What a key names stays to be chosen, even where it is not there any more: no form drops a policy unasked.
        self._choices("scopes", [(scope, f"{scope}: {scope_in_words(scope)}") for scope in SCOPES])
        self._choices("aliases", _plain({*aliases, *((key.aliases or ()) if key else ())}))
        self._choices("policies", _policies(tenant, key))
        self._choices("expiry", _expiries(tenant, key))

    def clean_networks(self) -> list[str]:
        networks = list(dict.fromkeys(filter(None, re.split(r"[\s,、]+", self.cleaned_data["networks"]))))
        if len(networks) > NETWORKS_MAX:
            raise ValidationError(_("Name %(number)d networks at most.") % {"number": NETWORKS_MAX})
        for network in networks:
            validate_network(network)
        return networks

    def clean(self) -> None:
        if self.cleaned_data.get("reach") == "some" and not self.cleaned_data.get("aliases") and "aliases" not in self.errors:
            self.add_error("aliases", _("Choose one alias or more, or let it call all of them."))
        if self.cleaned_data.get("expiry") == "date" and "last_day" not in self.errors:
            day = self.cleaned_data.get("last_day")
            if day is None:
                self.add_error("last_day", _("Choose the last day on which the key works."))
            elif self._end_of(day) <= timezone.now():
                self.add_error("last_day", _("This day is over: choose a later one."))

    @property
    def terms(self) -> Terms:
        said = self.cleaned_data
        return Terms(
            name=said.get("name", ""),
            scopes=said["scopes"],
            aliases=said["aliases"] if said["reach"] == "some" else None,
            networks=said["networks"],
            error_dialect=self._key.error_dialect if self._key else None,
            expires_at=self._expires_at(),
            policies=said["policies"],
        )

    @property
    def said(self) -> Terms | None:
        """The terms to be told in words, which need no name yet; None while something else is wrong."""
        return None if self.errors.keys() - {"name"} else self.terms

    def refuse(self, error: IssuingError) -> None:
        """Say at the field what could not be."""
        places = {"expires_at": "expiry"}
        place = places.get(error.field, error.field)
        self.add_error(place if place in self.fields else None, error.message)

    def _expires_at(self) -> datetime | None:
        expiry = self.cleaned_data["expiry"]
        if expiry == "never":
            return None
        if expiry == "date":
            return self._end_of(self.cleaned_data["last_day"])
        if expiry == "keep" and self._key:
            return self._key.expires_at
        return timezone.now() + timedelta(days=int(expiry))

    def _end_of(self, day: date) -> datetime:
        return datetime.combine(day, time.max, ZoneInfo(self._tenant.time_zone))

    def _choices(self, name: str, choices: list[tuple[str, str]]) -> None:
        self.fields[name].choices = choices  # type: ignore[attr-defined] # called for fields of choices alone


class RotateForm(forms.Form):
    """overlap: how many hours the old key stays."""

    overlap = forms.TypedChoiceField(
        label=gettext_lazy("The old key"),
        coerce=int,
        initial=24,
        choices=[
            (0, gettext_lazy("is refused at once")),
            (1, gettext_lazy("works for 1 more hour")),
            (24, gettext_lazy("works for 24 more hours")),
            (168, gettext_lazy("works for 7 more days")),
        ],
        widget=forms.RadioSelect,
    )


class RevokeForm(forms.Form):
    """The name, typed: what is revoked does not come back."""

    name = forms.CharField(
        label=gettext_lazy("Name of the key"), max_length=64, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )

    def __init__(self, *args: Any, key: ApiKey, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._key = key

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if name != self._key.name.strip():
            raise ValidationError(_("This is not its name. Type: %(name)s") % {"name": self._key.name})
        return name


def _initial(key: ApiKey | None) -> dict[str, Any]:
    if key is None:
        return {"scopes": SCOPES_DEFAULT, "reach": "all", "expiry": EXPIRY_DEFAULT}
    return {
        "name": key.name,
        "scopes": key.scopes,
        "reach": "all" if key.aliases is None else "some",
        "aliases": key.aliases or (),
        "policies": key.policies,
        "networks": "\n".join(key.networks),
        "expiry": "never" if key.expires_at is None else "keep",
    }


def _plain(names: Iterable[str]) -> list[tuple[str, str]]:
    return [(name, name) for name in sorted(names)]


def _policies(tenant: Tenant, key: ApiKey | None) -> list[tuple[str, str]]:
    labels = {name: name for name in key.policies} if key else {}
    # The platform's first: one of the tenant's own of that name is meant before it.
    for policy in sorted(ContentPolicy.objects.nameable_by(tenant), key=lambda policy: policy.tenant_id is not None):
        told = _("%(name)s (applies to every call anyway)") % {"name": policy.name} if policy.is_everywhere else policy.name
        labels[policy.name] = told
    return sorted(labels.items())


def _expiries(tenant: Tenant, key: ApiKey | None) -> list[tuple[str, str]]:
    choices = [(str(days), _("for %(days)d days from now") % {"days": days}) for days in (30, 90, 365)]
    choices += [("date", _("until the end of a day")), ("never", _("without an end"))]
    if key is None or key.expires_at is None:
        return choices
    end = date_format(key.expires_at.astimezone(ZoneInfo(tenant.time_zone)), "DATETIME_FORMAT")
    return [("keep", _("until %(end)s, as it is") % {"end": end}), *choices]
