"""Backends: a new one, a changed one. The credential goes in and never comes out: no page holds it in the clear."""

from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from django import forms
from django.core import signing
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import User
from gateway.config import encryption
from gateway.config.backends import KEEP
from gateway.config.documents import base_url
from gateway.models import Backend
from portal.forms.search import Search, search_field

KEPT_S: Final = 1800  # between a test and saving what was tested


class BackendFilter(Search):
    paths = ("name", "url")
    q = search_field(gettext_lazy("Name or address"))


class BackendForm(forms.ModelForm):  # type: ignore[type-arg] # Django's class takes no argument at run time
    """credential empty: as it is. kept: one that was tested, encrypted and signed for this person alone.

    `wanted` says what becomes of the credential once the form is valid: a text, None for none, or KEEP.
    """

    credential = forms.CharField(
        label=gettext_lazy("Credential"),
        required=False,
        max_length=4096,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password", "spellcheck": "false"}),
    )
    removes_credential = forms.BooleanField(label=gettext_lazy("Remove the credential: send none from now on"), required=False)
    kept = forms.CharField(required=False, widget=forms.HiddenInput)

    class Meta:
        model = Backend
        fields = ("name", "url")
        labels: ClassVar = {"name": gettext_lazy("Name"), "url": "URL"}
        help_texts: ClassVar = {
            "name": gettext_lazy("Letters, digits, dots, dashes and underscores. It stays: usage and metrics name it so."),
            "url": gettext_lazy("The base of a vLLM server, such as http://10.0.0.5:8000. A /v1 at its end is left out."),
        }
        widgets: ClassVar = {
            "name": forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
            "url": forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "inputmode": "url", "class": "code"}),
        }

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._salt = f"backend-credential:{user.pk}"
        self._held_url = self.instance.url
        self.wanted: Any = KEEP
        self.is_new = self.instance._state.adding  # noqa: SLF001 - documented API
        if self.is_new:
            del self.fields["removes_credential"]
            told = _("What is sent to it as Bearer; empty for a backend that asks for none.")
        else:
            del self.fields["name"]
            told = _("Empty: it stays as it is.") if self.has_credential else _("Empty: it is sent none.")
        self.fields["credential"].help_text = told

    @property
    def has_credential(self) -> bool:
        return bool(self.instance.credential_ciphertext)

    def clean_url(self) -> str:
        """Asked here before the model asks the same: its words are English alone."""
        try:
            return base_url(self.cleaned_data["url"])
        except ValueError:
            told = _(
                "Give http:// or https://, a host and a port if any; no user, query or space. Such as http://10.0.0.5:8000."
            )
            raise ValidationError(told) from None

    def clean_credential(self) -> str:
        text: str = self.cleaned_data["credential"]
        if not (text.isascii() and text.isprintable() and " " not in text):
            raise ValidationError(_("A credential has visible ASCII characters alone, and no spaces."))
        return text

    def clean(self) -> dict[str, Any]:
        said = super().clean() or self.cleaned_data
        typed = said.get("credential") or self._opened(said.get("kept", ""))
        if typed and said.get("removes_credential"):
            self.add_error("removes_credential", _("Give a new credential or remove it, not both."))
        elif typed:
            self.wanted = typed
        elif said.get("removes_credential") or not self.has_credential:
            self.wanted = None
        return said

    def _post_clean(self) -> None:
        """Once the URL has its one spelling: a credential is not taken to another place because nobody thought of it."""
        super()._post_clean()  # type: ignore[misc] # Django's own hook, without types
        if self.wanted is KEEP and _origin(self.instance.url) != _origin(self._held_url):
            told = _("The credential is not sent to another address unasked: type it again, or remove it.")
            self.add_error("credential", told)

    @property
    def credential_to_send(self) -> str | None:
        """Raises ValueError for a held one whose field key has left the settings."""
        told: str | None = self.instance.credential if self.wanted is KEEP else self.wanted
        return told

    @property
    def keepsake(self) -> str:
        """What the page gives back in `kept`; "" for nothing to keep."""
        if not isinstance(self.wanted, str):
            return ""
        return signing.dumps(encryption.encrypt(self.wanted), salt=self._salt)

    def _opened(self, keepsake: str) -> str:
        try:
            return encryption.decrypt(signing.loads(keepsake, salt=self._salt, max_age=KEPT_S)) if keepsake else ""
        except (signing.BadSignature, ValueError):
            return ""


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
