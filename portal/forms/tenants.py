"""Tenants, as operators find, rank, suspend and put them on plans."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import Tenant
from accounts.tenants import REASON_LENGTH
from gateway.models import NAME, QuotaPlan
from portal.forms.search import order_field, search_field

NO_PLAN = "-"  # no name of a plan: those begin with a letter or digit


def priority_field() -> forms.IntegerField:
    return forms.IntegerField(
        label=gettext_lazy("Priority"),
        min_value=-1000,
        max_value=1000,
        initial=0,
        widget=forms.NumberInput(attrs={"autocomplete": "off"}),
        help_text=gettext_lazy("Lower is served earlier, where a deployment schedules by priority. 0 is usual."),
    )


def plan_field() -> "forms.ModelChoiceField[QuotaPlan]":
    return forms.ModelChoiceField(
        QuotaPlan.objects.all(),
        label=gettext_lazy("Plan"),
        required=False,
        to_field_name="name",
        empty_label=gettext_lazy("None: limits of its own"),
    )


class TenantFilter(forms.Form):
    """q: part of a name or short name. What is empty leaves all."""

    q = search_field(gettext_lazy("Name or short name"), most=100)
    state = forms.ChoiceField(
        label=gettext_lazy("State"),
        required=False,
        choices=[("", gettext_lazy("Any")), ("active", gettext_lazy("Active")), ("suspended", gettext_lazy("Suspended"))],
    )
    plan = forms.ChoiceField(label=gettext_lazy("Plan"), required=False)
    sort = order_field(
        ("name", gettext_lazy("By name")),
        ("-name", gettext_lazy("By name, from the end")),
        ("-used", gettext_lazy("Last used first")),
        ("used", gettext_lazy("Longest unused first")),
        ("-made", gettext_lazy("Newest first")),
        ("made", gettext_lazy("Oldest first")),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = QuotaPlan.objects.values_list("name", flat=True)
        field = self.fields["plan"]
        field.choices = [  # type: ignore[attr-defined] # a field of choices
            ("", gettext_lazy("Any")),
            (NO_PLAN, gettext_lazy("Without one")),
            *((name, name) for name in names),
        ]


class PriorityForm(forms.Form):
    priority = priority_field()


class SuspendForm(forms.Form):
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=REASON_LENGTH,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=gettext_lazy("Its members read it on their pages: say what happened and whom to ask."),
    )


class DeleteForm(forms.Form):
    """The short name, typed: what is deleted does not come back."""

    slug = forms.CharField(
        label=gettext_lazy("Short name of the tenant"),
        max_length=63,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(self, *args: Any, tenant: Tenant, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tenant = tenant

    def clean_slug(self) -> str:
        slug: str = self.cleaned_data["slug"]
        if slug != self._tenant.slug:
            raise ValidationError(_("This is not its short name. Type: %(slug)s") % {"slug": self._tenant.slug})
        return slug


class PlanChoiceForm(forms.Form):
    plan = plan_field()


class PlanNameForm(forms.Form):
    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=64,
        validators=[NAME],
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text=gettext_lazy("Such as standard or trial. Operators alone see it."),
    )
