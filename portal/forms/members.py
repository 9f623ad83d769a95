"""Members: which are listed, who is invited and as what, a role, and how a new person begins."""

from collections.abc import Collection
from typing import Any, Final

from django import forms
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.inviting import EMAIL_MAX_CHARACTERS
from accounts.members import MemberError
from accounts.models import User
from accounts.roles import Role
from portal.forms.search import order_field, search_field

NO_CONTROLS: Final = RegexValidator(r"^[^\x00-\x1f\x7f]*\Z", gettext_lazy("Use no control characters."))
PASSWORD_MAX_CHARACTERS: Final = 1024  # the hash takes its time over each


class MemberFilter(forms.Form):
    """q: part of a name or an address; role: "" for any."""

    q = search_field(gettext_lazy("Name or e-mail address"), most=EMAIL_MAX_CHARACTERS)
    role = forms.ChoiceField(
        label=gettext_lazy("Role"), required=False, choices=[("", gettext_lazy("Any")), *reversed(Role.choices)]
    )
    sort = order_field(
        ("-role", gettext_lazy("Owners first")),
        ("role", gettext_lazy("Viewers first")),
        ("person", gettext_lazy("By e-mail address")),
        ("-person", gettext_lazy("By e-mail address, from the end")),
        ("-since", gettext_lazy("Newest first")),
        ("since", gettext_lazy("Oldest first")),
    )


class RoleForm(forms.Form):
    """role: one of those that may be given."""

    role = forms.ChoiceField(
        label=gettext_lazy("Role"),
        widget=forms.RadioSelect,
        error_messages={
            "required": gettext_lazy("Choose a role."),
            "invalid_choice": gettext_lazy("Choose one of these roles."),
        },
    )

    def __init__(self, *args: Any, roles: Collection[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(value, label) for value, label in Role.choices if value in roles]
        self.fields["role"].choices = choices  # type: ignore[attr-defined] # it is a field of choices

    def refuse(self, error: MemberError) -> None:
        """Say at the field what could not be."""
        self.add_error(error.field if error.field in self.fields else None, error.message)


class InviteForm(RoleForm):
    email = forms.EmailField(
        label=gettext_lazy("E-mail address"),
        max_length=EMAIL_MAX_CHARACTERS,
        widget=forms.EmailInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text=gettext_lazy("The link works for this address alone."),
    )
    field_order = ("email", "role")


class JoinForm(forms.Form):
    """A new person's name and password. email: of the account that is to be, which the password must not resemble."""

    name = forms.CharField(
        label=gettext_lazy("Your name"),
        max_length=100,
        validators=[NO_CONTROLS],
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
        help_text=gettext_lazy("As the others in this tenant shall see it."),
    )
    password = forms.CharField(
        label=gettext_lazy("Password"),
        max_length=PASSWORD_MAX_CHARACTERS,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text=gettext_lazy("At least 12 characters. A few words in a row are good."),
    )
    again = forms.CharField(
        label=gettext_lazy("The password once more"),
        max_length=PASSWORD_MAX_CHARACTERS,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    def __init__(self, *args: Any, email: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._email = email

    def clean(self) -> None:
        said = self.cleaned_data
        if "password" not in said:
            return
        try:
            validate_password(said["password"], User(email=self._email, name=said.get("name", "")))
        except ValidationError as error:
            self.add_error("password", error)
        else:
            if "again" in said and said["again"] != said["password"]:
                self.add_error("again", _("This differs from the password above: type the same one twice."))
