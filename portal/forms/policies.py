"""Content policies: a new one, its rules as people write them, and a text to try them on."""

from collections.abc import Sequence
from typing import Any, Final

import yaml
from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import Tenant
from gateway.models import ContentPolicy, ContentPolicyVersion
from gateway.policy.rules import SURFACES, RulesRefused, parse_rules

RULES_MAX_CHARACTERS: Final = 500_000
TEXT_MAX_CHARACTERS: Final = 20_000
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
        label=gettext_lazy("Applies to every call of this tenant"),
        required=False,
        help_text=gettext_lazy("Otherwise it applies where an alias or a key names it."),
    )

    def __init__(self, *args: Any, tenant: Tenant, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tenant = tenant

    def clean_name(self) -> str:
        """What the table takes, and this tenant has not yet."""
        name: str = self.cleaned_data["name"]
        try:
            ContentPolicy(tenant=self._tenant, name=name).full_clean()
        except ValidationError as error:
            raise ValidationError(error.messages) from None
        return name


class RulesForm(forms.Form):
    """rules: YAML or JSON; `parsed` is what it says, once it is valid."""

    rules = forms.CharField(
        label=gettext_lazy("Rules"),
        max_length=RULES_MAX_CHARACTERS,
        widget=forms.Textarea(attrs={"rows": 16, "class": "code", "spellcheck": "false", "autocomplete": "off"}),
        strip=False,
    )

    def clean_rules(self) -> str:
        written: str = self.cleaned_data["rules"]
        try:
            self.parsed: Any = yaml.safe_load(written)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            raise ValidationError(_("Line %(line)d is not YAML. Compare it with the example.") % {"line": line}) from None
        except (RecursionError, ValueError):
            raise ValidationError(_("This is not YAML. Compare it with the example.")) from None
        try:
            parse_rules(self.parsed)
        except RulesRefused as refused:
            raise ValidationError([f"rules{problem.path}: {problem.text}" for problem in refused.problems[:10]]) from None
        return written


class TrialForm(forms.Form):
    """A text that is tried on the rules; it is kept nowhere."""

    text = forms.CharField(
        label=gettext_lazy("Text"),
        max_length=TEXT_MAX_CHARACTERS,
        widget=forms.Textarea(attrs={"rows": 5}),
        strip=False,
    )
    surface = forms.ChoiceField(label=gettext_lazy("Where it stands"), choices=[(name, name) for name in SURFACES])

    def __init__(self, *args: Any, versions: Sequence[ContentPolicyVersion], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        labels = [(version.number, _("the draft") if version.is_draft else _("the version in force")) for version in versions]
        self.fields["version"] = forms.TypedChoiceField(label=_("Rules of"), coerce=int, choices=labels)


def as_written(rules: Any) -> str:
    """Rules as a person would write them."""
    return yaml.safe_dump(rules, allow_unicode=True, sort_keys=False, width=120) if rules else EXAMPLE
