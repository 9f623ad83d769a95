"""The steps by which a tenant is made: who it is, what it may call, how much, and who owns it."""

from collections.abc import Sequence
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import Tenant
from accounts.models.tenants import SLUG, validate_time_zone
from gateway.models import ALIAS_NAME, Deployment, QuotaPlan
from portal.forms.limits import LimitsForm
from portal.forms.tenants import plan_field, priority_field

ALIASES_AT_ONCE: Final = 5


class DetailsForm(forms.Form):
    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=100,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        help_text=gettext_lazy("As people read it, such as “Search team”."),
    )
    slug = forms.CharField(
        label=gettext_lazy("Short name"),
        max_length=63,
        validators=[SLUG],
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "class": "code"}),
        help_text=gettext_lazy("It stands in addresses and reports, and stays: a-z, 0-9 and hyphens, such as search-team."),
    )
    time_zone = forms.CharField(
        label=gettext_lazy("Time zone"),
        max_length=64,
        initial="Asia/Tokyo",
        validators=[validate_time_zone],
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text=gettext_lazy("Its days and months begin by these clocks, such as Asia/Tokyo."),
    )
    priority = priority_field()

    def clean_slug(self) -> str:
        slug: str = self.cleaned_data["slug"]
        if Tenant.objects.filter(slug=slug).exists():
            raise ValidationError(_("There is a tenant of this short name already: choose another."))
        return slug


class AliasForm(forms.Form):
    """A row: both fields, or none."""

    name = forms.CharField(
        label=gettext_lazy("Alias"),
        required=False,
        max_length=128,
        validators=[ALIAS_NAME],
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "class": "code"}),
    )
    deployment = forms.ModelChoiceField(
        Deployment.objects.none(), label=gettext_lazy("Deployment"), required=False, to_field_name="name", empty_label="–"
    )

    def __init__(self, *args: Any, names: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["deployment"]
        field.queryset = Deployment.objects.all()  # type: ignore[attr-defined] # a field of a queryset
        field.choices = [("", "–"), *((name, name) for name in names)]  # type: ignore[attr-defined] # asked once for all rows

    def clean(self) -> None:
        said = self.cleaned_data
        if said.get("deployment") and not said.get("name") and "name" not in self.errors:
            self.add_error("name", _("Give the name that clients send."))
        if said.get("name") and not said.get("deployment") and "deployment" not in self.errors:
            self.add_error("deployment", _("Choose what serves it."))


class _Aliases(forms.BaseFormSet):  # type: ignore[type-arg] # generic for type checkers alone
    def clean(self) -> None:
        seen: set[str] = set()
        for form in self.forms:
            name = form.cleaned_data.get("name") if form.is_valid() else None
            if name and name in seen:
                form.add_error("name", _("This name stands in an earlier row already."))
            seen.add(name or "")

    @property
    def wanted(self) -> list[tuple[str, Deployment]]:
        rows = [form.cleaned_data for form in self.forms]
        return [(row["name"], row["deployment"]) for row in rows if row.get("name")]


AliasesForm = forms.formset_factory(AliasForm, formset=_Aliases, extra=ALIASES_AT_ONCE, max_num=ALIASES_AT_ONCE)


class StartLimitsForm(LimitsForm):
    """A plan, or limits of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["plan"] = plan_field()

    @property
    def plan(self) -> QuotaPlan | None:
        chosen: QuotaPlan | None = self.cleaned_data.get("plan")
        return chosen


class OwnerForm(forms.Form):
    email = forms.EmailField(
        label=gettext_lazy("E-mail address of the first owner"),
        required=False,
        max_length=254,
        widget=forms.EmailInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text=gettext_lazy("You get a link for this person, shown once. Empty: invite one later on the members' page."),
    )
