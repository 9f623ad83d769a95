"""What a tenant decides about itself. Each choice says what follows from it."""

import re
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo, available_timezones

from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import Tenant
from accounts.models.tenants import ORIGIN, ErrorDialect, Language, StoreOut, UnknownFields, validate_time_zone
from accounts.tenant_settings import TenantSettings

ORIGINS_MAX: Final = 100
ORIGIN_MAX_CHARACTERS: Final = 255  # as the column has it
RETENTION_MAX_DAYS: Final = 3650
# Other names of the same zones, kept in the database for old programs.
_LEGACY: Final = ("Etc/", "SystemV/", "US/", "Canada/", "Brazil/", "Chile/", "Mexico/", "posix", "right", "localtime")

DIALECTS: Final[dict[str, Promise]] = {
    ErrorDialect.OPENAI: gettext_lazy("OpenAI's form, {“error”: {…}}: for the official libraries and most programs."),
    ErrorDialect.DETAIL: gettext_lazy(
        "mdx's form, {“detail”: “…”}: for programs written for it. OpenAI's libraries find no code in it, and an unknown model "
        "is a 400 instead of a 404."
    ),
    ErrorDialect.BOTH: gettext_lazy("Both side by side: for the time in which programs move from one to the other."),
}
UNKNOWN: Final[dict[str, Promise]] = {
    UnknownFields.DROP: gettext_lazy(
        "Leave it out: the call goes on, and the header x-gateway-dropped-params names what was left out."
    ),
    UnknownFields.REJECT: gettext_lazy(
        "Refuse the call with 400: a misspelt field is noticed at once, a newer library may fail."
    ),
    UnknownFields.PASS: gettext_lazy("Pass it on: the model server decides, and may refuse it or act on it unchecked."),
}
STORE_OUT: Final[dict[str, Promise]] = {
    StoreOut.CLOSED: gettext_lazy("Refuse calls with 503 until it is back: no limit is ever exceeded."),
    StoreOut.DEGRADED: gettext_lazy(
        "Serve on for a few minutes: each gateway worker allows its share of every limit, and a key may meet its limit early."
    ),
}


class SettingsForm(forms.Form):
    """`settings` says what is wanted once it is valid. A shorter retention is typed twice: it deletes for good."""

    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=100,
        validators=[RegexValidator(r"^[^\x00-\x1f\x7f]+\Z", gettext_lazy("Use no control characters."))],
        widget=forms.TextInput(attrs={"autocomplete": "organization"}),
        help_text=gettext_lazy("What people read on pages, in invitations and reports. Programs never see it."),
    )
    language = forms.ChoiceField(
        label=gettext_lazy("Language"),
        choices=Language.choices,
        help_text=gettext_lazy("Of invitations and reports. Everybody chooses the language of their own pages at the top."),
    )
    time_zone = forms.CharField(
        label=gettext_lazy("Time zone"),
        max_length=64,
        validators=[validate_time_zone],
        widget=forms.TextInput(attrs={"list": "time-zones", "autocomplete": "off", "spellcheck": "false"}),
        help_text=gettext_lazy(
            "Type a part of it, such as Tokyo. Days and months of limits and reports begin by it: a change moves them."
        ),
    )
    error_dialect = forms.ChoiceField(
        label=gettext_lazy("How errors are written, where a key does not say otherwise"),
        choices=DIALECTS.items,
        widget=forms.RadioSelect,
    )
    unknown_fields = forms.ChoiceField(
        label=gettext_lazy("What becomes of a request field that the gateway does not know"),
        choices=UNKNOWN.items,
        widget=forms.RadioSelect,
    )
    cors_origins = forms.CharField(
        label=gettext_lazy("Web pages that may call from a browser"),
        required=False,
        max_length=ORIGINS_MAX * (ORIGIN_MAX_CHARACTERS + 2),
        widget=forms.Textarea(attrs={"rows": 3, "class": "code", "spellcheck": "false", "autocomplete": "off"}),
        help_text=gettext_lazy(
            "One a line, such as https://app.example.com. Whoever opens such a page can read the key it uses. Empty: none."
        ),
    )
    store_out = forms.ChoiceField(
        label=gettext_lazy("While the store that counts calls is out"),
        choices=STORE_OUT.items,
        widget=forms.RadioSelect,
    )
    usage_retention_days = forms.IntegerField(
        label=gettext_lazy("Days that usage is kept"),
        validators=[MinValueValidator(1), MaxValueValidator(RETENTION_MAX_DAYS)],
        widget=forms.NumberInput(attrs={"min": 1, "max": RETENTION_MAX_DAYS, "inputmode": "numeric"}),
        help_text=gettext_lazy("Single calls and all totals. Whatever is older is deleted every day, for good."),
    )
    shorter = forms.IntegerField(
        label=gettext_lazy("The new number of days, once more"),
        required=False,
        widget=forms.NumberInput(attrs={"inputmode": "numeric", "autocomplete": "off"}),
    )

    def __init__(self, *args: Any, tenant: Tenant, **kwargs: Any) -> None:
        super().__init__(*args, **{"initial": _initial(tenant), **kwargs})
        self._kept_days = tenant.usage_retention_days

    def clean_cors_origins(self) -> list[str]:
        origins = [line.rstrip("/").lower() for line in re.split(r"[\s,、]+", self.cleaned_data["cors_origins"]) if line]
        origins = list(dict.fromkeys(origins))
        if len(origins) > ORIGINS_MAX:
            raise ValidationError(_("Name %(number)d origins at most.") % {"number": ORIGINS_MAX})
        for origin in origins:
            if len(origin) > ORIGIN_MAX_CHARACTERS or not ORIGIN.regex.match(origin):
                told = _("“%(origin)s” is no origin: write it like https://app.example.com, without a path.")
                raise ValidationError(told % {"origin": origin[:100]})
        return origins

    def clean(self) -> None:
        days = self.cleaned_data.get("usage_retention_days")
        if days is None or days >= self._kept_days or self.cleaned_data.get("shorter") == days:
            return
        told = _("Usage older than %(days)d days will be deleted within a day, and nobody can bring it back.") % {"days": days}
        self.add_error("shorter", told + " " + _("Type %(days)d here to say that you want it.") % {"days": days})

    @property
    def is_shortening(self) -> bool:
        """Is the number of days to be typed once more? Asked once somebody sent a smaller one."""
        return self.is_bound and ("shorter" in self.errors or bool(self.data.get("shorter")))

    @property
    def settings(self) -> TenantSettings:
        said = self.cleaned_data
        return TenantSettings(**{name: value for name, value in said.items() if name != "shorter"})


def _initial(tenant: Tenant) -> dict[str, Any]:
    held = {name: getattr(tenant, name) for name in SettingsForm.base_fields if name != "shorter"}
    return held | {"cors_origins": "\n".join(tenant.cors_origins)}


@lru_cache(maxsize=1)
def zone_names() -> tuple[str, ...]:
    """The names worth offering; the field takes the others too."""
    places = (name for name in available_timezones() if "/" in name and not name.startswith(_LEGACY))
    return (*sorted(places), "UTC")


def offsets(at: datetime) -> list[tuple[str, str]]:
    """Each zone with how far it is from UTC at a moment, as +09:00."""
    return [(name, _offset(at.astimezone(ZoneInfo(name)).utcoffset() or timedelta())) for name in zone_names()]


def _offset(offset: timedelta) -> str:
    hours, minutes = divmod(abs(offset) // timedelta(minutes=1), 60)
    return f"{'-' if offset < timedelta() else '+'}{hours:02d}:{minutes:02d}"
