"""Aliases as operators keep them: of which tenant, which are listed, and all that is configured of one but its limits."""

from typing import Any, ClassVar, Final

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import Tenant
from gateway.api.fields import GRANTS
from gateway.models import TEXT_MAX_LENGTH, ContentPolicy, Deployment, ModelAlias
from portal.forms.search import Row, Search, order_field, search_field

LANGUAGES: Final = ("ja", "en")
_PLAIN: Final = {"autocomplete": "off", "spellcheck": "false"}


class AliasFilter(Search):
    """q: part of a tenant's slug or name, of an alias or a display name. deployment: a name, "" for any."""

    paths = ("tenant__slug", "tenant__name", "name", "display_name__en", "display_name__ja")
    q = search_field(gettext_lazy("Tenant or alias"))
    deployment = forms.ChoiceField(label=gettext_lazy("Deployment"), required=False)
    sort = order_field(
        ("tenant", gettext_lazy("By tenant")),
        ("-tenant", gettext_lazy("By tenant, from the end")),
        ("name", gettext_lazy("By name")),
        ("-name", gettext_lazy("By name, from the end")),
        ("deployment", gettext_lazy("By deployment")),
        ("-deployment", gettext_lazy("By deployment, from the end")),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = Deployment.objects.order_by("name").values_list("name", flat=True)
        self.fields["deployment"].choices = [("", _("Any")), *((name, name) for name in names)]  # type: ignore[attr-defined]

    def narrowed(self, rows: QuerySet[Row]) -> QuerySet[Row]:
        name = self.cleaned_data.get("deployment")
        found = super().narrowed(rows)
        return found.filter(Q(deployment__name=name) | Q(canary__name=name)) if name else found


class OwnAliases(Search):
    """Of one tenant."""

    paths = ("name", "display_name__en", "display_name__ja")
    q = search_field(gettext_lazy("Alias"))


class TenantForm(forms.Form):
    """Whose alias it shall be: a slug, typed or chosen from those that are offered."""

    tenant = forms.CharField(
        label=gettext_lazy("Tenant"),
        max_length=64,
        widget=forms.TextInput(attrs={**_PLAIN, "list": "tenants"}),
        help_text=gettext_lazy("Its short name, as in the addresses of its pages."),
    )

    def clean_tenant(self) -> Tenant:
        slug = self.cleaned_data["tenant"]
        found = Tenant.objects.filter(slug=slug).first()
        if found is None:
            raise ValidationError(_("There is no tenant “%(slug)s”. Type the short name of one.") % {"slug": slug})
        return found


class _Defaults(forms.JSONField):
    def prepare_value(self, value: Any) -> Any:
        """Nothing for nothing, where `null` or `{}` would stand."""
        return "" if value in (None, {}) else super().prepare_value(value)


class AliasForm(forms.ModelForm):  # type: ignore[type-arg] # Django's class takes no argument at run time
    """`values` says what is wanted once it is valid: fields of ModelAlias, all but its name."""

    grants = forms.MultipleChoiceField(
        label=gettext_lazy("Privileged parameters it allows"),
        required=False,
        widget=forms.CheckboxSelectMultiple,
        choices=[(name, name) for name in sorted(GRANTS)],
    )
    policies = forms.MultipleChoiceField(
        label=gettext_lazy("Content policies its calls must pass"), required=False, widget=forms.CheckboxSelectMultiple
    )
    defaults = _Defaults(
        label=gettext_lazy("Set where a client says nothing"),
        required=False,
        widget=forms.Textarea(attrs={**_PLAIN, "rows": 4, "class": "code"}),
        help_text=gettext_lazy('Request fields as JSON, such as {"temperature": 0.2}. Empty: none.'),
    )
    display_name_ja = forms.CharField(label=gettext_lazy("Display name, Japanese"), required=False, max_length=TEXT_MAX_LENGTH)
    display_name_en = forms.CharField(label=gettext_lazy("Display name, English"), required=False, max_length=TEXT_MAX_LENGTH)
    description_ja = forms.CharField(
        label=gettext_lazy("Description, Japanese"),
        required=False,
        max_length=TEXT_MAX_LENGTH,
        widget=forms.Textarea(attrs={"rows": 3}),
    )
    description_en = forms.CharField(
        label=gettext_lazy("Description, English"),
        required=False,
        max_length=TEXT_MAX_LENGTH,
        widget=forms.Textarea(attrs={"rows": 3}),
    )

    class Meta:
        model = ModelAlias
        fields = (
            "name",
            "deployment",
            "canary",
            "canary_percent",
            "max_output_tokens",
            "max_choices",
            "max_stops",
            "price_prompt",
            "price_cached",
            "price_completion",
        )
        labels: ClassVar = {
            "name": gettext_lazy("Name"),
            "deployment": gettext_lazy("Deployment"),
            "canary": gettext_lazy("Canary"),
            "canary_percent": gettext_lazy("Share of the canary, in percent"),
            "max_output_tokens": gettext_lazy("Output at most, in tokens"),
            "max_choices": gettext_lazy("n at most"),
            "max_stops": gettext_lazy("stop at most"),
            "price_prompt": gettext_lazy("Prompt"),
            "price_cached": gettext_lazy("Cached prompt"),
            "price_completion": gettext_lazy("Answer"),
        }
        help_texts: ClassVar = {
            "name": gettext_lazy("The model name that clients send. It stays: clients, keys and usage name it so."),
            "canary": gettext_lazy("A deployment that gets a share of the calls, to try it."),
            "max_output_tokens": gettext_lazy("Empty: as the model allows."),
            "price_cached": gettext_lazy("Empty: as other tokens of the prompt."),
        }

    def __init__(self, *args: Any, tenant: Tenant, **kwargs: Any) -> None:
        alias: ModelAlias = kwargs["instance"]
        kwargs["initial"] = {
            "grants": alias.grants,
            "policies": alias.policies,
            "defaults": alias.defaults or None,
            **{f"display_name_{code}": alias.display_name.get(code, "") for code in LANGUAGES},
            **{f"description_{code}": alias.description.get(code, "") for code in LANGUAGES},
            **kwargs.get("initial", {}),
        }
        super().__init__(*args, **kwargs)
        self.instance.tenant = tenant
        if alias._state.adding:  # noqa: SLF001 - documented API
            self.fields["name"].widget.attrs |= _PLAIN
        else:
            del self.fields["name"]
        canary: Any = self.fields["canary"]
        canary.empty_label = _("None")
        for code in LANGUAGES:
            for name in ("display_name", "description"):
                self.fields[f"{name}_{code}"].widget.attrs["lang"] = code
        self.fields["policies"].choices = _policies(tenant, alias)  # type: ignore[attr-defined] # it is a field of choices

    def clean_defaults(self) -> dict[str, Any]:
        return self.cleaned_data["defaults"] or {}

    def clean(self) -> dict[str, Any]:
        said = super().clean() or self.cleaned_data
        if "canary_percent" in said and "canary" in said and said["canary_percent"] and said["canary"] is None:
            self.add_error("canary", _("Choose the deployment that gets this share, or give it 0 percent."))
        prices = [said.get(f"price_{name}") for name in ("prompt", "completion")]
        if any(value is not None for value in (*prices, said.get("price_cached"))) and None in prices:
            missing = "price_prompt" if prices[0] is None else "price_completion"
            if missing not in self.errors:
                self.add_error(missing, _("A price needs both, that of the prompt and that of the answer; or leave all empty."))
        return said

    def _get_validation_exclusions(self) -> set[str]:
        """What spans fields was looked at above, in words that say what to do; the verb looks at all of it again."""
        return {field.name for field in ModelAlias._meta.fields if field.name not in self.fields} | set(self.errors)  # noqa: SLF001

    def validate_constraints(self) -> None:
        """Left to the verb, which does it under the lock."""

    @property
    def values(self) -> dict[str, Any]:
        said = self.cleaned_data
        names = [name for name in self.Meta.fields if name != "name"]
        return {
            **{name: said[name] for name in (*names, "grants", "policies", "defaults")},
            **{name: self._texts(name) for name in ("display_name", "description")},
        }

    def _texts(self, name: str) -> dict[str, str]:
        """Languages this form does not ask for keep their texts."""
        held = {code: text for code, text in getattr(self.instance, name).items() if code not in LANGUAGES}
        return held | {code: text for code in LANGUAGES if (text := self.cleaned_data[f"{name}_{code}"])}

    def refuse(self, error: ValidationError) -> None:
        """Say at the fields what could not be."""
        places = {"display_name": "display_name_ja", "description": "description_ja"}
        for name, texts in (error.message_dict if hasattr(error, "error_dict") else {"": error.messages}).items():
            place = places.get(name, name)
            self.add_error(place if place in self.fields else None, texts)


class DeleteForm(forms.Form):
    """The name, typed: clients that send it are refused at once."""

    name = forms.CharField(
        label=gettext_lazy("Name of the alias"), max_length=128, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )

    def __init__(self, *args: Any, alias: ModelAlias, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._alias = alias

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if name != self._alias.name:
            raise ValidationError(_("This is not its name. Type: %(name)s") % {"name": self._alias.name})
        return name


def _policies(tenant: Tenant, alias: ModelAlias) -> list[tuple[str, str]]:
    """What it may name; and what it names already, for no form drops a policy unasked."""
    labels = {name: name for name in alias.policies}
    for policy in sorted(ContentPolicy.objects.nameable_by(tenant), key=lambda policy: policy.tenant_id is not None):
        told = _("%(name)s (applies to every call anyway)") % {"name": policy.name} if policy.is_everywhere else policy.name
        labels[policy.name] = told
    return sorted(labels.items())
