"""Who runs the platform, and what people must have to sign in."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from accounts import security
from accounts.models import User
from accounts.models.security import SUBJECTS


class OperatorForm(forms.Form):
    email = forms.EmailField(
        label=_("E-mail address"),
        max_length=254,
        widget=forms.EmailInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text=_("An account that is there already becomes an operator; else one is made."),
    )


class RulesForm(forms.Form):
    subjects = forms.MultipleChoiceField(
        label=_("A second factor is required of"), required=False, choices=SUBJECTS, widget=forms.CheckboxSelectMultiple
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"initial": {"subjects": security.rules()}, **kwargs})
        choices = [(subject, _reach(str(label), security.reached_by(subject))) for subject, label in SUBJECTS]
        self.fields["subjects"].choices = choices  # type: ignore[attr-defined] # a field of choices


def _reach(label: str, people: int) -> str:
    words = ngettext("%(label)s (%(number)s person)", "%(label)s (%(number)s people)", people)
    return words % {"label": label, "number": people}


class RescueForm(forms.Form):
    """user: whose account it is, once the form is valid."""

    who = forms.EmailField(
        label=_("E-mail address of the account"),
        max_length=254,
        widget=forms.EmailInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    what = forms.ChoiceField(
        label=_("What helps"),
        initial="link",
        choices=[
            ("link", _("A link for a new password, shown once, to hand over. The old password works until it is used.")),
            (
                "factor",
                _("Take the second factor off: app, passkeys and recovery codes. The password alone opens the account then."),
            ),
        ],
        widget=forms.RadioSelect,
    )
    user: User

    def clean_who(self) -> str:
        address = str(self.cleaned_data["who"]).lower()
        user = User.objects.filter(email=address, is_active=True).first()
        if user is None:
            raise ValidationError(_("There is no open account of this address."))
        self.user = user
        return address


class UnlockForm(forms.Form):
    email = forms.CharField(max_length=254)
    address = forms.CharField(max_length=45, required=False)
