"""A call of the playground: which alias is asked, what, and how. What it means is for the gateway to judge, as of any call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from django import forms
from django.core.exceptions import ValidationError
from django.http import QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import Tenant
from gateway.models import ModelAlias

TURNS_MAX: Final = 100
CHARACTERS_MAX: Final = 500_000  # of one message
PANES: Final = ("a", "b")
ROLES: Final = {"user": gettext_lazy("User"), "assistant": gettext_lazy("Assistant")}
_NUMBER: Final = {"autocomplete": "off", "inputmode": "decimal"}
_WHOLE: Final = {"autocomplete": "off", "inputmode": "numeric"}


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. role: of ROLES."""

    role: str
    text: str


class PlaygroundForm(forms.Form):
    """`body` is the call, once the form is valid. Its messages come as `role` and `text`, as often as there are messages."""

    alias = forms.ChoiceField(label=gettext_lazy("Alias"))
    compare = forms.ChoiceField(label=gettext_lazy("Side by side with"), required=False)
    stream = forms.BooleanField(label=gettext_lazy("Stream the answer"), required=False, initial=True)
    system = forms.CharField(
        label=gettext_lazy("System message"),
        required=False,
        strip=False,
        max_length=CHARACTERS_MAX,
        widget=forms.Textarea(attrs={"rows": 2, "autocomplete": "off"}),
    )
    temperature = forms.FloatField(
        label=gettext_lazy("Temperature"), required=False, widget=forms.TextInput(attrs={**_NUMBER, "placeholder": "0–2"})
    )
    top_p = forms.FloatField(
        label=gettext_lazy("Top p"), required=False, widget=forms.TextInput(attrs={**_NUMBER, "placeholder": "0–1"})
    )
    max_tokens = forms.IntegerField(
        label=gettext_lazy("Longest answer, in tokens"), required=False, widget=forms.TextInput(attrs=_WHOLE)
    )
    seed = forms.IntegerField(label=gettext_lazy("Seed"), required=False, widget=forms.TextInput(attrs=_WHOLE))
    stop = forms.CharField(
        label=gettext_lazy("Texts that end the answer"),
        required=False,
        strip=False,
        max_length=5000,
        widget=forms.Textarea(attrs={"rows": 2, "class": "code", "spellcheck": "false", "autocomplete": "off"}),
        help_text=gettext_lazy("One a line."),
    )
    shape = forms.ChoiceField(
        label=gettext_lazy("Shape of the answer"),
        required=False,
        choices=[
            ("", gettext_lazy("As the model likes")),
            ("json_object", gettext_lazy("JSON")),
            ("json_schema", gettext_lazy("JSON of a schema")),
        ],
    )
    schema = forms.CharField(
        label=gettext_lazy("JSON schema"),
        required=False,
        max_length=CHARACTERS_MAX,
        widget=forms.Textarea(attrs={"rows": 4, "class": "code", "spellcheck": "false", "autocomplete": "off"}),
    )
    more = forms.CharField(
        label=gettext_lazy("More fields of the request"),
        required=False,
        max_length=CHARACTERS_MAX,
        widget=forms.Textarea(attrs={"rows": 3, "class": "code", "spellcheck": "false", "autocomplete": "off"}),
        help_text=gettext_lazy('A JSON object, such as {"top_k": 20}.'),
    )

    def __init__(self, data: QueryDict | None = None, *, tenant: Tenant, initial: Mapping[str, Any] | None = None) -> None:
        super().__init__(data, initial=dict(initial or {}), auto_id="call-%s")
        names = list(ModelAlias.objects.filter(tenant=tenant).order_by("name").values_list("name", flat=True))
        self.has_aliases = bool(names)
        choices = [(name, name) for name in names]
        self.fields["alias"].choices = choices  # type: ignore[attr-defined] # a field of choices
        self.fields["compare"].choices = [("", _("No other")), *choices]  # type: ignore[attr-defined] # likewise
        self.turns = turns_of(data) if data is not None else [Turn("user", "")]

    def clean_stop(self) -> list[str]:
        return [line for line in self.cleaned_data["stop"].splitlines() if line]

    def clean_schema(self) -> Any:
        return _json(self.cleaned_data["schema"])

    def clean_more(self) -> Any:
        more = _json(self.cleaned_data["more"])
        if more is not None and not isinstance(more, dict):
            raise ValidationError(_("Write a JSON object: names and values in braces."))
        return more or {}

    def clean(self) -> None:
        said = self.cleaned_data
        if said.get("shape") == "json_schema" and said.get("schema") is None and "schema" not in self.errors:
            self.add_error("schema", _("Write the schema, or choose another shape."))
        if not any(turn.text for turn in self.turns):
            self.add_error(None, _("Write a message to send."))
        if any(turn.role not in ROLES for turn in self.turns) or len(self.turns) > TURNS_MAX:
            self.add_error(
                None, _("Send %(number)d messages at most, each of the user or the assistant.") % {"number": TURNS_MAX}
            )
        if any(len(turn.text) > CHARACTERS_MAX for turn in self.turns):
            self.add_error(None, _("A message has %(number)d characters at most.") % {"number": CHARACTERS_MAX})

    @property
    def panes(self) -> Sequence[str]:
        """Which answers are asked for."""
        return PANES if self.cleaned_data["compare"] else PANES[:1]

    def body(self, pane: str) -> dict[str, Any]:
        """The body of the call for this pane: one of `panes`."""
        said = self.cleaned_data
        messages = [{"role": "system", "content": said["system"]}] if said["system"] else []
        messages += [{"role": turn.role, "content": turn.text} for turn in self.turns if turn.text]
        body: dict[str, Any] = {"model": said["compare"] if pane == "b" else said["alias"], "messages": messages}
        for name in ("temperature", "top_p", "max_tokens", "seed"):
            if said[name] is not None:
                body[name] = said[name]
        if said["stop"]:
            body["stop"] = said["stop"]
        if said["shape"] == "json_object":
            body["response_format"] = {"type": "json_object"}
        elif said["shape"] == "json_schema":
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": said["schema"]}}
        if said["stream"]:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return {**body, **said["more"]}


def turns_of(data: QueryDict) -> list[Turn]:
    """As they were sent, whether they will do or not."""
    pairs = zip(data.getlist("role"), data.getlist("text"), strict=False)
    return [Turn(role, text) for role, text in pairs]


def as_typed(data: QueryDict) -> dict[str, Any]:
    """What the fields hold, for a form that begins with it: nothing is judged."""
    typed: dict[str, Any] = {name: data.get(name, "") for name in PlaygroundForm.base_fields}
    return typed | {"stream": "stream" in data}


def _json(text: str) -> Any:
    """None where nothing is written."""
    if not text.strip():
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValidationError(_("This is no JSON: %(reason)s") % {"reason": str(error)}) from None
