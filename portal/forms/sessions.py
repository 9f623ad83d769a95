"""Signing in."""

from typing import Any, Final

from django import forms
from django.contrib.auth.forms import AuthenticationForm
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

REFUSED: Final = _(
    "This e-mail address and password do not open an account. Check both and try again; "
    "if you forgot the password, ask an admin of your tenant for a new one."
)


class SignInForm(AuthenticationForm):
    """One answer for a wrong password, an unknown address and a closed account: nobody learns which addresses exist."""

    error_messages = {"invalid_login": REFUSED, "inactive": REFUSED}  # noqa: RUF012 - declared so by Django's form

    def __init__(self, request: HttpRequest | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)
        self.fields["username"].widget = forms.EmailInput(
            attrs={"autocomplete": "username", "autofocus": True, "maxlength": 254, "spellcheck": "false"}
        )
