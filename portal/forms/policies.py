"""Content policies: a new one, its rules as people write them, and a text to try them on."""

from collections.abc import Sequence
from typing import Any, Final

import yaml
from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import Tenant
from gateway.config.policy_rules import checked
from gateway.models import ContentPolicy, ContentPolicyVersion
from gateway.policy.rules import SURFACES, RulesRefused
from portal import wording
from portal.forms.blocks import written

RULES_MAX_CHARACTERS: Final = 500_000
TEXT_MAX_CHARACTERS: Final = 20_000
PROBLEMS_SHOWN: Final = 10
DAYS_DEFAULT: Final = 7
EXAMPLE: Final = """\
- kind: keywords
  words: [ALPHA-77]
  where: [input, output]
  action: block
- kind: detector
  detector: email
  where: [output]
  action: redact
"""


class PolicyForm(forms.Form):
    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=64,
        widget=forms.TextInput(attrs={"spellcheck": "false", "autocomplete": "off"}),
        help_text=gettext_lazy("Letters, digits, dots, dashes and underscores. Aliases and keys name it so."),
    )
    is_everywhere = forms.BooleanField(
        label=gettext_lazy("Applies to every call"),
        required=False,
        help_text=gettext_lazy("Otherwise it applies where an alias or a key names it."),
    )

    def __init__(self, *args: Any, tenant: Tenant | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tenant = tenant
        if tenant is None:
            self.fields["is_everywhere"].label = _("Applies to every call of every tenant")

    def clean_name(self) -> str:
        """What the table takes, and this tenant, or the platform, has not yet."""
        name: str = self.cleaned_data["name"]
        try:
            ContentPolicy(tenant=self._tenant, name=name).full_clean()
        except ValidationError as error:
            raise ValidationError(error.messages) from None
        return name


class RulesForm(forms.Form):
    """rules: YAML or JSON; `parsed` is what it says, None until it could be read. It is right once the form is valid."""

    parsed: Any = None

    rules = forms.CharField(
        label=gettext_lazy("Rules as text"),
        max_length=RULES_MAX_CHARACTERS,
        widget=forms.Textarea(attrs={"rows": 16, "class": "code", "spellcheck": "false", "autocomplete": "off"}),
        strip=False,
    )

    def clean_rules(self) -> str:
        written: str = self.cleaned_data["rules"]
        try:
            self.parsed = yaml.safe_load(written)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            raise ValidationError(_("Line %(line)d is not YAML. Compare it with the example.") % {"line": line}) from None
        except (RecursionError, ValueError):
            raise ValidationError(_("This is not YAML. Compare it with the example.")) from None
        try:
            checked(self.parsed)
        except RulesRefused as refused:
            told = [f"rules{problem.path}: {wording.problem(problem)}" for problem in refused.problems[:PROBLEMS_SHOWN]]
            raise ValidationError(told) from None
        return written


class TrialForm(forms.Form):
    """A text that is tried on the rules; it is kept nowhere."""

    text = forms.CharField(
        label=gettext_lazy("Text"),
        max_length=TEXT_MAX_CHARACTERS,
        widget=forms.Textarea(attrs={"rows": 5}),
        strip=False,
    )
    surface = forms.ChoiceField(
        label=gettext_lazy("Where it stands"),
        choices=[(name, wording.SURFACES[name]) for name in SURFACES],
        initial="input.user",
    )

    def __init__(self, *args: Any, versions: Sequence[ContentPolicyVersion] = (), **kwargs: Any) -> None:
        """versions: those to choose from; none where the rules are being written."""
        super().__init__(*args, **kwargs)
        if not versions:
            return
        labels = [(version.number, _("the draft") if version.is_draft else _("the version in force")) for version in versions]
        self.fields["version"] = forms.TypedChoiceField(label=_("Rules of"), coerce=int, choices=labels)


class CompareForm(forms.Form):
    """Two versions of a policy, by their numbers."""

    def __init__(self, *args: Any, versions: Sequence[ContentPolicyVersion], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [
            (version.number, _("Draft") if version.is_draft else _("Version %(number)s") % {"number": version.number})
            for version in versions
        ]
        for name, label in (("before", _("Before")), ("after", _("After"))):
            self.fields[name] = forms.TypedChoiceField(label=label, coerce=int, choices=choices)


class DaysForm(forms.Form):
    days = forms.TypedChoiceField(
        label=gettext_lazy("Time"),
        coerce=int,
        empty_value=str(DAYS_DEFAULT),
        required=False,
        choices=[(7, gettext_lazy("The last 7 days")), (30, gettext_lazy("The last 30 days"))],
    )


class DeleteForm(forms.Form):
    """The name, typed: its versions go with it."""

    name = forms.CharField(
        label=gettext_lazy("Name of the policy"), max_length=64, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )

    def __init__(self, *args: Any, policy: ContentPolicy, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._policy = policy

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if name != self._policy.name:
            raise ValidationError(_("This is not its name. Type: %(name)s") % {"name": self._policy.name})
        return name


def as_written(rules: Any) -> str:
    """Rules as a person would write them; an example where there are none."""
    return written(rules) if rules else EXAMPLE
