"""Deployments: the model, the pool as one row a backend, and what happens when it is busy or out."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from gateway.config.pools import Terms
from gateway.models import CEILING, TIER, TIER_MAX, Backend, Deployment
from portal.forms.search import Search, order_field, search_field

WEIGHT_MAX: Final = 1000
_NONE: Final = gettext_lazy("Nobody: such calls are refused")


class DeploymentFilter(Search):
    paths = ("name", "served_model")
    q = search_field(gettext_lazy("Name or model"))
    sort = order_field(
        ("name", gettext_lazy("By name")),
        ("-name", gettext_lazy("By name, from the end")),
        ("-aliases", gettext_lazy("Most aliases first")),
        ("aliases", gettext_lazy("Fewest aliases first")),
    )


class MemberForm(forms.Form):
    """One backend's place in the pool; what stands in the row of one that is not in it does not count."""

    is_in = forms.BooleanField(required=False)
    weight = forms.IntegerField(label=gettext_lazy("Weight"), min_value=1, max_value=WEIGHT_MAX, initial=1)
    tier = forms.IntegerField(label=gettext_lazy("Tier"), validators=TIER, initial=0)
    max_concurrent_calls = forms.IntegerField(label=gettext_lazy("Calls at once"), required=False, validators=CEILING)

    def __init__(self, data: Any, *, backend: Backend, terms: Terms | None) -> None:
        initial: dict[str, Any] = {"is_in": terms is not None}
        if terms is not None:
            initial |= {"weight": terms.weight, "tier": terms.tier, "max_concurrent_calls": terms.max_concurrent_calls}
        super().__init__(data, prefix=f"pool-{backend.name}", initial=initial)
        self.backend = backend
        self.subject = backend.name
        self.fields["is_in"].label = backend.name
        self.fields["tier"].widget.attrs |= {"min": 0, "max": TIER_MAX}
        for name in ("weight", "tier", "max_concurrent_calls"):
            self.fields[name].widget.attrs["aria-label"] = f"{self.fields[name].label}: {backend.name}"

    @property
    def counts(self) -> bool:
        return self["is_in"].value() not in (None, False, "", "false")

    def is_valid(self) -> bool:
        return super().is_valid() or not self.counts

    @property
    def terms(self) -> Terms:
        said = self.cleaned_data
        return Terms(said["weight"], said["tier"], said["max_concurrent_calls"])


class DeploymentForm(forms.ModelForm):  # type: ignore[type-arg] # Django's class takes no argument at run time
    """`values` and `pool` say what is wanted once all of it is valid."""

    class Meta:
        model = Deployment
        fields = (
            "name",
            "served_model",
            "max_model_len",
            "schedules_by_priority",
            "max_concurrent_calls",
            "queue_max_s",
            "first_token_max_s",
            "stall_max_s",
            "fallback",
            "context_fallback",
        )
        labels: ClassVar = {
            "name": gettext_lazy("Name"),
            "served_model": gettext_lazy("Served model"),
            "max_model_len": gettext_lazy("Context, in tokens"),
            "schedules_by_priority": gettext_lazy("The backends were started with priority scheduling"),
            "max_concurrent_calls": gettext_lazy("Calls at once, over all backends"),
            "queue_max_s": gettext_lazy("Wait for a free place, in seconds"),
            "first_token_max_s": gettext_lazy("Wait for the first token, in seconds"),
            "stall_max_s": gettext_lazy("Silence inside a stream, in seconds"),
            "fallback": gettext_lazy("Who takes calls over when every backend is out"),
            "context_fallback": gettext_lazy("Who takes prompts over that do not fit the context"),
        }
        help_texts: ClassVar = {
            "name": gettext_lazy("Letters, digits, dots, dashes and underscores. It stays: aliases and metrics name it so."),
            "served_model": gettext_lazy("As vLLM names it in /v1/models. Clients never see it."),
            "max_model_len": gettext_lazy("Empty: as the backends say."),
            "schedules_by_priority": gettext_lazy("Then each call carries the priority of its tenant."),
            "max_concurrent_calls": gettext_lazy("Empty: no ceiling. Calls beyond it wait for a place."),
            "queue_max_s": gettext_lazy("0: never wait. Empty: as the installation's setting says."),
            "first_token_max_s": gettext_lazy("Then another backend is tried. Empty: as the installation's setting says."),
            "stall_max_s": gettext_lazy("Then the stream ends with an error. Empty: as the installation's setting says."),
        }

    def __init__(self, *args: Any, backends: Sequence[Backend], pool: Mapping[str, Terms], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        data = self.data if self.is_bound else None
        self.members = [MemberForm(data, backend=backend, terms=pool.get(backend.name)) for backend in backends]
        if not self.instance._state.adding:  # noqa: SLF001 - documented API
            del self.fields["name"]
        for name in ("fallback", "context_fallback"):
            field: Any = self.fields[name]
            field.queryset = Deployment.objects.exclude(pk=self.instance.pk)
            field.empty_label = _NONE
        for name in ("name", "served_model"):
            if name in self.fields:
                self.fields[name].widget.attrs |= {"autocomplete": "off", "spellcheck": "false"}
        self.fields["served_model"].widget.attrs["list"] = "models"

    def is_valid(self) -> bool:
        """Every row is looked at, so that all that is wrong is told at once."""
        sound = [member.is_valid() for member in self.members]
        return super().is_valid() and all(sound)

    @property
    def values(self) -> dict[str, Any]:
        return {name: value for name, value in self.cleaned_data.items() if name != "name"}

    @property
    def pool(self) -> dict[str, Terms]:
        return {member.backend.name: member.terms for member in self.members if member.counts}

    def refuse(self, error: ValidationError) -> None:
        """Say at the fields what could not be."""
        for name, texts in (error.message_dict if hasattr(error, "error_dict") else {"": error.messages}).items():
            self.add_error(name if name in self.fields else None, texts)

    @property
    def pool_errors(self) -> list[str]:
        """What is wrong in the rows, each with its backend's name."""
        found = []
        for member in self.members:
            if self.is_bound and member.counts:
                for name, texts in member.errors.items():
                    facts = {
                        "backend": member.backend.name,
                        "field": member.fields[name].label,
                        "problem": " ".join(map(str, texts)),
                    }
                    found.append(_("%(backend)s, %(field)s: %(problem)s") % facts)
        return found
